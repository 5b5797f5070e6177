//! The one place that says which random stream serves which purpose.
//!
//! Every draw comes from the counter-based generator of `orchestrate_kernels`, keyed by (seed, purpose, step), so that no
//! draw depends on how many were made before it, on the thread count or on where a run was interrupted.

use orchestrate_kernels::RandomKey;

/// What a stream is drawn for. The numbers are part of every trained artifact's bits: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights; the step is a hash of the parameter's name.
    Initialize,
    /// The order of rows in an epoch; the step is the epoch.
    Shuffle,
    /// The random criterion of pruning; the step is a hash of the group's or parameter's name.
    Prune,
    /// Input that only has to have the right shape.
    Bench,
    /// A dropout mask; the step is the optimizer step, the site the how-manieth dropout of the pass it is.
    Dropout {
        /// Position of the dropout within the forward pass.
        site: u32,
    },
}

impl Purpose {
    /// The key of this purpose's stream at `step` under `seed`.
    pub fn key(self, seed: u64, step: u64) -> RandomKey {
        let purpose = match self {
            Self::Initialize => 1,
            Self::Shuffle => 2,
            Self::Prune => 3,
            Self::Bench => 4,
            Self::Dropout { site } => 0x1000 + site,
        };
        RandomKey { seed, purpose, step }
    }
}

/// A step number from a name, so that a stream belongs to a name rather than to an order.
pub fn step_of_name(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a blake3 digest has 32 bytes"))
}
