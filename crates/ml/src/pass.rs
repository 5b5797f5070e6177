//! What a forward pass needs to know beside its batch: training or not, in which precision, and what to do with quantization
//! ranges.

use crate::error;
use crate::quantize::observer::Ranges;
use crate::random::Purpose;
use candle_core::{Result, Tensor};
use orchestrate_kernels::{Dropout, ProductPrecision, checkpoint, dropout};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What a batch norm does with the statistics of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// Normalize by them, and move the running ones towards them: training.
    Track,
    /// Normalize by them alone: a part of a training pass that is run once more.
    Repeat,
    /// Normalize by the running ones: inference.
    Running,
}

/// One forward pass. Make a new one for every pass: it counts its dropout sites.
#[derive(Debug, Clone)]
pub struct Pass {
    dropout_rate: f32,
    seed: u64,
    step: u64,
    site: Cell<u32>,
    ranges: Ranges,
    statistics: Statistics,
    checkpoints: bool,
    precision: ProductPrecision,
}

impl Pass {
    /// A pass in inference: no dropout, fixed ranges, running statistics.
    pub fn inference() -> Self {
        Self {
            dropout_rate: 0.0,
            seed: 0,
            step: 0,
            site: Cell::new(0),
            ranges: Ranges::Fixed,
            statistics: Statistics::Running,
            checkpoints: false,
            precision: ProductPrecision::F32,
        }
    }

    /// A pass over calibration data: no dropout; observers look, and the inputs they look at are not quantized.
    pub fn calibration() -> Self {
        Self {
            ranges: Ranges::Calibrate,
            ..Self::inference()
        }
    }

    /// A training pass at optimizer step `step`, its dropout drawn from `seed`.
    pub fn training(dropout_rate: f32, seed: u64, step: u64, ranges: Ranges) -> Self {
        Self {
            dropout_rate,
            seed,
            step,
            site: Cell::new(0),
            ranges,
            statistics: Statistics::Track,
            checkpoints: false,
            precision: ProductPrecision::F32,
        }
    }

    /// The same pass with gradient checkpointing, or without.
    pub fn with_checkpoints(self, checkpoints: bool) -> Self {
        Self { checkpoints, ..self }
    }

    /// The same pass with its matrix products in `precision`.
    pub fn with_precision(self, precision: ProductPrecision) -> Self {
        Self { precision, ..self }
    }

    /// That of matrix products, here and in the backward pass.
    pub fn precision(&self) -> ProductPrecision {
        self.precision
    }

    /// Runs one of the [`Parts`] of a model. With gradient checkpointing only its input is kept, and it is run once more,
    /// with the same dropout and ranges, when its gradients are asked for.
    ///
    /// # Errors
    /// As `part`.
    fn part(
        &self,
        x: &Tensor,
        part: impl Fn(&Tensor, &Self) -> error::Result<Tensor> + Send + Sync + 'static,
    ) -> error::Result<Tensor> {
        if !self.checkpoints {
            return part(x, self);
        }
        let Self {
            dropout_rate,
            seed,
            step,
            ranges,
            precision,
            ..
        } = *self;
        let (first_site, next_site) = (self.site.get(), Arc::new(AtomicU32::new(0)));
        let (again, counter) = (AtomicBool::new(false), Arc::clone(&next_site));
        let y = checkpoint(x, move |x| {
            // Observers and running statistics have moved when the part was first run, and are not to move twice.
            let (ranges, statistics) = if again.swap(true, Ordering::Relaxed) {
                (Ranges::Fixed, Statistics::Repeat)
            } else {
                (ranges, Statistics::Track)
            };
            let pass = Self {
                statistics,
                precision,
                ..Self::training(dropout_rate, seed, step, ranges)
            };
            pass.site.set(first_site);
            let y = part(x, &pass).map_err(candle_core::Error::wrap)?;
            counter.store(pass.site.get(), Ordering::Relaxed);
            Ok(y)
        })?;
        self.site.set(next_site.load(Ordering::Relaxed));
        Ok(y)
    }

    /// What layers do with their ranges.
    pub fn ranges(&self) -> Ranges {
        self.ranges
    }

    /// What batch norms do with their statistics.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The next dropout site of this pass, `None` where nothing is dropped.
    pub fn next_dropout(&self) -> Option<Dropout> {
        if self.dropout_rate == 0.0 {
            return None;
        }
        let site = self.site.replace(self.site.get() + 1);
        Some(Dropout {
            rate: self.dropout_rate,
            key: Purpose::Dropout { site }.key(self.seed, self.step),
        })
    }

    /// `x` with the next dropout applied (Srivastava et al. 2014, inverted).
    pub fn dropout(&self, x: Tensor) -> Result<Tensor> {
        match self.next_dropout() {
            Some(next) => dropout(&x, next),
            None => Ok(x),
        }
    }
}

/// The equal parts that a deep model is made of, one behind the other.
pub struct Parts<P>(Vec<Arc<P>>);

impl<P> FromIterator<P> for Parts<P> {
    fn from_iter<I: IntoIterator<Item = P>>(parts: I) -> Self {
        Self(parts.into_iter().map(Arc::new).collect())
    }
}

impl<P: Send + Sync + 'static> Parts<P> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs each with `run` on what the one before gave. With gradient checkpointing only the input of each is kept, but for
    /// the last: its gradients come before those of the others, so that what it keeps is gone when they are run again.
    ///
    /// # Errors
    /// As `run`.
    pub fn forward(
        &self,
        x: Tensor,
        pass: &Pass,
        run: impl Fn(&P, &Tensor, &Pass) -> error::Result<Tensor> + Clone + Send + Sync + 'static,
    ) -> error::Result<Tensor> {
        let Some((last, earlier)) = self.0.split_last() else {
            return Ok(x);
        };
        let x = earlier.iter().try_fold(x, |x, part| {
            let (part, run) = (Arc::clone(part), run.clone());
            pass.part(&x, move |x, pass| run(&part, x, pass))
        })?;
        run(last, &x, pass)
    }
}
