//! Learning rate schedules with warm-up.

use crate::training::Training;
use serde::{Deserialize, Serialize};

/// The shape of the learning rate behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to zero at the end.
    Linear,
    /// Falls as half a cosine to zero at the end (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Stays at the peak and falls linearly to zero over a last part (Hu et al. 2024, section 4; Hägele et al. 2024). Until
    /// then nothing depends on how long the training is, so that a longer one goes on from there.
    WarmupStableDecay,
}

/// The learning rate of every step of a training.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    schedule: Schedule,
    peak: f64,
    /// Steps in all.
    total: usize,
    /// Steps of the warm-up.
    rise: f64,
    /// The first step of the fall of [`Schedule::WarmupStableDecay`].
    fall: usize,
}

impl Rates {
    /// The rates of `training`, which takes `total` steps in all and `epoch` for each pass over its rows.
    ///
    /// The warm-up is a fraction of all steps, of one epoch under [`Schedule::WarmupStableDecay`].
    pub fn new(training: &Training, total: usize, epoch: usize) -> Self {
        let whole = match training.schedule {
            Schedule::Constant | Schedule::Linear | Schedule::Cosine => total,
            Schedule::WarmupStableDecay => epoch,
        };
        Self {
            schedule: training.schedule,
            peak: training.learning_rate,
            total,
            rise: training.warmup * whole as f64,
            fall: total - ((training.lr_decay * total as f64).round() as usize).min(total),
        }
    }

    /// The rate of step `step`, from 0. The first step of a warm-up is not zero.
    pub fn at(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }

    /// The share of the peak rate, in 0..=1.
    fn factor(&self, step: usize) -> f64 {
        let now = step as f64;
        if now + 1.0 <= self.rise {
            return (now + 1.0) / self.rise;
        }
        let total = self.total as f64;
        let left = |from: f64| ((total - now) / (total - from).max(1.0)).clamp(0.0, 1.0);
        match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => left(self.rise),
            Schedule::Cosine => 0.5 * (1.0 - libm::cos(std::f64::consts::PI * left(self.rise))),
            Schedule::WarmupStableDecay => left(self.fall as f64),
        }
    }

    /// How many steps have the same rates in a longer training.
    pub fn shared(&self) -> usize {
        match self.schedule {
            Schedule::Constant if self.rise == 0.0 => self.total,
            Schedule::Constant | Schedule::Linear | Schedule::Cosine => 0,
            Schedule::WarmupStableDecay => self.fall,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, total: usize, warmup: f64) -> Rates {
        let training = Training {
            schedule,
            warmup,
            learning_rate: 1.0,
            lr_decay: 0.25,
            ..Training::NONE
        };
        Rates::new(&training, total, total / 2)
    }

    #[test]
    fn warm_up_rises_to_the_peak_and_the_rest_falls_to_zero() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            let rates = rates(schedule, 100, 0.1);
            assert_eq!(rates.at(0), 0.1);
            assert_eq!(rates.at(9), 1.0);
            assert!(rates.at(99) < 0.02);
            let all: Vec<f64> = (10..100).map(|step| rates.at(step)).collect();
            assert!(all.is_sorted_by(|a, b| a >= b));
        }
        assert_eq!(rates(Schedule::Constant, 100, 0.1).at(99), 1.0);
        assert!((rates(Schedule::Cosine, 100, 0.1).at(55) - 0.5).abs() < 1e-9);
        assert!((rates(Schedule::Linear, 100, 0.1).at(55) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(rates(Schedule::Linear, 10, 0.0).at(0), 1.0);
        assert_eq!(rates(Schedule::Linear, 1, 0.0).at(0), 1.0);
    }

    #[test]
    fn a_stable_rate_rises_within_one_epoch_and_falls_at_the_end() {
        let rates = rates(Schedule::WarmupStableDecay, 100, 0.2);
        let all: Vec<f64> = [0, 9, 10, 74, 75, 76, 99].map(|step| rates.at(step)).into();
        assert_eq!(all, [0.1, 1.0, 1.0, 1.0, 1.0, 0.96, 0.04]);
        assert_eq!(rates.shared(), 75);
    }
}
