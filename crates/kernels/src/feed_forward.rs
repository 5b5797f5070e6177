//! The feed-forward part of a transformer layer as one op (Vaswani et al. 2017, section 3.3, with gelu).
//!
//! Between forward and backward it keeps the neurons before and after their activation. The gradients of neurons are
//! written over the neurons themselves.

use crate::activation::{gelu, gelu_gradient, gelu_of};
use crate::affine::{Affine, Kept, holds};
use crate::precision::ProductPrecision;
use crate::product::Output;
use crate::storage::{cpu_slice, on_cuda, slice, tensor};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// gelu(x · W₁ᵀ + b₁) · W₂ᵀ + b₂. `x: [..., n]`, `inner: n → m`, `outer: m → k`, to `[..., k]`.
///
/// The gradients of its parameters come through [`crate::gradients`], once for each graph.
///
/// # Errors
/// If the shapes do not fit.
pub fn feed_forward(x: &Tensor, inner: &Affine, outer: &Affine, precision: ProductPrecision) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let ((neurons, inputs), (outputs, expected)) = (inner.widths()?, outer.widths()?);
    if width != inputs || neurons != expected {
        bail!(
            "feed_forward of {:?} through {inputs} to {neurons} and {expected} to {outputs}",
            x.dims()
        )
    }
    if !holds(x, inner.parameters().into_iter().chain(outer.parameters())) {
        return outer.apply(&gelu(&inner.apply(x, precision)?)?, precision);
    }
    on_cuda!(x, feed_forward(x, inner, outer, precision));
    x.contiguous()?.apply_op1(FeedForward {
        inner: inner.clone(),
        outer: outer.clone(),
        outputs,
        precision,
        neurons: Kept::nothing(),
    })
}

struct FeedForward {
    inner: Affine,
    outer: Affine,
    outputs: usize,
    precision: ProductPrecision,
    /// Before and after their activation.
    neurons: Kept<[Vec<f32>; 2]>,
}

impl CustomOp1 for FeedForward {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let neurons = self.inner.forward(cpu_slice(x, layout)?, self.precision)?;
        let active = gelu_of(&neurons);
        let out = self.outer.forward(&active, self.precision)?;
        self.neurons.put([neurons, active]);
        let mut shape = layout.dims().to_vec();
        shape.pop();
        shape.push(self.outputs);
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (g, g_layout) = gradient.storage_and_layout();
        let (x_storage, x_layout) = x.storage_and_layout();
        let (g, x_values) = (slice(&g, g_layout)?, slice(&x_storage, x_layout)?);
        let [neurons, mut active] = self.neurons.take()?;
        self.outer.parameter_gradients(&active, g, self.precision)?;
        self.outer
            .input_gradient_into(g, &mut active, Output::PLAIN, self.precision)?;
        gelu_gradient(&mut active, &neurons);
        drop(neurons);
        self.inner.parameter_gradients(x_values, &active, self.precision)?;
        let input = self.inner.input_gradient(&active, self.precision)?;
        tensor(input, x.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::ProductPrecision::{Bf16, Bf16Amx, F32};
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};

    fn affine(weight: &Tensor, bias: &Tensor) -> Affine {
        Affine {
            weight: weight.clone(),
            bias: bias.clone(),
        }
    }

    /// Input, and both layers' parameters.
    fn samples(rows: usize, [inputs, neurons, outputs]: [usize; 3]) -> [Tensor; 5] {
        [
            sample(&[rows, inputs], 1),
            sample(&[neurons, inputs], 2),
            sample(&[neurons], 3),
            sample(&[outputs, neurons], 4),
            sample(&[outputs], 5),
        ]
    }

    fn fused(t: &[&Tensor], precision: ProductPrecision) -> Result<Tensor> {
        feed_forward(t[0], &affine(t[1], t[2]), &affine(t[3], t[4]), precision)
    }

    fn composed(t: &[&Tensor]) -> Result<Tensor> {
        let neurons = gelu(&affine(t[1], t[2]).apply(t[0], F32)?)?;
        affine(t[3], t[4]).apply(&neurons, F32)
    }

    #[test]
    fn gradients() -> Result<()> {
        for (i, inputs) in SIZES.into_iter().enumerate() {
            let widths = [inputs, SIZES[(i + 2) % 7], SIZES[(i + 3) % 7]];
            // Sums of so many terms move by less than they are rounded by.
            let differences = if widths.contains(&513) {
                Differences::Skip
            } else {
                Differences::Central
            };
            let samples = samples(3, widths);
            let samples = samples.each_ref();
            check(&samples, |t| fused(t, F32), composed, differences, 5e-6)?;
            for precision in [Bf16, Bf16Amx] {
                check(&samples, |t| fused(t, precision), composed, Differences::Skip, 3e-2)?;
            }
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let samples = samples(130, [65, 129, 63]);
        for precision in ProductPrecision::ALL {
            same_bits_everywhere(&samples.each_ref(), |t| fused(t, precision))?;
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let [x, w1, b1, w2, b2] = samples(0, [3, 4, 2]);
        assert_eq!(fused(&[&x, &w1, &b1, &w2, &b2], F32)?.dims(), [0, 2]);
        let wide = sample(&[5, 4], 1);
        assert!(fused(&[&wide, &w1, &b1, &w2, &b2], F32).is_err());
        assert!(fused(&[&x, &w1, &b2, &w2, &b2], F32).is_err());
        assert!(fused(&[&x, &w1, &b1, &w1, &b1], F32).is_err());
        Ok(())
    }
}
