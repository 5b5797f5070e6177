//! Batch normalization of images, and its gradient.
//!
//! A channel is one task: its moments, and then its elements, which by then are in the second-level cache. Sums run plane by
//! plane, the planes' in f64 and in the order of the batch. The backward pass takes the moments that the forward pass
//! found. What becomes of the running statistics is the caller's business.

use crate::gradients::hand_over;
use crate::isa::multiversion;
use crate::lanes;
use crate::storage::{Planes, build_planes, cpu_slice, is_fused, on_cuda, slice, tensor};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// What a batch's channels are like.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// `[channels]`.
    pub mean: Tensor,
    /// The biased variance (divided by `count`), `[channels]`.
    pub variance: Tensor,
    /// Elements of each channel: batch · height · width.
    pub count: usize,
}

/// (x − mean) / √(variance + eps) · weight + bias with the mean and the biased variance of each channel over the batch
/// (Ioffe & Szegedy 2015, algorithm 1). Gradients flow through both.
///
/// `x: [batch, channels, height, width]`, `weight` and `bias: [channels]`. Statistics of an empty batch are zeros.
///
/// # Errors
/// If the shapes do not fit.
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, BatchStatistics)> {
    apply(x, weight, bias, eps, Rectifier::Absent)
}

/// [`batch_norm`] with a rectifier behind it, max(y, 0), in one op.
///
/// # Errors
/// If the shapes do not fit.
pub fn batch_norm_relu(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, BatchStatistics)> {
    apply(x, weight, bias, eps, Rectifier::Behind)
}

/// Whether negative results become 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rectifier {
    Absent,
    Behind,
}

/// `weight` and `bias` have one element for each channel of `x`.
pub(crate) fn check_shapes(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<()> {
    let channels = x.dims4()?.1;
    if weight.dims() != [channels] || bias.dims() != [channels] {
        bail!(
            "normalization of the channels of {:?} with {:?} and {:?}",
            x.dims(),
            weight.dims(),
            bias.dims()
        )
    }
    Ok(())
}

fn apply(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    rectifier: Rectifier,
) -> Result<(Tensor, BatchStatistics)> {
    check_shapes(x, weight, bias)?;
    if x.elem_count() > 0 {
        on_cuda!(x, batch_norm(x, weight, bias, eps, rectifier));
    }
    if !is_fused(x) {
        return reference(x, weight, bias, eps, rectifier);
    }
    let planes = Planes::of(x.shape())?;
    let found = Arc::new(OnceLock::new());
    let op = BatchNorm {
        planes,
        eps: eps as f32,
        rectifier,
        moments: Arc::clone(&found),
    };
    let y = x
        .contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    let moments = found.get().expect("the forward pass has run");
    Ok((y, statistics(moments, planes)?))
}

/// `moments` as tensors.
pub(crate) fn statistics(moments: &[Moments], planes: Planes) -> Result<BatchStatistics> {
    let column = |of: fn(&Moments) -> f32| tensor(moments.iter().map(of).collect(), moments.len());
    Ok(BatchStatistics {
        mean: column(|m| m.mean)?,
        variance: column(|m| m.variance)?,
        count: planes.batch * planes.plane,
    })
}

/// `[channels]` as it is broadcast over images.
pub(crate) fn per_channel(values: &Tensor) -> Result<Tensor> {
    values.reshape((1, values.elem_count(), 1, 1))
}

fn reference(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    rectifier: Rectifier,
) -> Result<(Tensor, BatchStatistics)> {
    let (batch, channels, height, width) = x.dims4()?;
    let count = batch * height * width;
    if count == 0 {
        let zeros = weight.zeros_like()?.detach();
        let (mean, variance) = (zeros.clone(), zeros);
        return Ok((x.clone(), BatchStatistics { mean, variance, count }));
    }
    let mean_of = |t: &Tensor| t.transpose(0, 1)?.reshape((channels, count))?.mean(D::Minus1);
    let mean = mean_of(x)?;
    let centred = x.broadcast_sub(&per_channel(&mean)?)?;
    let variance = mean_of(&centred.sqr()?)?;
    let normal = centred.broadcast_div(&per_channel(&(&variance + eps)?.sqrt()?)?)?;
    let y = normal
        .broadcast_mul(&per_channel(weight)?)?
        .broadcast_add(&per_channel(bias)?)?;
    let y = match rectifier {
        Rectifier::Absent => y,
        Rectifier::Behind => y.relu()?,
    };
    let (mean, variance) = (mean.detach(), variance.detach());
    Ok((y, BatchStatistics { mean, variance, count }))
}

/// Mean and biased variance of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    mean: f32,
    variance: f32,
}

impl Moments {
    fn of(x: &[f32], planes: Planes, channel: usize) -> Self {
        let count = (planes.batch * planes.plane).max(1) as f64;
        let over = |term: fn(&[f32], f32) -> f32, with: f32| -> f64 {
            let of_plane = |image| f64::from(term(planes.slice(x, image, channel), with));
            (0..planes.batch).map(of_plane).sum::<f64>() / count
        };
        let mean = over(|x, _| crate::reduction::sum(x), 0.0) as f32;
        let variance = over(squares_about, mean) as f32;
        Self { mean, variance }
    }

