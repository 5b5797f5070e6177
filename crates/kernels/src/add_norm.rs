//! A residual connection with the layer normalization behind it as one op (Vaswani et al. 2017, section 5.4: dropout is
//! applied to a sub-layer's output before it is added and normalized).
//!
//! On the CPU it keeps nothing but its inputs: the sums are added up again in the backward pass, the mask of the dropout is drawn
//! again.

use crate::affine::{hand_over_all, holds};
use crate::dropout::{self, Dropout};
use crate::layer_norm::{self, layer_norm, normalize_rows};
use crate::storage::{TASK, build_chunks, cpu_slice, on_cuda, rows_per_task, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use std::borrow::Cow;
use std::ops::Range;

/// [`layer_norm`] of x + dropout(`branch`), with `weight` and `bias: [n]`; `x` and `branch: [..., n]`, to `[..., n]`.
///
/// The gradients of weight and bias come through [`crate::gradients`].
///
/// # Errors
/// If the shapes do not fit, the dropout rate is not in [0, 1), or it drops from more than 2³⁴ elements.
pub fn add_norm(
    x: &Tensor,
    branch: &Tensor,
    dropout: Option<Dropout>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    if x.dims() != branch.dims() {
        bail!("add_norm of {:?} and {:?}", x.dims(), branch.dims())
    }
    if let Some(dropout) = dropout {
        dropout.check(branch.dims())?;
    }
    let width = x.dim(D::Minus1)?;
    if !holds(x, [weight, bias]) || !holds(branch, []) || weight.dims() != [width] || bias.dims() != [width] {
        let branch = match dropout {
            Some(dropout) => dropout::dropout(branch, dropout)?,
            None => branch.clone(),
        };
        return layer_norm(&(branch + x)?, weight, bias, eps);
    }
    on_cuda!(x, add_norm(x, branch, dropout, weight, bias, eps));
    let op = AddNorm {
        width,
        eps: eps as f32,
        dropout,
        weight: weight.clone(),
        bias: bias.clone(),
    };
    x.contiguous()?.apply_op2(&branch.contiguous()?, op)
}

struct AddNorm {
    width: usize,
    eps: f32,
    dropout: Option<Dropout>,
    weight: Tensor,
    bias: Tensor,
}

impl AddNorm {
    /// Turns `branch`, which begins at element `offset`, into what is normalized.
    fn sum(&self, offset: usize, branch: &mut [f32], x: &[f32]) {
        if let Some(dropout) = self.dropout {
            dropout.apply(offset, branch);
        }
        layer_norm::add_to(branch, x);
    }
}

impl CustomOp2 for AddNorm {
    fn name(&self) -> &'static str {
        "add_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        branch: &CpuStorage,
        branch_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, branch) = (cpu_slice(x, x_layout)?, cpu_slice(branch, branch_layout)?);
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        let (weight, bias) = (slice(&weight, weight_layout)?, slice(&bias, bias_layout)?);
        let values = build_chunks(x.len(), rows_per_task(self.width) * self.width, |offset, piece| {
            let range = offset..offset + piece.len();
            let rows = piece.write_copy_of_slice(&branch[range.clone()]);
            self.sum(offset, rows, &x[range]);
            normalize_rows(rows, weight, bias, self.eps);
            rows
        });
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        branch: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (b_storage, b_layout) = branch.storage_and_layout();
        let (w_storage, w_layout) = self.weight.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (x_values, branch_values) = (slice(&x_storage, x_layout)?, slice(&b_storage, b_layout)?);
        let sums = |range: Range<usize>| {
            let mut sums = branch_values[range.clone()].to_vec();
            self.sum(range.start, &mut sums, &x_values[range]);
            Cow::Owned(sums)
        };
        let (values, parameters) = layer_norm::backward(
            slice(&g_storage, g_layout)?,
            sums,
            slice(&w_storage, w_layout)?,
            self.eps,
        );
        let (weight, bias) = parameters.split_at(self.width);
        for (parameter, gradient) in [(&self.weight, weight), (&self.bias, bias)] {
            if parameter.track_op() {
                hand_over_all(parameter, tensor(gradient.to_vec(), self.width)?)?;
            }
        }
        let branch_gradient = match self.dropout {
            Some(dropout) => {
                let dropped = transform(&values, TASK, |offset, piece| dropout.apply(offset, piece));
                Some(tensor(dropped, x.shape())?)
            }
            None => None,
        };
        let input = tensor(values, x.shape())?;
        Ok((Some(input.clone()), Some(branch_gradient.unwrap_or(input))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DROPOUT, Differences, SIZES, check, same_bits_everywhere, sample};

    fn samples(rows: usize, width: usize) -> [Tensor; 4] {
        [
            sample(&[rows, width], 1),
            sample(&[rows, width], 2),
            sample(&[width], 3),
            sample(&[width], 4),
        ]
    }

    fn composed(t: &[&Tensor], dropout: Option<Dropout>) -> Result<Tensor> {
        let branch = match dropout {
            Some(dropout) => dropout::dropout(t[1], dropout)?,
            None => t[1].clone(),
        };
        layer_norm(&(t[0] + branch)?, t[2], t[3], 0.1)
    }

    #[test]
    fn gradients() -> Result<()> {
        for (width, rows) in SIZES.into_iter().zip([5, 33, 1, 2, 40, 3, 9]) {
            for dropout in [None, Some(DROPOUT)] {
                check(
                    &samples(rows, width).each_ref(),
                    |t| add_norm(t[0], t[1], dropout, t[2], t[3], 0.1),
                    |t| composed(t, dropout),
                    Differences::Central,
                    1e-5,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        same_bits_everywhere(&samples(200, 129).each_ref(), |t| {
            add_norm(t[0], t[1], Some(DROPOUT), t[2], t[3], 1e-5)
        })
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let [x, branch, weight, bias] = samples(0, 5);
        assert_eq!(add_norm(&x, &branch, None, &weight, &bias, 1e-5)?.dims(), [0, 5]);
        let [x, branch, ..] = samples(2, 4);
        assert!(add_norm(&x, &branch, None, &weight, &bias, 1e-5).is_err());
        assert!(add_norm(&x, &sample(&[4, 2], 1), None, &weight, &bias, 1e-5).is_err());
        Ok(())
    }
}
