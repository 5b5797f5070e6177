//! A convolution with a batch norm behind it, or with one that was folded into it: the store says which.

use super::batch_norm::{BatchNorm, Scaling};
use super::conv::{Conv2d, ConvShape};
use crate::error::{Error, Result};
use crate::parameters::{NormAfter, Parameters};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::relu;
use std::collections::BTreeMap;

/// Added to a variance, as in PyTorch.
const EPSILON: f64 = 1e-5;

/// A convolution that is normalized.
pub struct ConvNorm {
    conv: Conv2d,
    norm: Option<BatchNorm>,
}

impl ConvNorm {
    /// Builds the layer from `path.weight` and the batch norm at `norm_path`; where the store has none, from `path.weight`
    /// and `path.bias`, which [`fold_norms`] made of both.
    ///
    /// # Errors
    /// As [`super::Linear::new`].
    pub fn new(p: &mut Parameters, path: &str, norm_path: &str, shape: ConvShape) -> Result<Self> {
        if !p.holds(&format!("{norm_path}.weight")) {
            let conv = Conv2d::new(p, path, shape)?;
            return Ok(Self { conv, norm: None });
        }
        let conv = Conv2d::without_bias(p, path, shape)?;
        let norm = BatchNorm::new(p, norm_path, shape.outputs, EPSILON)?;
        let after = NormAfter {
            path: norm_path.into(),
            epsilon: EPSILON,
        };
        p.note_norm(path, after);
        Ok(Self { conv, norm: Some(norm) })
    }

    /// `x: [B, in, H, W]` to `[B, out, H', W']`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.conv.forward(x, pass)?;
        match &self.norm {
            Some(norm) => norm.forward(&y, pass),
            None => Ok(y),
        }
    }

    /// [`ConvNorm::forward`] with a rectifier behind it.
    pub fn forward_relu(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.conv.forward(x, pass)?;
        match &self.norm {
            Some(norm) => norm.forward_relu(&y, pass),
            None => Ok(relu(&y)?),
        }
    }
}

/// The f32 tensors of a model, every batch norm folded into the convolution before it (Jacob et al. 2018, section 3.2): the
/// kernel of each output channel is scaled, and the convolution gets a bias. Masked weights stay zero. A model without
/// batch norms is given as it is.
///
/// # Errors
/// [`Error::MissingTensor`] if a layer's tensor is not there.
pub fn fold_norms(parameters: &Parameters) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = parameters.floats();
    for (path, norm) in parameters.norms() {
        let missing = |name: String| Error::MissingTensor { name, shape: vec![] };
        let scaling = Scaling::take(norm, &mut tensors)?.ok_or_else(|| missing(norm.path.clone()))?;
        let name = format!("{path}.weight");
        let weight = tensors.remove(&name).ok_or_else(|| missing(name.clone()))?;
        let scale = scaling.scale.reshape((scaling.scale.elem_count(), 1, 1, 1))?;
        tensors.insert(name, weight.broadcast_mul(&scale)?);
        tensors.insert(format!("{path}.bias"), scaling.shift);
    }
    Ok(tensors)
}
