//! What a forward pass needs to know beside its batch: training or not, and what to do with quantization ranges.

use crate::quantize::observer::Ranges;
use crate::random::Purpose;
use candle_core::{Result, Tensor};
use orchestrate_kernels::{Dropout, dropout};
use std::cell::Cell;

/// One forward pass. Make a new one for every pass: it counts its dropout sites.
#[derive(Debug)]
pub struct Pass {
    dropout_rate: f32,
    seed: u64,
    step: u64,
    site: Cell<u32>,
    ranges: Ranges,
}

impl Pass {
    /// A pass in inference: no dropout, fixed ranges.
    pub fn inference() -> Self {
        Self {
            dropout_rate: 0.0,
            seed: 0,
            step: 0,
            site: Cell::new(0),
            ranges: Ranges::Fixed,
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
        }
    }

    /// What layers do with their ranges.
    pub fn ranges(&self) -> Ranges {
        self.ranges
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
