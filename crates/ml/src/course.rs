//! The course of a training: what sets one step apart from another, and how much of that a longer training shares.

use crate::quantize::observer::Ranges;
use crate::schedule::Rates;
use crate::training::Training;

/// What a step is told beside its rows and its number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moment {
    pub learning_rate: f64,
    pub ranges: Ranges,
}

/// The course of one training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    rates: Rates,
    observes: bool,
    /// Optimizer steps in all.
    pub total: usize,
}

impl Course {
    /// The course of `training` over `rows` rows, of a model that observes the ranges of its layers' inputs or not.
    pub fn new(training: &Training, rows: usize, observes: bool) -> Self {
        let epoch = rows.div_ceil(training.batch_size);
        let all = training.epochs * epoch;
        let total = training.max_steps.map_or(all, |limit| all.min(limit));
        Self {
            rates: Rates::new(training, total, epoch),
            observes,
            total,
        }
    }

    /// What step `step`, from 0, is told.
    pub fn moment(&self, step: usize) -> Moment {
        Moment {
            learning_rate: self.rates.at(step),
            ranges: if self.observes && 2 * step < self.total {
                Ranges::Track
            } else {
                Ranges::Fixed
            },
        }
    }

    /// How many steps a longer training of the same settings begins with, too.
    pub fn shared(&self) -> usize {
        let tracked = if self.observes {
            self.total.div_ceil(2)
        } else {
            self.total
        };
        self.rates.shared().min(tracked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    fn course(schedule: Schedule, warmup: f64, epochs: usize, observes: bool) -> Course {
        let training = Training {
            epochs,
            batch_size: 10,
            learning_rate: 1.0,
            schedule,
            warmup,
            lr_decay: 0.2,
            ..Training::NONE
        };
        Course::new(&training, 95, observes)
    }

    #[test]
    fn what_is_shared_is_the_same_in_a_longer_training() {
        use Schedule::{Constant, Cosine, Linear, WarmupStableDecay};
        let cases = [
            (Constant, 0.0, false, 30),
            (Constant, 0.1, false, 0),
            (Linear, 0.0, false, 0),
            (Cosine, 0.0, false, 0),
            (WarmupStableDecay, 0.5, false, 24),
            (WarmupStableDecay, 0.5, true, 15),
        ];
        for (schedule, warmup, observes, shared) in cases {
            let (short, long) = (
                course(schedule, warmup, 3, observes),
                course(schedule, warmup, 5, observes),
            );
            assert_eq!((short.total, long.total), (30, 50));
            assert_eq!(short.shared(), shared, "{schedule:?}");
            let same = |step: &usize| short.moment(*step) == long.moment(*step);
            assert_eq!((0..shared).filter(same).count(), shared, "{schedule:?}");
        }
    }
}
