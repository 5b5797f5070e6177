//! Softmax over the last dimension, and the row kernels that attention shares.

use crate::elementary;
use crate::isa::multiversion;
use crate::lanes;
use crate::storage::{cpu_slice, is_fused, rows_per_task, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// exp(x) / Σ exp(x) over the last dimension, the row's maximum taken away first. `[..., n]` to `[..., n]`.
///
/// A row with +∞ or NaN, or of −∞ alone, becomes NaN.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) && x.rank() > 0 {
        x.contiguous()?.apply_op1(Softmax)
    } else {
        reference(x)
    }
}

/// [`softmax_last_dim`] of plain candle ops.
pub(crate) fn reference(x: &Tensor) -> Result<Tensor> {
    let exponentials = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax_last_dim"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = *layout
            .dims()
            .last()
            .expect("softmax is given a tensor of rank 1 or more");
        let chunk = rows_per_task(width) * width.max(1);
        let values = transform(cpu_slice(storage, layout)?, chunk, |_, rows| softmax_rows(rows, width));
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let width = result.dim(D::Minus1)?;
        let gradient = gradient.contiguous()?;
        let (y, y_layout) = result.storage_and_layout();
        let (g, g_layout) = gradient.storage_and_layout();
        let y = slice(&y, y_layout)?;
        let chunk = rows_per_task(width) * width.max(1);
        let values = transform(slice(&g, g_layout)?, chunk, |offset, rows| {
            softmax_backward_rows(rows, &y[offset..offset + rows.len()], width, 1.0);
        });
        tensor(values, result.shape()).map(Some)
    }
}

multiversion! {
    /// Softmax of each row of `width`; a row of −∞ alone becomes NaN.
    pub(crate) fn softmax_rows(rows: &mut [f32], width: usize) {
        for row in rows.chunks_exact_mut(width) {
            let largest = lanes::max(row);
            for v in row.iter_mut() {
                *v = elementary::exp(*v - largest);
            }
            let scale = 1.0 / lanes::sum(row, |v| v);
            for v in row {
                *v *= scale;
            }
        }
    }

    /// Softmax of each row of scores, those with a `bias` of −∞ left out; a row without any score becomes zeros.
    pub(crate) fn masked_softmax_rows(rows: &mut [f32], width: usize, bias: &[f32]) {
        for row in rows.chunks_exact_mut(width) {
            for (v, &b) in row.iter_mut().zip(bias) {
                *v += b;
            }
            let largest = lanes::max(row);
            if largest == f32::NEG_INFINITY {
                row.fill(0.0);
                continue;
            }
            for v in row.iter_mut() {
                *v = elementary::exp(*v - largest);
            }
            let scale = 1.0 / lanes::sum(row, |v| v);
            for v in row {
                *v *= scale;
            }
        }
    }

    /// Turns the gradient of each row's softmax `y` into `factor` times that of its argument: y (g − Σ g y).
    pub(crate) fn softmax_backward_rows(gradient: &mut [f32], y: &[f32], width: usize, factor: f32) {
        for (g, y) in gradient.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            let mean = lanes::sum2(g, y, |g, y| g * y);
            for (g, &y) in g.iter_mut().zip(y) {
                *g = y * (*g - mean) * factor;
            }
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
            let x = sample(&[2, 3, n], 4);
            check(
                &[&x],
                |t| softmax_last_dim(t[0]),
                |t| reference(t[0]),
                Differences::Central,
                2e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn rows_sum_to_one_at_large_arguments() -> Result<()> {
        let x = Tensor::new(&[[1000f32, 999.0, -1000.0], [-1e30, -1e30, -1e30]], &Device::Cpu)?;
        let sums: Vec<f32> = softmax_last_dim(&x)?.sum(1)?.to_vec1()?;
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-6), "{sums:?}");
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        same_bits_everywhere(&[&sample(&[400, 65], 5)], |t| softmax_last_dim(t[0]))
    }

    #[test]
    fn empty_batch() -> Result<()> {
        assert_eq!(softmax_last_dim(&sample(&[0, 5], 1))?.dims(), [0, 5]);
        Ok(())
    }
}
