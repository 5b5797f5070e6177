//! The feed-forward part of a transformer layer (Vaswani et al. 2017, section 3.3, with gelu).

use super::linear::Linear;
use crate::error::Result;
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{feed_forward, gelu, int8_feed_forward};

/// Two layers with gelu in between.
pub struct FeedForward {
    /// To the neurons.
    pub inner: Linear,
    /// From the neurons.
    pub outer: Linear,
}

impl FeedForward {
    /// `x: [..., width]`, the same shape out.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        if let (Some(inner), Some(outer)) = (self.inner.affine(), self.outer.affine()) {
            return Ok(feed_forward(x, &inner, &outer, pass.precision())?);
        }
        if let (Some(inner), Some(outer)) = (self.inner.integers(), self.outer.integers()) {
            return Ok(int8_feed_forward(x, inner, outer)?);
        }
        self.outer.forward(&gelu(&self.inner.forward(x, pass)?)?, pass)
    }
}