    fn affine(self, weight: f32, bias: f32, eps: f32) -> Affine {
        Affine {
            mean: self.mean,
            inverse: 1.0 / (self.variance + eps).sqrt(),
            weight,
            bias,
        }
    }
}

/// What normalization does to one channel.
#[derive(Clone, Copy)]
struct Affine {
    mean: f32,
    inverse: f32,
    weight: f32,
    bias: f32,
}

impl Affine {
    #[inline(always)]
    fn normal(self, x: f32) -> f32 {
        (x - self.mean) * self.inverse
    }

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        self.normal(x) * self.weight + self.bias
    }
}

/// Normalizes `x`; gives the result and each channel's moments.
pub(crate) fn forward(
    x: &[f32],
    planes: Planes,
    [weight, bias]: [&[f32]; 2],
    eps: f32,
    rectifier: Rectifier,
) -> (Vec<f32>, Vec<Moments>) {
    build_planes(
        planes,
        |channel| Moments::of(x, planes, channel),
        |moments, image, channel, piece| {
            let piece = piece.write_copy_of_slice(planes.slice(x, image, channel));
            let affine = moments.affine(weight[channel], bias[channel], eps);
            match rectifier {
                Rectifier::Absent => normalize(piece, affine),
                Rectifier::Behind => normalize_and_rectify(piece, affine),
            }
            piece
        },
    )
}

/// Gradients of `x`, of the weight and of the bias.
pub(crate) fn backward(
    gradient: &[f32],
    x: &[f32],
    planes: Planes,
    [weight, bias]: [&[f32]; 2],
    moments: &[Moments],
    eps: f32,
    rectifier: Rectifier,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (values, sums) = build_planes(
        planes,
        |channel| {
            let affine = moments[channel].affine(weight[channel], bias[channel], eps);
            let (mut bias_sum, mut weight_sum) = (0.0f64, 0.0f64);
            for image in 0..planes.batch {
                let (g, x) = (planes.slice(gradient, image, channel), planes.slice(x, image, channel));
                let sums = match rectifier {
                    Rectifier::Absent => gradient_sums(g, x, affine),
                    Rectifier::Behind => rectified_gradient_sums(g, x, affine),
                };
                bias_sum += f64::from(sums.0);
                weight_sum += f64::from(sums.1);
            }
            (affine, bias_sum, weight_sum)
        },
        |&(affine, bias_sum, weight_sum), image, channel, piece| {
            let count = (planes.batch * planes.plane) as f64;
            let means = [(bias_sum / count) as f32, (weight_sum / count) as f32];
            let piece = piece.write_copy_of_slice(planes.slice(gradient, image, channel));
            let x = planes.slice(x, image, channel);
            match rectifier {
                Rectifier::Absent => input_gradient(piece, x, affine, means),
                Rectifier::Behind => rectified_input_gradient(piece, x, affine, means),
            }
            piece
        },
    );
    let weight_gradient = sums.iter().map(|s| s.2 as f32).collect();
    let bias_gradient = sums.iter().map(|s| s.1 as f32).collect();
    (values, weight_gradient, bias_gradient)
}

multiversion! {
    fn squares_about(x: &[f32], mean: f32) -> f32 {
        lanes::sum(x, |v| (v - mean) * (v - mean))
    }

    fn normalize(x: &mut [f32], affine: Affine) {
        for v in x {
            *v = affine.value(*v);
        }
    }

    fn normalize_and_rectify(x: &mut [f32], affine: Affine) {
        for v in x {
            let y = affine.value(*v);
            *v = if y < 0.0 { 0.0 } else { y };
        }
    }

    fn gradient_sums(g: &[f32], x: &[f32], affine: Affine) -> (f32, f32) {
        (lanes::sum(g, |g| g), lanes::sum2(g, x, |g, x| g * affine.normal(x)))
    }

    fn rectified_gradient_sums(g: &[f32], x: &[f32], affine: Affine) -> (f32, f32) {
        let through = |g: f32, x: f32| if affine.value(x) > 0.0 { g } else { 0.0 };
        (
            lanes::sum2(g, x, through),
            lanes::sum2(g, x, |g, x| through(g, x) * affine.normal(x)),
        )
    }

    /// Turns the gradient of a plane into that of `x` (Ioffe & Szegedy 2015, section 3); `means` are those of the gradient
    /// and of its product with the normalized `x`, over the channel.
    fn input_gradient(g: &mut [f32], x: &[f32], affine: Affine, means: [f32; 2]) {
        let factor = affine.weight * affine.inverse;
        for (g, &x) in g.iter_mut().zip(x) {
            *g = factor * (*g - means[0] - affine.normal(x) * means[1]);
        }
    }

    fn rectified_input_gradient(g: &mut [f32], x: &[f32], affine: Affine, means: [f32; 2]) {
        let factor = affine.weight * affine.inverse;
        for (g, &x) in g.iter_mut().zip(x) {
            let through = if affine.value(x) > 0.0 { *g } else { 0.0 };
            *g = factor * (through - means[0] - affine.normal(x) * means[1]);
        }
    }

}

