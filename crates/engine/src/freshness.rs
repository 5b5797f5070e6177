//! Whether an action must run, and why: an action that is stale without a reason does not type.

use crate::change::Change;
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::result::ActionResult;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The verdict on one action.
#[derive(Debug, Clone, PartialEq)]
pub enum Freshness {
    /// Its result is known.
    Fresh(ActionResult),
    /// It must run.
    Stale(Reason),
}

/// Why an action must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No earlier run of this recipe had a result of an action of this name.
    NeverRan,
    /// The key differs from the last result's, in this. Never empty.
    Changed(Vec<Change>),
    /// The key differs from the last result's, whose document is lost: in what cannot be told.
    DocumentLost {
        /// The last result's key.
        former: ActionKey,
    },
    /// The result or bytes of it are no longer in the store.
    OutputsMissing {
        /// What is missing.
        what: String,
    },
    /// A blob of its artifact had other bytes than its name says.
    Corrupt {
        /// The blob.
        digest: Digest,
    },
    /// There is a result, but its file is damaged.
    ResultUnreadable,
    /// It runs a second time to see whether it gives the same.
    Check,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran"),
            Self::Changed(changes) => {
                let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
            Self::DocumentLost { former } => {
                write!(f, "changed since {}, whose key document is lost", former.short())
            }
            Self::OutputsMissing { what } => write!(f, "{what} is no longer in the store"),
            Self::Corrupt { digest } => write!(f, "blob {} in the store was corrupt", digest.short()),
            Self::Check => f.write_str("to check that it gives the same again"),
            Self::ResultUnreadable => f.write_str("its result in the store was damaged"),
        }
    }
}
