//! Layer normalization: one kernel forward, and backward one for the rows and sums over columns.

use super::linear::column_sums;
use super::{buffer, launch, not_on_cpu, output, rows, view, width_of};
use crate::gradients::hand_over;
use candle_core::{CudaStorage, CustomOp3, D, Layout, Result, Shape, Tensor};

/// As [`crate::layer_norm`].
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op3(
        &weight.contiguous()?,
        &bias.contiguous()?,
        LayerNorm { eps: eps as f32 },
    )
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    not_on_cpu!(3);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        w_layout: &Layout,
        bias: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, x_layout.shape().elem_count());
        let mut y = buffer(device, count)?;
        if count > 0 {
            let width = width_of(w_layout.shape().elem_count())?;
            let config = rows(count as u64 / u64::from(width), width)?;
            let (x, weight, bias) = (view(x, x_layout)?, view(weight, w_layout)?, view(bias, b_layout)?);
            // SAFETY: a block has a row of `width` elements of `x` and `y`, and weight and bias have as many.
            unsafe {
                launch!(
                    device,
                    "layer_norm",
                    config,
                    &x,
                    &weight,
                    &bias,
                    &mut y,
                    &width,
                    &self.eps
                )
            };
        }
        Ok(output(y, device, x_layout.shape()))
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
        let (of_x, by_weight) = layer_norm_gradients(x, weight, &gradient, self.eps.into())?;
        let of_weight = if weight.track_op() {
            hand_over(weight, column_sums(&by_weight)?)?
        } else {
            None
        };
        let of_bias = if bias.track_op() {
            hand_over(bias, column_sums(&gradient)?)?
        } else {
            None
        };
        Ok((Some(of_x), of_weight, of_bias))
    }
}

/// The gradient of `x`, and `[rows, n]` of which that of the weight is the sum; `gradient` is that of the norm. All are
/// contiguous, and nothing differentiates what comes out.
pub(super) fn layer_norm_gradients(
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let both = x.apply_op3_no_bwd(weight, gradient, &LayerNormGradient { eps: eps as f32 })?;
    Ok((both.get(0)?.reshape(x.shape())?, both.get(1)?))
}

/// Of input, weight and the output's gradient: `[2, rows, n]`, the gradient of the input, and what the gradient of the
/// weight is the column sums of.
struct LayerNormGradient {
    eps: f32,
}

impl CustomOp3 for LayerNormGradient {
    fn name(&self) -> &'static str {
        "layer_norm_gradient"
    }

    not_on_cpu!(3);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        w_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, x_layout.shape().elem_count());
        let n = x_layout.shape().dim(D::Minus1)?;
        let mut out = buffer(device, 2 * count)?;
        if count > 0 {
            let width = width_of(n)?;
            let config = rows((count / n) as u64, width)?;
            let (x, weight, g) = (view(x, x_layout)?, view(weight, w_layout)?, view(g, g_layout)?);
            let (eps, count) = (self.eps, count as u64);
            // SAFETY: a block has a row of `width` elements of `x`, `g` and of both halves of `out`, which have `count`
            // elements each, and the weight has `width`.
            unsafe {
                launch!(
                    device,
                    "layer_norm_gradient",
                    config,
                    &x,
                    &weight,
                    &g,
                    &mut out,
                    &count,
                    &width,
                    &eps
                )
            };
        }
        Ok(output(out, device, (2, count.checked_div(n).unwrap_or(0), n)))
    }
}
