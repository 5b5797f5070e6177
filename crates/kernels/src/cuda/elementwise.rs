//! Dropout and gelu.

use super::{Dropping, buffer, launch, not_on_cpu, output, threads, view};
use crate::dropout::Dropout;
use candle_core::{CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// As [`crate::dropout`], with the same mask.
pub(crate) fn dropout(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Masking(dropout.into()))
}

struct Masking(Dropping);

impl CustomOp1 for Masking {
    fn name(&self) -> &'static str {
        "dropout"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, layout.shape().elem_count());
        let mut y = buffer(device, count)?;
        if count > 0 {
            let (x, count) = (view(x, layout)?, count as u64);
            // SAFETY: both buffers have `count` elements.
            unsafe { launch!(device, "dropout", threads(count)?, &x, &mut y, &count, &self.0) };
        }
        Ok(output(y, device, layout.shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.contiguous()?.apply_op1_no_bwd(self).map(Some)
    }
}

/// As [`crate::gelu`].
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu)
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, layout.shape().elem_count());
        let mut y = buffer(device, count)?;
        if count > 0 {
            let (x, count) = (view(x, layout)?, count as u64);
            // SAFETY: both buffers have `count` elements.
            unsafe { launch!(device, "gelu", threads(count)?, &x, &mut y, &count) };
        }
        Ok(output(y, device, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gelu_gradient(x, &gradient.contiguous()?).map(Some)
    }
}

/// The gradient of the argument `x`, from that of the output; both contiguous.
pub(super) fn gelu_gradient(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    x.apply_op2_no_bwd(gradient, &GeluGradient)
}

/// Of the argument and the output's gradient.
struct GeluGradient;

impl CustomOp2 for GeluGradient {
    fn name(&self) -> &'static str {
        "gelu_gradient"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, x_layout.shape().elem_count());
        let mut out = buffer(device, count)?;
        if count > 0 {
            let (x, g, count) = (view(x, x_layout)?, view(g, g_layout)?, count as u64);
            // SAFETY: a gradient has the shape of what it is of: all three buffers have `count` elements.
            unsafe { launch!(device, "gelu_gradient", threads(count)?, &x, &g, &mut out, &count) };
        }
        Ok(output(out, device, x_layout.shape()))
    }
}
