//! Layer normalization (Ba et al. 2016) over the last dimension. Stays in f32 in every precision.

use super::embedding::Embedding;
use crate::error::Result;
use crate::parameters::{Initial, Parameters};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{add_norm, embedding_norm, layer_norm};

/// Gain, bias and epsilon.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Builds the layer from `path.weight` and `path.bias`, both `[width]`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn new(p: &mut Parameters, path: &str, width: usize, epsilon: f64) -> Result<Self> {
        let weight = p.float(&format!("{path}.weight"), &[width], Initial::Ones)?;
        let bias = p.float(&format!("{path}.bias"), &[width], Initial::Zeros)?;
        Ok(Self { weight, bias, epsilon })
    }

    /// `x: [..., width]`, the same shape out.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm(x, &self.weight, &self.bias, self.epsilon)?)
    }

    /// That of the words of `ids: [B, S]` plus `places: [S, width]`, to `[B, S, width]`.
    pub fn forward_embedding(&self, words: &Embedding, ids: &Tensor, places: &Tensor) -> Result<Tensor> {
        let Some(table) = words.plain_table() else {
            return self.forward(&words.forward(ids)?.broadcast_add(places)?);
        };
        let (weight, bias) = (&self.weight, &self.bias);
        Ok(embedding_norm(table, ids, places, weight, bias, self.epsilon)?)
    }

    /// The residual connection in front of the norm: that of `x` plus `branch`, to which the next dropout is applied.
    pub fn add_and_norm(&self, x: &Tensor, branch: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, &self.bias);
        Ok(add_norm(x, branch, pass.next_dropout(), weight, bias, self.epsilon)?)
    }
}
