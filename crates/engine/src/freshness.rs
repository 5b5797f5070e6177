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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is the same in every reason of its kind, and one of it.
    fn in_every(reason: &Reason) -> &'static str {
        match reason {
            Reason::NeverRan => "never ran",
            Reason::Changed(_) => "0.001 → 0.0005",
            Reason::DocumentLost { .. } => ", whose key document is lost",
            Reason::OutputsMissing { .. } => " is no longer in the store",
            Reason::Corrupt { .. } => " in the store was corrupt",
            Reason::ResultUnreadable => "its result in the store was damaged",
            Reason::Check => "to check that it gives the same again",
        }
    }

    #[test]
    fn every_reason_is_in_the_table_of_the_documentation_as_it_is_told() {
        let table = include_str!("../../../docs/caching.md");
        let digest = Digest::of_bytes(b"");
        let former = digest.to_string().parse().expect("a digest names a key");
        let what = "a blob".to_owned();
        let reasons = [
            Reason::NeverRan,
            Reason::DocumentLost { former },
            Reason::OutputsMissing { what },
            Reason::Corrupt { digest },
            Reason::ResultUnreadable,
            Reason::Check,
        ];
        for reason in reasons {
            let words = in_every(&reason);
            assert!(reason.to_string().contains(words), "{reason}");
            let is_told = |line: &str| line.starts_with("| `") && line.contains(words);
            assert!(table.lines().any(is_told), "{reason}");
        }
    }
}
