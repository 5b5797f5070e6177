//! Pruning: how much to remove in a round, what is least important, and its removal.
//!
//! Structured pruning takes whole units out of their groups: tensors, bytes, multiply-accumulates and latency really
//! shrink. Unstructured pruning sets single weights to zero under a mask: the file stays as long, and says so.

mod importance;
mod structured;
mod unstructured;

pub use structured::prune_units;
#[cfg(test)]
pub(crate) use structured::shrink;
pub use unstructured::prune_weights;

use serde::{Deserialize, Serialize};

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// Whole heads, neurons and channels.
    Structured,
    /// Single weights.
    Unstructured,
}

/// What counts as unimportant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// A small norm (Han et al. 2015; Li et al. 2017 for whole filters).
    Magnitude,
    /// Chance: the control that any criterion has to beat.
    Random,
}

/// How the pruned fraction grows from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SparsitySchedule {
    /// By the same amount each round.
    Linear,
    /// Fast at first: `target (1 - (1 - round / rounds)³)`, Zhu & Gupta 2017, equation 1.
    Cubic,
}

impl SparsitySchedule {
    /// The fraction of the dense model that is gone after `round` (from 1) of `rounds`.
    pub fn fraction(self, target: f64, round: usize, rounds: usize) -> f64 {
        if round >= rounds {
            return target;
        }
        let progress = round as f64 / rounds as f64;
        match self {
            Self::Linear => target * progress,
            Self::Cubic => target * (1.0 - (1.0 - progress).powi(3)),
        }
    }
}

/// One round's removal. Fractions are of the dense model, not of what the last round left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PruneRound {
    /// What is removed.
    pub granularity: Granularity,
    /// By which measure.
    pub criterion: Criterion,
    /// Fraction of attention heads gone after this round.
    pub heads: f64,
    /// Fraction of neurons, channels or weights gone after this round.
    pub neurons: f64,
    /// Widths are kept a multiple of this.
    pub round_to: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_end_at_the_target_and_never_fall() {
        for schedule in [SparsitySchedule::Linear, SparsitySchedule::Cubic] {
            let all: Vec<f64> = (1..=5).map(|r| schedule.fraction(0.8, r, 5)).collect();
            assert_eq!(all[4], 0.8);
            assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        }
        assert!((SparsitySchedule::Linear.fraction(0.8, 2, 4) - 0.4).abs() < 1e-12);
        assert!((SparsitySchedule::Cubic.fraction(0.8, 2, 4) - 0.7).abs() < 1e-12);
    }
}
