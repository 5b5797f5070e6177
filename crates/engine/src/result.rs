//! What the action cache holds for a key: which artifact came out, and what was measured on the way.

use crate::action::Kind;
use crate::digest::Digest;
use crate::key::ActionKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The result of an action that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// The key that it is the result of.
    pub key: ActionKey,
    /// Kind of the action.
    pub kind: Kind,
    /// Digest of the artifact's tree.
    pub tree: Digest,
    /// What follows from the key.
    pub metrics: BTreeMap<String, f64>,
    /// Times, latency, memory: never in any key or digest.
    pub measurements: BTreeMap<String, f64>,
    /// How long it ran.
    pub seconds: f64,
    /// Most memory that the worker held, where it is known.
    pub peak_memory_bytes: Option<u64>,
    /// The last lines that it logged.
    pub log: String,
}
