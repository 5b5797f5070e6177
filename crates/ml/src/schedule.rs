//! Learning rate schedules with warm-up.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to zero at the end.
    Linear,
    /// Falls as half a cosine to zero at the end (Loshchilov & Hutter 2017, without restarts).
    Cosine,
}

impl Schedule {
    /// The share of the peak rate, in 0..=1, at `step` of `total`, after a linear warm-up over `warmup` (a fraction of
    /// `total`). The first step of a warm-up is not zero.
    pub fn factor(self, step: usize, total: usize, warmup: f64) -> f64 {
        let rise = warmup * total as f64;
        let now = step as f64;
        if now + 1.0 <= rise {
            return (now + 1.0) / rise;
        }
        let left = (total as f64 - now) / (total as f64 - rise).max(1.0);
        let left = left.clamp(0.0, 1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear => left,
            Self::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * left).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_rises_to_the_peak_and_the_rest_falls_to_zero() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.factor(0, 100, 0.1), 0.1);
            assert_eq!(schedule.factor(9, 100, 0.1), 1.0);
            assert!(schedule.factor(99, 100, 0.1) < 0.02);
            let all: Vec<f64> = (10..100).map(|s| schedule.factor(s, 100, 0.1)).collect();
            assert!(all.is_sorted_by(|a, b| a >= b));
        }
        assert_eq!(Schedule::Constant.factor(99, 100, 0.1), 1.0);
        assert!((Schedule::Cosine.factor(55, 100, 0.1) - 0.5).abs() < 1e-9);
        assert!((Schedule::Linear.factor(55, 100, 0.1) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(Schedule::Linear.factor(0, 10, 0.0), 1.0);
        assert_eq!(Schedule::Linear.factor(0, 1, 0.0), 1.0);
    }
}
