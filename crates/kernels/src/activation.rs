//! Elementwise activations: gelu in its exact form, relu, tanh.
//!
//! The backward passes recompute from the argument, so nothing is saved.

use crate::elementary;
use crate::isa::multiversion;
use crate::storage::{TASK, cpu_slice, elementwise_backward, is_fused, on_cuda, transform};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// x · Φ(x), the exact form of the Gaussian error linear unit (Hendrycks & Gimpel 2016). Any shape.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Elementwise::Gelu.apply(x)
}

/// max(x, 0); the gradient at 0 is 0. Any shape.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    Elementwise::Relu.apply(x)
}

/// The hyperbolic tangent. Any shape.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    Elementwise::Tanh.apply(x)
}

#[derive(Clone, Copy)]
enum Elementwise {
    Gelu,
    Relu,
    Tanh,
}

impl Elementwise {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        if let Self::Gelu = self {
            on_cuda!(x, gelu(x));
        }
        if is_fused(x) {
            x.contiguous()?.apply_op1(self)
        } else {
            self.reference(x)
        }
    }

    fn reference(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x * (((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?,
            Self::Relu => x.relu(),
            Self::Tanh => x.tanh(),
        }
    }
}

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let forward = match self {
            Self::Gelu => gelu_forward,
            Self::Relu => relu_forward,
            Self::Tanh => tanh_forward,
        };
        let values = transform(cpu_slice(storage, layout)?, TASK, |_, piece| forward(piece));
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, argument: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = match self {
            Self::Gelu => elementwise_backward(argument, gradient, gelu_backward),
            Self::Relu => elementwise_backward(argument, gradient, relu_backward),
            Self::Tanh => elementwise_backward(result, gradient, tanh_backward),
        };
        gradient.map(Some)
    }
}

/// [`gelu`] of each value.
pub(crate) fn gelu_of(values: &[f32]) -> Vec<f32> {
    transform(values, TASK, |_, piece| gelu_forward(piece))
}

/// Turns the gradient of [`gelu`]'s output into that of its argument `x`.
pub(crate) fn gelu_gradient(gradient: &mut [f32], x: &[f32]) {
    let pieces = gradient.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    pieces.for_each(|(gradient, x)| gelu_backward(gradient, x));
}

multiversion! {
    pub(crate) fn gelu_forward(values: &mut [f32]) {
        for v in values {
            *v *= elementary::normal_cdf(*v).0;
        }
    }

    /// d/dx x Φ(x) = Φ(x) + x φ(x).
    fn gelu_backward(gradient: &mut [f32], x: &[f32]) {
        const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
        for (g, &x) in gradient.iter_mut().zip(x) {
            let (cdf, gauss) = elementary::normal_cdf(x);
            *g *= cdf + x * (INVERSE_SQRT_TAU * gauss);
        }
    }

    fn relu_forward(values: &mut [f32]) {
        for v in values {
            *v = if *v < 0.0 { 0.0 } else { *v };
        }
    }

    fn relu_backward(gradient: &mut [f32], x: &[f32]) {
        for (g, &x) in gradient.iter_mut().zip(x) {
            *g = if x > 0.0 { *g } else { 0.0 };
        }
    }

    fn tanh_forward(values: &mut [f32]) {
        for v in values {
            *v = elementary::tanh(*v);
        }
    }

    /// The derivative is 1 − y².
    fn tanh_backward(gradient: &mut [f32], y: &[f32]) {
        for (g, &y) in gradient.iter_mut().zip(y) {
            *g *= 1.0 - y * y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};
    use candle_core::Device;

    #[test]
    fn gradients() -> Result<()> {
        for n in SIZES {
            let x = sample(&[3, n], 1);
            check(
                &[&x],
                |t| gelu(t[0]),
                |t| Elementwise::Gelu.reference(t[0]),
                Differences::Central,
                2e-6,
            )?;
            check(
                &[&x],
                |t| tanh(t[0]),
                |t| Elementwise::Tanh.reference(t[0]),
                Differences::Central,
                2e-6,
            )?;
            check(
                &[&x],
                |t| relu(t[0]),
                |t| Elementwise::Relu.reference(t[0]),
                Differences::Skip,
                1e-7,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let x = sample(&[31, 401], 2);
        same_bits_everywhere(&[&x], |t| gelu(t[0]))?;
        same_bits_everywhere(&[&x], |t| tanh(t[0]))
    }

    #[test]
    fn empty_and_not_a_number() -> Result<()> {
        assert_eq!(gelu(&sample(&[0, 5], 1))?.dims(), [0, 5]);
        let x = Tensor::new(&[f32::NAN, -1.0, f32::INFINITY, 0.0], &Device::Cpu)?;
        let y: Vec<f32> = relu(&x)?.to_vec1()?;
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [0.0, f32::INFINITY, 0.0]);
        assert!(gelu(&x)?.to_vec1::<f32>()?[0].is_nan());
        Ok(())
    }

    #[test]
    fn a_transposed_argument_is_read_in_its_own_order() -> Result<()> {
        let x = sample(&[4, 6], 3);
        let y = gelu(&x.t()?)?.t()?.contiguous()?;
        assert_eq!(y.to_vec2::<f32>()?, gelu(&x)?.to_vec2::<f32>()?);
        Ok(())
    }
}
