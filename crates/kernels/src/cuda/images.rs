//! Batch normalization and max pooling.

use super::{address, blocks, buffer, launch, not_on_cpu, output, threads, view, width_of};
use crate::batch_norm::{BatchStatistics, Rectifier};
use crate::gradients::hand_over;
use crate::patches::Geometry;
use crate::storage::Planes;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// Threads that a channel's sums are made by.
const CHANNEL: u32 = 1024;

/// Sizes of images as kernels take them.
#[derive(Clone, Copy)]
struct Sizes {
    batch: u32,
    channels: u32,
    plane: u32,
}

impl Sizes {
    fn of(shape: &Shape) -> Result<Self> {
        let Planes { batch, channels, plane } = Planes::of(shape)?;
        if u32::try_from(batch * plane).is_err() {
            bail!("a CUDA kernel over channels of {batch} × {plane} elements")
        }
        Ok(Self {
            batch: width_of(batch)?,
            channels: width_of(channels)?,
            plane: width_of(plane)?,
        })
    }

    /// A block for each channel.
    fn by_channel(self) -> Result<LaunchConfig> {
        Ok(LaunchConfig {
            grid_dim: (blocks(self.channels.into())?, 1, 1),
            block_dim: (CHANNEL, 1, 1),
            shared_mem_bytes: 0,
        })
    }
}

/// As [`crate::batch_norm`], of images that have elements.
pub(crate) fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    rectifier: Rectifier,
) -> Result<(Tensor, BatchStatistics)> {
    let x = x.contiguous()?;
    let Planes { batch, plane, .. } = Planes::of(x.shape())?;
    let moments = x.detach().apply_op1_no_bwd(&Moments)?;
    let statistics = BatchStatistics {
        mean: moments.get(0)?,
        variance: moments.get(1)?,
        count: batch * plane,
    };
    let norm = BatchNorm {
        moments,
        eps: eps as f32,
        rectified: u32::from(rectifier == Rectifier::Behind),
    };
    let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, norm)?;
    Ok((y, statistics))
}

/// Of images: mean and biased variance of each channel, `[2, channels]`.
struct Moments;

impl CustomOp1 for Moments {
    fn name(&self) -> &'static str {
        "moments"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, sizes) = (&x.device, Sizes::of(layout.shape())?);
        let Sizes { batch, channels, plane } = &sizes;
        let mut out = buffer(device, 2 * *channels as usize)?;
        let x = view(x, layout)?;
        // SAFETY: `x` is of these sizes, and `out` has two elements for each channel, which is a block.
        unsafe {
            launch!(
                device,
                "moments",
                sizes.by_channel()?,
                &x,
                &mut out,
                batch,
                channels,
                plane
            )
        };
        Ok(output(out, device, (2, *channels as usize)))
    }
}

struct BatchNorm {
    moments: Tensor,
    eps: f32,
    rectified: u32,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
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
        let (device, shape) = (&x.device, x_layout.shape());
        let Sizes { channels, plane, .. } = &Sizes::of(shape)?;
        let mut y = buffer(device, shape.elem_count())?;
        let (x, weight, bias) = (view(x, x_layout)?, view(weight, w_layout)?, view(bias, b_layout)?);
        let (moments, count) = (address(Some(&self.moments))?, shape.elem_count() as u64);
        // SAFETY: `x` and `y` have `count` elements of these sizes; weight, bias and both moments have one for each channel.
        unsafe {
            launch!(
                device,
                "batch_norm",
                threads(count)?,
                &x,
                &moments,
                &weight,
                &bias,
                &mut y,
                &count,
                channels,
                plane,
                &self.eps,
                &self.rectified
            );
        }
        Ok(output(y, device, shape))
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
        let at = Backward {
            norm: self,
            weight: &weight.detach(),
            bias: &bias.detach(),
        };
        let sums = x.apply_op2_no_bwd(&gradient, &Sums(&at))?;
        let of_x = x.apply_op2_no_bwd(&gradient, &InputGradient(&at, &sums))?;
        let of_bias = if bias.track_op() {
            hand_over(bias, sums.get(0)?)?
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            hand_over(weight, sums.get(1)?)?
        } else {
            None
        };
        Ok((Some(of_x), of_weight, of_bias))
    }
}

/// What both kernels of the backward pass read beside input and gradient.
struct Backward<'a> {
    norm: &'a BatchNorm,
    weight: &'a Tensor,
    bias: &'a Tensor,
}

impl Backward<'_> {
    /// Where moments, weight and bias are.
    fn addresses(&self) -> Result<[u64; 3]> {
        let Self { norm, weight, bias } = self;
        Ok([
            address(Some(&norm.moments))?,
            address(Some(weight))?,
            address(Some(bias))?,
        ])
    }
}