struct BatchNorm {
    planes: Planes,
    eps: f32,
    rectifier: Rectifier,
    moments: Arc<OnceLock<Vec<Moments>>>,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
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
        let parameters = [cpu_slice(weight, weight_layout)?, cpu_slice(bias, bias_layout)?];
        let x = cpu_slice(x, x_layout)?;
        let (values, moments) = forward(x, self.planes, parameters, self.eps, self.rectifier);
        self.moments.get_or_init(|| moments);
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
        let (b_storage, b_layout) = bias.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (values, weight_gradient, bias_gradient) = backward(
            slice(&g_storage, g_layout)?,
            slice(&x_storage, x_layout)?,
            self.planes,
            [slice(&w_storage, w_layout)?, slice(&b_storage, b_layout)?],
            self.moments.get().expect("the forward pass has run"),
            self.eps,
            self.rectifier,
        );
        Ok((
            Some(tensor(values, x.shape())?),
            hand_over(weight, tensor(weight_gradient, weight.shape())?)?,
            hand_over(bias, tensor(bias_gradient, bias.shape())?)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, check, devices, in_f64, same_bits_everywhere, sample};

    const EPS: f64 = 0.1;

    fn inputs(batch: usize, channels: usize, height: usize, width: usize) -> [Tensor; 3] {
        let x = ((sample(&[batch, channels, height, width], 1) * 2.0).unwrap() + 0.7).unwrap();
        [x, sample(&[channels], 2), sample(&[channels], 3)]
    }

    #[test]
    fn gradients() -> Result<()> {
        for (batch, channels, height, width) in [
            (1, 1, 1, 3),
            (3, 7, 5, 1),
            (17, 3, 3, 3),
            (2, 5, 7, 17),
            (1, 2, 9, 9),
            (17, 3, 9, 9),
        ] {
            let [x, weight, bias] = inputs(batch, channels, height, width);
            let reference = |t: &[&Tensor], rectifier| Ok(reference(t[0], t[1], t[2], EPS, rectifier)?.0);
            check(
                &[&x, &weight, &bias],
                |t| Ok(batch_norm(t[0], t[1], t[2], EPS)?.0),
                |t| reference(t, Rectifier::Absent),
                Differences::Central,
                5e-6,
            )?;
            check(
                &[&x, &weight, &bias],
                |t| Ok(batch_norm_relu(t[0], t[1], t[2], EPS)?.0),
                |t| reference(t, Rectifier::Behind),
                Differences::Skip,
                5e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn one_element_a_channel_becomes_its_bias() -> Result<()> {
        let [x, weight, bias] = inputs(1, 3, 1, 1);
        let (y, statistics) = batch_norm(&x, &weight, &bias, EPS)?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, bias.to_vec1::<f32>()?);
        assert_eq!(statistics.mean.to_vec1::<f32>()?, x.flatten_all()?.to_vec1::<f32>()?);
        assert_eq!(statistics.variance.to_vec1::<f32>()?, [0.0; 3]);
        Ok(())
    }

    #[test]
    fn statistics_are_those_of_the_batch() -> Result<()> {
        let inputs = inputs(17, 3, 9, 7);
        let [x, weight, bias] = &inputs;
        let (_, expected) = reference(x, weight, bias, EPS, Rectifier::Absent)?;
        for device in devices() {
            let [x, weight, bias] = inputs.each_ref().map(|t| t.to_device(device));
            let (_, ours) = batch_norm(&x?, &weight?, &bias?, EPS)?;
            assert_eq!((ours.count, expected.count), (17 * 63, 17 * 63));
            for (ours, expected) in [(ours.mean, &expected.mean), (ours.variance, &expected.variance)] {
                for (ours, expected) in in_f64(&ours)?.into_iter().zip(in_f64(expected)?) {
                    assert!((ours - expected).abs() < 1e-5, "{ours} and {expected} on {device:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let [x, weight, bias] = inputs(9, 5, 7, 7);
        same_bits_everywhere(&[&x, &weight, &bias], |t| Ok(batch_norm(t[0], t[1], t[2], EPS)?.0))?;
        same_bits_everywhere(&[&x, &weight, &bias], |t| Ok(batch_norm_relu(t[0], t[1], t[2], EPS)?.0))
    }

    #[test]
    fn empty_batch_and_wrong_width() -> Result<()> {
        let [x, weight, bias] = inputs(0, 5, 3, 3);
        for of_type in [candle_core::DType::F32, candle_core::DType::F64] {
            let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.to_dtype(of_type).unwrap());
            let (y, statistics) = batch_norm_relu(&x, &weight, &bias, EPS)?;
            assert_eq!((y.dims(), statistics.count), (&[0, 5, 3, 3][..], 0));
            assert_eq!(
                statistics.mean.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?,
                [0.0; 5]
            );
        }
        assert!(batch_norm(&sample(&[2, 4, 3, 3], 1), &weight, &bias, EPS).is_err());
        Ok(())
    }
}
