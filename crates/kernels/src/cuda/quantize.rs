//! Quantization to integers, simulated, with the integers of the CPU's kernels; and the ranges that scales are taken from.

use super::{address, blocks, buffer, device_of, launch, not_on_cpu, output, storage_of, threads, view};
use crate::fake_quantize::ActivationQuantizer;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// Elements that a block of [`min_max`] looks at, where there are not too many for that.
const PART: usize = 8192;

/// Most blocks of [`min_max`].
const MOST_PARTS: usize = 1024;

/// `x` as it comes back from u8.
pub(crate) fn fake_quantize_per_tensor(x: &Tensor, quantizer: ActivationQuantizer) -> Result<Tensor> {
    let zero = f32::from(quantizer.zero_point);
    x.contiguous()?.apply_op1(FakeQuantize {
        scales: None,
        levels: None,
        width: 1,
        scale: quantizer.scale,
        zero,
        bounds: [0.0, 255.0],
    })
}

/// `w: [out, ...]` as it comes back from integers up to ± `limit`, or, given `levels`, from what stands there for each integer
/// from −127 on.
pub(crate) fn fake_quantize_per_channel(
    w: &Tensor,
    scales: &Tensor,
    limit: f32,
    levels: Option<&[f32]>,
) -> Result<Tensor> {
    let levels = levels.map(|levels| Tensor::new(levels, w.device())).transpose()?;
    w.contiguous()?.apply_op1(FakeQuantize {
        scales: Some(scales.contiguous()?),
        levels,
        width: w.elem_count().checked_div(w.dim(0)?).unwrap_or(0).max(1) as u64,
        scale: 1.0,
        zero: 0.0,
        bounds: [-limit, limit],
    })
}

struct FakeQuantize {
    /// Of each `width` elements; `scale` is not read then.
    scales: Option<Tensor>,
    levels: Option<Tensor>,
    width: u64,
    scale: f32,
    zero: f32,
    bounds: [f32; 2],
}

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake_quantize"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, count) = (&x.device, layout.shape().elem_count());
        let mut y = buffer(device, count)?;
        if count > 0 {
            let (x, count) = (view(x, layout)?, count as u64);
            let (scales, levels) = (address(self.scales.as_ref())?, address(self.levels.as_ref())?);
            let Self {
                width,
                scale,
                zero,
                bounds: [low, high],
                ..
            } = self;
            // SAFETY: both buffers have `count` elements, of which each `width` have a scale of their own if there are `scales`;
            // levels, if any, are for all integers within the bounds, which are ± 127 then.
            unsafe {
                launch!(
                    device,
                    "fake_quantize",
                    threads(count)?,
                    &x,
                    &scales,
                    &levels,
                    &mut y,
                    &count,
                    width,
                    scale,
                    zero,
                    low,
                    high
                );
            }
        }
        Ok(output(y, device, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        x.apply_op2_no_bwd(&gradient, &FakeQuantizeGradient(self)).map(Some)
    }
}

/// Of the argument and the output's gradient.
struct FakeQuantizeGradient<'a>(&'a FakeQuantize);

impl CustomOp2 for FakeQuantizeGradient<'_> {
    fn name(&self) -> &'static str {
        "fake_quantize_gradient"
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
            let FakeQuantize {
                scales,
                width,
                scale,
                zero,
                bounds: [low, high],
                ..
            } = self.0;
            let scales = address(scales.as_ref())?;
            // SAFETY: as in the forward pass; a gradient has the shape of what it is of.
            unsafe {
                launch!(
                    device,
                    "fake_quantize_gradient",
                    threads(count)?,
                    &x,
                    &scales,
                    &g,
                    &mut out,
                    &count,
                    width,
                    scale,
                    zero,
                    low,
                    high
                );
            }
        }
        Ok(output(out, device, x_layout.shape()))
    }
}

/// The largest magnitude of each row of `w: [out, ...]`, which has elements, over `limit`; 1 for a row of zeros.
pub(crate) fn symmetric_scales(w: &Tensor, limit: f32) -> Result<Tensor> {
    w.detach().contiguous()?.apply_op1_no_bwd(&RowScales { limit })
}

struct RowScales {
    limit: f32,
}

impl CustomOp1 for RowScales {
    fn name(&self) -> &'static str {
        "row_scales"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, w: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, channels) = (&w.device, layout.shape().dim(0)?);
        let width = layout.shape().elem_count().checked_div(channels).unwrap_or(0) as u64;
        let mut out = buffer(device, channels)?;
        if channels > 0 {
            let config = LaunchConfig {
                grid_dim: (blocks(channels as u64)?, 1, 1),
                ..threads(1)?
            };
            let w = view(w, layout)?;
            // SAFETY: `w` has a row of `width` elements for each block, and `out` an element.
            unsafe { launch!(device, "row_scales", config, &w, &mut out, &width, &self.limit) };
        }
        Ok(output(out, device, channels))
    }
}

/// The least and the largest element of `x`, which has some; both NaN if it has one.
pub(crate) fn min_max(x: &Tensor) -> Result<(f32, f32)> {
    let x = x.detach().contiguous()?;
    let device = device_of(&x)?;
    let (storage, layout) = x.storage_and_layout();
    let parts = layout.shape().elem_count().div_ceil(PART).clamp(1, MOST_PARTS);
    let mut found = buffer(device, 2 * parts)?;
    let config = LaunchConfig {
        grid_dim: (blocks(parts as u64)?, 1, 1),
        ..threads(1)?
    };
    let (values, count) = (view(storage_of(&storage)?, layout)?, layout.shape().elem_count() as u64);
    // SAFETY: `values` has `count` elements, and `found` two for each block.
    unsafe { launch!(device, "ranges", config, &values, &mut found, &count) };
    let found = device.clone_dtoh(&found)?;
    let (pairs, _) = found.as_chunks::<2>();
    if pairs.iter().any(|[low, _]| low.is_nan()) {
        return Ok((f32::NAN, f32::NAN));
    }
    let widened = |(low, high): (f32, f32), pair: &[f32; 2]| (low.min(pair[0]), high.max(pair[1]));
    Ok(pairs.iter().fold((f32::INFINITY, f32::NEG_INFINITY), widened))
}
