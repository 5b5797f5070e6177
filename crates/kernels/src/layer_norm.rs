//! Layer normalization over the last dimension.
//!
//! The backward pass recomputes each row's mean and deviation, which costs less than to keep and fetch them. Gradients of
//! gain and bias are summed per block of rows, then over the blocks in their order.

use crate::gradients::hand_over;
use crate::isa::multiversion;
use crate::lanes;
use crate::storage::{build_chunks, cpu_slice, is_fused, on_cuda, rows_per_task, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Rows whose gain and bias gradients are summed in one go.
const ROWS: usize = 32;

/// (x − mean) / √(variance + eps) · weight + bias over the last dimension (Ba et al. 2016), with the biased variance.
///
/// `x: [..., n]`, `weight` and `bias: [n]`, to `[..., n]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if weight.dims() != [width] || bias.dims() != [width] {
        bail!(
            "layer_norm of {:?} with weight {:?} and bias {:?}",
            x.dims(),
            weight.dims(),
            bias.dims()
        )
    }
    on_cuda!(x, layer_norm(x, weight, bias, eps));
    if !is_fused(x) || width == 0 {
        return reference(x, weight, bias, eps);
    }
    x.contiguous()?.apply_op3(
        &weight.contiguous()?,
        &bias.contiguous()?,
        LayerNorm { width, eps: eps as f32 },
    )
}

fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred
        .broadcast_div(&deviation)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

struct LayerNorm {
    width: usize,
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = cpu_slice(weight, weight_layout)?;
        let bias = cpu_slice(bias, bias_layout)?;
        let chunk = rows_per_task(self.width) * self.width;
        let values = transform(cpu_slice(x, x_layout)?, chunk, |_, rows| {
            normalize_rows(rows, weight, bias, self.eps)
        });
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (w_storage, w_layout) = weight.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let x_values = slice(&x_storage, x_layout)?;
        let (values, parameters) = backward(
            slice(&g_storage, g_layout)?,
            |range| Cow::Borrowed(&x_values[range]),
            slice(&w_storage, w_layout)?,
            self.eps,
        );
        let (weight_gradient, bias_gradient) = parameters.split_at(self.width);
        Ok((
            Some(tensor(values, x.shape())?),
            hand_over(weight, tensor(weight_gradient.to_vec(), self.width)?)?,
            hand_over(bias, tensor(bias_gradient.to_vec(), self.width)?)?,
        ))
    }
}

/// The gradient of the op's input, of which `input` gives any range of whole rows, and those of weight and bias one after
/// the other.
pub(crate) fn backward<'a>(
    gradient: &[f32],
    input: impl Fn(Range<usize>) -> Cow<'a, [f32]> + Sync,
    weight: &[f32],
    eps: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let block = ROWS * width;
    let mut partial = vec![0.0; gradient.len().div_ceil(block) * 2 * width];
    let partials: Vec<_> = partial.chunks_exact_mut(2 * width).map(std::sync::Mutex::new).collect();
    let values = build_chunks(gradient.len(), block, |offset, piece| {
        let range = offset..offset + piece.len();
        let piece = piece.write_copy_of_slice(&gradient[range.clone()]);
        let mut sums = partials[offset / block].lock().expect("one task has this block");
        let (weight_sums, bias_sums) = sums.split_at_mut(width);
        backward_rows(piece, &input(range), weight, weight_sums, bias_sums, eps);
        piece
    });
    drop(partials);
    (values, sum_rows(&partial, 2 * width))
}

/// The sum of consecutive rows of `width`, in a fixed order, over columns in parallel.
pub(crate) fn sum_rows(rows: &[f32], width: usize) -> Vec<f32> {
    const COLUMNS: usize = 512;
    let mut sums = vec![0.0; width];
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
        let first = i * COLUMNS;
        for row in rows.chunks_exact(width) {
            add_to(sums, &row[first..first + sums.len()]);
        }
    });
    sums
}

multiversion! {
    /// sums += row.
    pub(crate) fn add_to(sums: &mut [f32], row: &[f32]) {
        for (s, &v) in sums.iter_mut().zip(row) {
            *s += v;
        }
    }

    /// Each row of `weight`'s length by itself.
    pub(crate) fn normalize_rows(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        for row in rows.chunks_exact_mut(weight.len()) {
            let (mean, inverse) = moments(row, eps);
            for ((v, &w), &b) in row.iter_mut().zip(weight).zip(bias) {
                *v = (*v - mean) * inverse * w + b;
            }
        }
    }

    /// Turns the gradients of rows into those of `x`, and adds up those of weight and bias.
    fn backward_rows(
        gradient: &mut [f32],
        x: &[f32],
        weight: &[f32],
        weight_sums: &mut [f32],
        bias_sums: &mut [f32],
        eps: f32,
    ) {
        let width = weight.len();
        for (g, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, inverse) = moments(x, eps);
            for i in 0..width {
                let normal = (x[i] - mean) * inverse;
                weight_sums[i] += g[i] * normal;
                bias_sums[i] += g[i];
                g[i] *= weight[i];
            }
            let mean_gradient = lanes::sum(g, |g| g) / width as f32;
            let mean_product = lanes::sum2(g, x, |g, x| g * ((x - mean) * inverse)) / width as f32;
            for (g, &x) in g.iter_mut().zip(x) {
                *g = inverse * (*g - mean_gradient - (x - mean) * inverse * mean_product);
            }
        }
    }
}

/// The mean of a row, and one over its deviation.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = lanes::sum(row, |v| v) / n;
    let variance = lanes::sum(row, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};

    #[test]
    fn gradients() -> Result<()> {
        for (n, rows) in SIZES.into_iter().zip([5, 33, 1, 2, 40, 3, 9]) {
            let (x, weight, bias) = (sample(&[rows, n], 6), sample(&[n], 7), sample(&[n], 8));
            check(
                &[&x, &weight, &bias],
                |t| layer_norm(t[0], t[1], t[2], 0.1),
                |t| reference(t[0], t[1], t[2], 0.1),
                Differences::Central,
                5e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let (x, weight, bias) = (sample(&[200, 129], 6), sample(&[129], 7), sample(&[129], 8));
        same_bits_everywhere(&[&x, &weight, &bias], |t| layer_norm(t[0], t[1], t[2], 1e-5))
    }

    #[test]
    fn empty_batch_and_wrong_width() -> Result<()> {
        let (weight, bias) = (sample(&[5], 7), sample(&[5], 8));
        assert_eq!(layer_norm(&sample(&[0, 5], 1), &weight, &bias, 1e-5)?.dims(), [0, 5]);
        assert!(layer_norm(&sample(&[2, 4], 1), &weight, &bias, 1e-5).is_err());
        Ok(())
    }
}
