//! An action: what the engine runs. A step of a recipe lowers to one or more of them.
//!
//! Invariant: an action holds all that its result may depend on (kind, parameters, seed, numerics, inputs); its names
//! and its demand are for people and for the scheduler, and never enter its key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// An action's place in its graph; ids ascend in topological order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub(crate) usize);

impl ActionId {
    /// Its position in the order of insertion, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// What an action does, and which version of it: a change of what it computes is a new version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Kind {
    /// Name of the kind, such as `train`.
    pub name: String,
    /// Version of its semantics.
    pub version: u32,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// One unit of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Its name, unique in the graph, such as `prune.round-2`: for people and run records only, never in the key.
    pub name: String,
    /// The recipe's step that it came from; never in the key.
    pub step: String,
    /// What it does.
    pub kind: Kind,
    /// Parameters, resolved and defaulted. The order of their members does not matter. JSON has no word for NaN, and
    /// `serde_json` silently makes it null: whoever resolves parameters must refuse it.
    pub parameters: serde_json::Value,
    /// Seed of all its randomness.
    pub seed: u64,
    /// Numerics class: results of two classes may differ in their bits. `exact` where nothing is rounded.
    pub numerics: String,
    /// Role to input.
    pub inputs: BTreeMap<String, Input>,
    /// Resources that it takes while it runs; never in the key.
    pub demand: Demand,
    /// Most memory that it is expected to hold, in bytes, if that is known; never in the key.
    pub memory: Option<u64>,
    /// Its parameters without those that only say how long it goes on, if its step keeps checkpoints: actions that are
    /// equal but for those share what they keep. Never in the key.
    pub trajectory: Option<serde_json::Value>,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The artifact of another action.
    Action(ActionId),
    /// A file that the build does not make, known by its content.
    File(PathBuf),
}

/// What an action takes while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// One slot of the main pool.
    Slot,
    /// The whole machine: it runs alone, so that what it times is not disturbed.
    Whole,
    /// A place in the light pool: little work, little memory.
    Light,
    /// The build's accelerator, such as a GPU, of which there is one: no other action is on it at the same time. Actions on
    /// the processor go on beside it, and it takes no slot of theirs.
    Device,
}