/// Of input and gradient: the gradients of bias and weight, `[2, channels]`.
struct Sums<'a>(&'a Backward<'a>);

impl CustomOp2 for Sums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_sums"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, sizes) = (&x.device, Sizes::of(x_layout.shape())?);
        let Sizes { batch, channels, plane } = &sizes;
        let BatchNorm { eps, rectified, .. } = self.0.norm;
        let mut out = buffer(device, 2 * *channels as usize)?;
        let (x, g, [moments, weight, bias]) = (view(x, x_layout)?, view(g, g_layout)?, self.0.addresses()?);
        // SAFETY: `x` and `g` are of these sizes; weight, bias, both moments and both sums have an element for each channel.
        unsafe {
            launch!(
                device,
                "batch_norm_sums",
                sizes.by_channel()?,
                &x,
                &moments,
                &weight,
                &bias,
                &g,
                &mut out,
                batch,
                channels,
                plane,
                eps,
                rectified
            );
        }
        Ok(output(out, device, (2, *channels as usize)))
    }
}

/// Of input and gradient, given the sums: the gradient of the input.
struct InputGradient<'a>(&'a Backward<'a>, &'a Tensor);

impl CustomOp2 for InputGradient<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_gradient"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (&x.device, x_layout.shape());
        let Sizes { batch, channels, plane } = &Sizes::of(shape)?;
        let BatchNorm { eps, rectified, .. } = self.0.norm;
        let mut out = buffer(device, shape.elem_count())?;
        let (x, g, [moments, weight, bias]) = (view(x, x_layout)?, view(g, g_layout)?, self.0.addresses()?);
        let (sums, count, of_each) = (
            address(Some(self.1))?,
            shape.elem_count() as u64,
            (batch * plane) as f32,
        );
        // SAFETY: as for the sums, and `out` is of these sizes, too.
        unsafe {
            launch!(
                device,
                "batch_norm_gradient",
                threads(count)?,
                &x,
                &moments,
                &weight,
                &bias,
                &sums,
                &g,
                &mut out,
                &count,
                channels,
                plane,
                &of_each,
                eps,
                rectified
            );
        }
        Ok(output(out, device, shape))
    }
}

/// A pooling as kernels take it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pooling {
    height: u32,
    width: u32,
    rows: u32,
    columns: u32,
    kernel: u32,
    stride: u32,
}

// SAFETY: numbers of 32 bits each without padding, in the order of `Pooling` in `kernels.cu`.
unsafe impl DeviceRepr for Pooling {}

/// As [`crate::max_pool2d`], of a geometry without padding.
pub(crate) fn max_pool2d(x: &Tensor, geometry: Geometry) -> Result<Tensor> {
    let Geometry {
        input: [height, width],
        kernel,
        stride,
        output: [rows, columns],
        ..
    } = geometry;
    if u32::try_from(height * width).is_err() {
        bail!("a CUDA kernel over planes of {height} × {width}")
    }
    x.contiguous()?.apply_op1(Pooling {
        height: width_of(height)?,
        width: width_of(width)?,
        rows: width_of(rows)?,
        columns: width_of(columns)?,
        kernel: width_of(kernel)?,
        stride: width_of(stride)?,
    })
}

impl CustomOp1 for Pooling {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (batch, channels, ..) = layout.shape().dims4()?;
        let shape = Shape::from((batch, channels, self.rows as usize, self.columns as usize));
        let (device, count) = (&x.device, shape.elem_count() as u64);
        let mut y = buffer(device, shape.elem_count())?;
        if count > 0 {
            let x = view(x, layout)?;
            // SAFETY: `x` has planes of the pooling's height and width, and `y`, of `count` elements, as many of its rows and
            // columns, at which windows are within the plane.
            unsafe { launch!(device, "max_pool", threads(count)?, &x, &mut y, &count, self) };
        }
        Ok(output(y, device, shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        x.apply_op2_no_bwd(&gradient, &PoolingGradient(*self)).map(Some)
    }
}

/// Of input and the output's gradient.
struct PoolingGradient(Pooling);

impl CustomOp2 for PoolingGradient {
    fn name(&self) -> &'static str {
        "max_pool2d_gradient"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (&x.device, x_layout.shape());
        let mut out = buffer(device, shape.elem_count())?;
        if shape.elem_count() > 0 {
            let (x, g, count) = (view(x, x_layout)?, view(g, g_layout)?, shape.elem_count() as u64);
            // SAFETY: as in the forward pass; `out` is like `x`, and `g` like its output.
            unsafe {
                launch!(
                    device,
                    "max_pool_gradient",
                    threads(count)?,
                    &x,
                    &g,
                    &mut out,
                    &count,
                    &self.0
                )
            };
        }
        Ok(output(out, device, shape))
    }
}
