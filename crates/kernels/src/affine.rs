//! A linear layer within a larger op, over slices.
//!
//! Invariant: the same bits as [`crate::linear`], forward and, for each gradient alone, backward.
//!
//! An op of candle has at most three inputs, so that a larger one holds its parameters itself and hands their gradients
//! over. That is right only for what nothing else leads to: variables, and what has no gradient.

use crate::gradients::{Gradient, hand_over};
use crate::linear::{column_sums, forward_rows, linear};
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::product::{Output, Threads, multiply, multiply_into};
use crate::storage::{has_own_op, slice, tensor};
use candle_core::{Result, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// x · Wᵀ + b of `weight: [out, in]` and `bias: [out]`.
#[derive(Debug, Clone)]
pub struct Affine {
    /// W.
    pub weight: Tensor,
    /// b.
    pub bias: Tensor,
}

impl Affine {
    /// As [`linear`].
    pub(crate) fn apply(&self, x: &Tensor, precision: ProductPrecision) -> Result<Tensor> {
        linear(x, &self.weight, Some(&self.bias), precision)
    }

    /// The layer's parameters.
    pub(crate) fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// Outputs and inputs.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    pub(crate) fn widths(&self) -> Result<(usize, usize)> {
        let (outputs, inputs) = self.weight.dims2()?;
        if self.bias.dims() != [outputs] {
            bail!("a weight {:?} with bias {:?}", self.weight.dims(), self.bias.dims())
        }
        Ok((outputs, inputs))
    }

    /// The rows of `x` through the layer.
    pub(crate) fn forward(&self, x: &[f32], precision: ProductPrecision) -> Result<Vec<f32>> {
        let (outputs, inputs) = self.widths()?;
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        let weight = Matrix::new(slice(&weight, weight_layout)?, outputs, inputs);
        let x = Matrix::new(x, x.len() / inputs, inputs);
        Ok(forward_rows(x, weight, Some(slice(&bias, bias_layout)?), precision))
    }

    /// Hands the gradients of weight and bias over: `g` is that of the layer's output at `x`.
    pub(crate) fn parameter_gradients(&self, x: &[f32], g: &[f32], precision: ProductPrecision) -> Result<()> {
        let (outputs, inputs) = self.widths()?;
        let rows = g.len() / outputs;
        if self.weight.track_op() {
            let (x, g) = (Matrix::new(x, rows, inputs), Matrix::new(g, rows, outputs));
            let gradient = multiply(g.transposed(), x, Output::PLAIN, precision, Threads::All);
            hand_over_all(&self.weight, tensor(gradient, (outputs, inputs))?)?;
        }
        if self.bias.track_op() {
            hand_over_all(&self.bias, tensor(column_sums(g, outputs), outputs)?)?;
        }
        Ok(())
    }

    /// The gradient of the layer's input: `g` is that of its output.
    pub(crate) fn input_gradient(&self, g: &[f32], precision: ProductPrecision) -> Result<Vec<f32>> {
        self.with_operands(g, |g, weight| {
            multiply(g, weight, Output::PLAIN, precision, Threads::All)
        })
    }

    /// As [`Self::input_gradient`], put into or added to `out`.
    pub(crate) fn input_gradient_into(
        &self,
        g: &[f32],
        out: &mut [f32],
        output: Output<'_>,
        precision: ProductPrecision,
    ) -> Result<()> {
        self.with_operands(g, |g, weight| {
            multiply_into(out, g, weight, output, precision, Threads::All);
        })
    }

    /// What `multiply` makes of the gradient of the layer's output and the weight.
    fn with_operands<R>(&self, g: &[f32], multiply: impl FnOnce(Matrix<'_>, Matrix<'_>) -> R) -> Result<R> {
        let (outputs, inputs) = self.widths()?;
        let (weight, layout) = self.weight.storage_and_layout();
        let weight = Matrix::new(slice(&weight, layout)?, outputs, inputs);
        Ok(multiply(Matrix::new(g, g.len() / outputs, outputs), weight))
    }
}

/// Whether an op of input `x` may hold `parameters` itself: their gradients need that of `x` to be asked for. Otherwise it is
/// to be composed of smaller ones.
pub(crate) fn holds<'a>(x: &Tensor, parameters: impl IntoIterator<Item = &'a Tensor>) -> bool {
    let fits = |p: &Tensor| {
        let is_reached = !p.track_op() || p.is_variable() && x.track_op();
        has_own_op(p) && p.is_contiguous() && p.elem_count() > 0 && is_reached
    };
    has_own_op(x) && x.elem_count() > 0 && parameters.into_iter().all(fits)
}

/// Hands the gradient of a parameter over that an op holds itself.
///
/// # Errors
/// If the pass under way is not one of [`crate::gradients`].
pub(crate) fn hand_over_all(parameter: &Tensor, gradient: impl Into<Gradient>) -> Result<()> {
    match hand_over(parameter, gradient)? {
        None => Ok(()),
        Some(_) => bail!("this op's gradients are for `gradients`, not for candle's own backward pass"),
    }
}

/// What an op keeps from its forward for its backward pass, which takes it, so that its memory is free soon.
#[derive(Debug)]
pub(crate) struct Kept<T>(Mutex<Option<T>>);

impl<T> Kept<T> {
    pub(crate) fn nothing() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    /// # Errors
    /// If it has been taken: the gradients of one graph are computed once.
    pub(crate) fn take(&self) -> Result<T> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!(
                "the gradients of this graph have been computed already, and with that it let go of its activations"
            ),
        }
    }
}
