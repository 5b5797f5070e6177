//! Quantization to integers, simulated in f32 for training, and the one rounding rule that the integer kernels share.
//!
//! Weights are symmetric with a scale for each output channel, activations asymmetric u8 with one scale and zero point
//! (Jacob et al. 2018, section 2). Gradients pass straight through where a value was not clipped (Bengio et al. 2013).

use crate::codebook::{Codebook, INTEGERS, Levels};
use crate::elementary::{clamp, round_ties_even};
use crate::isa::multiversion;
use crate::storage::{TASK, cpu_slice, elementwise_backward, is_fused, on_cuda, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Quotients are held within ± this before rounding, where f32 still has all integers.
const ROUNDABLE: f32 = 1_048_576.0;

/// How activations become u8: q = clamp(round(x / scale) + zero_point, 0, 255), x ≈ (q − zero_point) · scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationQuantizer {
    /// Step between neighbouring integers; positive.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: u8,
}

/// The integer nearest to `x / scale`, ties to even, not yet clipped.
#[inline(always)]
fn nearest(x: f32, scale: f32) -> f32 {
    round_ties_even(clamp(x / scale, -ROUNDABLE, ROUNDABLE))
}

/// The largest integer of `bits`: 2^(bits − 1) − 1.
fn largest(bits: u32) -> Result<f32> {
    if (2..=16).contains(&bits) {
        Ok(((1u32 << (bits - 1)) - 1) as f32)
    } else {
        bail!("{bits} bits of a weight")
    }
}

/// `w` as it comes back from signed integers of `bits`, narrow range ±(2^(bits − 1) − 1), ties to even.
///
/// `w: [out, ...]`, `scales: [out]` (no gradient), to the shape of `w`.
///
/// # Errors
/// If the shapes do not fit or `bits` is not in 2..=16.
pub fn fake_quantize_per_channel(w: &Tensor, scales: &Tensor, bits: u32) -> Result<Tensor> {
    per_channel(w, scales, largest(bits)?, None)
}

/// `w` as it comes back from the levels of `codebook`, by way of the 8-bit integers of [`fake_quantize_per_channel`]; gradients
/// pass as they do there.
///
/// `w: [out, ...]`, `scales: [out]` (no gradient), to the shape of `w`.
///
/// # Errors
/// If the shapes do not fit.
pub fn fake_quantize_by_codebook(w: &Tensor, scales: &Tensor, codebook: &Codebook) -> Result<Tensor> {
    per_channel(w, scales, largest(8)?, Some(codebook))
}

fn per_channel(w: &Tensor, scales: &Tensor, limit: f32, codebook: Option<&Codebook>) -> Result<Tensor> {
    let channels = w.dim(0)?;
    if scales.dims() != [channels] {
        bail!(
            "fake_quantize_per_channel of {:?} with scales {:?}",
            w.dims(),
            scales.dims()
        )
    }
    let scales = scales.detach().to_device(w.device())?;
    let levels = codebook.map(Codebook::nearest);
    on_cuda!(
        w,
        fake_quantize_per_channel(w, &scales, limit, levels.as_ref().map(|levels| levels.as_slice()))
    );
    if !is_fused(w) {
        return channel_reference(w, &scales, limit, levels.as_ref());
    }
    let width = w.elem_count().checked_div(channels).unwrap_or(0);
    w.contiguous()?
        .apply_op2(&scales.contiguous()?, PerChannel { width, limit, levels })
}

fn channel_reference(w: &Tensor, scales: &Tensor, limit: f32, levels: Option<&Levels>) -> Result<Tensor> {
    let mut shape = vec![1; w.rank()];
    shape[0] = w.dim(0)?;
    let scales = scales.reshape(shape)?;
    let limit = f64::from(limit);
    // `clamp` lets the gradient pass within its bounds, of which the half step belongs to what rounds inside.
    let held = w.broadcast_div(&scales)?.clamp(-limit - 0.5, limit + 0.5)?;
    let mut rounded = ties_to_even(&held.detach())?.clamp(-limit, limit)?;
    if let Some(levels) = levels {
        let levels = Tensor::new(levels, w.device())?.to_dtype(w.dtype())?;
        let places = (&rounded + limit)?.to_dtype(DType::U32)?.flatten_all()?;
        rounded = levels.index_select(&places, 0)?.reshape(w.shape())?;
    }
    let straight_through = (&held + (rounded - held.detach())?)?;
    straight_through.broadcast_mul(&scales)
}

/// Rounding of plain candle ops, whose own rounds ties away from zero.
fn ties_to_even(x: &Tensor) -> Result<Tensor> {
    let half = (x * 0.5)?;
    let below = x.floor()?;
    let even_below = ((half.floor()? * 2.0)?.eq(&below)?).to_dtype(x.dtype())?;
    let fraction = (x - &below)?;
    let up =
        (fraction.gt(0.5)?.to_dtype(x.dtype())? + (fraction.eq(0.5)?.to_dtype(x.dtype())? * (1.0 - even_below)?)?)?;
    below + up
}

struct PerChannel {
    width: usize,
    limit: f32,
    levels: Option<Levels>,
}

impl PerChannel {
    /// Runs `change(piece, scale, offset)` on a copy of `values`, one channel or part of one at a time.
    fn by_channel(&self, values: &[f32], scales: &[f32], change: impl Fn(&mut [f32], f32, usize) + Sync) -> Vec<f32> {
        let channels = (TASK / self.width.max(1)).max(1);
        transform(values, channels * self.width.max(1), |offset, piece| {
            let first = offset / self.width;
            for (i, row) in piece.chunks_exact_mut(self.width).enumerate() {
                change(row, scales[first + i], offset + i * self.width);
            }
        })
    }
}

impl CustomOp2 for PerChannel {
    fn name(&self) -> &'static str {
        "fake_quantize_per_channel"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        scales: &CpuStorage,
        scales_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let scales = cpu_slice(scales, scales_layout)?;
        let values = self.by_channel(cpu_slice(w, w_layout)?, scales, |row, scale, _| match &self.levels {
            None => through_integers(row, scale, 0.0, -self.limit, self.limit),
            Some(levels) => through_levels(row, scale, levels),
        });
        Ok((CpuStorage::F32(values), w_layout.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        scales: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (w_storage, w_layout) = w.storage_and_layout();
        let (s_storage, s_layout) = scales.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (w_values, scales) = (slice(&w_storage, w_layout)?, slice(&s_storage, s_layout)?);
        let values = self.by_channel(slice(&g_storage, g_layout)?, scales, |row, scale, offset| {
            pass_unclipped(
                row,
                &w_values[offset..offset + self.width],
                scale,
                0.0,
                -self.limit,
                self.limit,
            );
        });
        Ok((Some(tensor(values, w.shape())?), None))
    }
}

/// max |w| / (2^(bits − 1) − 1) of each output channel, 1 for a channel of zeros; detached. `w: [out, ...]` to `[out]`.
///
/// # Errors
/// If `bits` is not in 2..=16.
pub fn symmetric_scales(w: &Tensor, bits: u32) -> Result<Tensor> {
    let limit = largest(bits)?;
    let w = w.detach();
    let channels = w.dim(0)?;
    let width = w.elem_count().checked_div(channels).unwrap_or(0);
    if width == 0 {
        return Tensor::ones(channels, w.dtype(), w.device());
    }
    on_cuda!(&w, symmetric_scales(&w, limit));
    if !is_fused(&w) {
        let largest = w.reshape((channels, width))?.abs()?.max(1)?;
        let zeros = largest.eq(0.0)?.to_dtype(w.dtype())?;
        return (largest / f64::from(limit))? + zeros;
    }
    let w = w.contiguous()?;
    let (storage, layout) = w.storage_and_layout();
    let rows = slice(&storage, layout)?
        .par_chunks_exact(width)
        .with_min_len((TASK / width).max(1));
    let scales: Vec<f32> = rows
        .map(|row| match largest_magnitude(row) {
            0.0 => 1.0,
            largest => largest / limit,
        })
        .collect();
    tensor(scales, channels)
}

/// The integers that [`fake_quantize_per_channel`] goes through, row-major, for at most 8 bits.
///
/// # Errors
/// As [`fake_quantize_per_channel`], or if `bits` is above 8.
pub fn quantize_per_channel(w: &Tensor, scales: &Tensor, bits: u32) -> Result<Vec<i8>> {
    let limit = largest(bits)?;
    let channels = w.dim(0)?;
    if bits > 8 || scales.dims() != [channels] {
        bail!(
            "quantize_per_channel of {:?} with scales {:?} to {bits} bits",
            w.dims(),
            scales.dims()
        )
    }
    let values = w.flatten_all()?.to_vec1::<f32>()?;
    let scales = scales.to_vec1::<f32>()?;
    let width = values.len().checked_div(channels).unwrap_or(0).max(1);
    let rows = values.chunks_exact(width).zip(scales);
    Ok(rows
        .flat_map(|(row, scale)| row.iter().map(move |&w| clamp(nearest(w, scale), -limit, limit) as i8))
        .collect())
}

/// `x` as it comes back from u8. Any shape.
///
/// # Errors
/// If the scale is not positive and finite.
pub fn fake_quantize_per_tensor(x: &Tensor, q: ActivationQuantizer) -> Result<Tensor> {
    if !(q.scale > 0.0 && q.scale.is_finite()) {
        bail!("an activation scale of {}", q.scale)
    }
    on_cuda!(x, fake_quantize_per_tensor(x, q));
    if is_fused(x) {
        x.contiguous()?.apply_op1(PerTensor(q))
    } else {
        tensor_reference(x, q)
    }
}

fn tensor_reference(x: &Tensor, q: ActivationQuantizer) -> Result<Tensor> {
    let (scale, zero) = (f64::from(q.scale), f64::from(q.zero_point));
    let held = (x / scale)?.clamp(-zero - 0.5, 255.5 - zero)?;
    let rounded = ties_to_even(&held.detach())?.clamp(-zero, 255.0 - zero)?;
    (&held + (rounded - held.detach())?)? * scale
}

struct PerTensor(ActivationQuantizer);

impl CustomOp1 for PerTensor {
    fn name(&self) -> &'static str {
        "fake_quantize_per_tensor"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (scale, zero) = (self.0.scale, f32::from(self.0.zero_point));
        let x = cpu_slice(storage, layout)?;
        let values = transform(x, TASK, |_, piece| through_integers(piece, scale, zero, 0.0, 255.0));
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (scale, zero) = (self.0.scale, f32::from(self.0.zero_point));
        elementwise_backward(x, gradient, |g, x| pass_unclipped(g, x, scale, zero, 0.0, 255.0)).map(Some)
    }
}

multiversion! {
    fn through_levels(values: &mut [f32], scale: f32, levels: &Levels) {
        const LARGEST: f32 = (INTEGERS / 2) as f32;
        for v in values {
            let place = clamp(nearest(*v, scale), -LARGEST, LARGEST) + LARGEST;
            // The rounder's low byte is the integer.
            let level = levels[usize::from((place + crate::elementary::ROUNDER).to_bits() as u8)];
            *v = if place.is_nan() { place } else { level * scale };
        }
    }

    fn through_integers(values: &mut [f32], scale: f32, zero: f32, low: f32, high: f32) {
        for v in values {
            *v = (clamp(nearest(*v, scale) + zero, low, high) - zero) * scale;
        }
    }

    fn pass_unclipped(gradient: &mut [f32], x: &[f32], scale: f32, zero: f32, low: f32, high: f32) {
        for (g, &x) in gradient.iter_mut().zip(x) {
            let q = nearest(x, scale) + zero;
            *g = if (q >= low) & (q <= high) { *g } else { 0.0 };
        }
    }

    fn largest_magnitude(values: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 32];
        let (blocks, rest) = values.as_chunks::<32>();
        for block in blocks {
            for i in 0..32 {
                let magnitude = block[i].abs();
                lanes[i] = if magnitude > lanes[i] { magnitude } else { lanes[i] };
            }
        }
        let mut largest = 0.0;
        for v in lanes.iter().chain(rest) {
            largest = if v.abs() > largest { v.abs() } else { largest };
        }
        largest
    }

    /// The u8 of each value, as [`fake_quantize_per_tensor`] rounds; NaN becomes 0 or another byte.
    pub(crate) fn to_bytes(values: &[f32], scale: f32, zero: f32, out: &mut [u8]) {
        for (byte, &v) in out.iter_mut().zip(values) {
            let q = clamp(nearest(v, scale) + zero, 0.0, 255.0);
            // The rounder's low byte is the integer.
            *byte = (q + crate::elementary::ROUNDER).to_bits() as u8;
        }
    }
}

/// `values` as u8, in parallel where it pays.
pub(crate) fn quantize_activations(values: &[f32], q: ActivationQuantizer) -> Vec<u8> {
    const PIECE: usize = 4 * TASK;
    let mut bytes = vec![0; values.len()];
    bytes
        .par_chunks_mut(PIECE)
        .zip(values.par_chunks(PIECE))
        .for_each(|(bytes, values)| to_bytes(values, q.scale, f32::from(q.zero_point), bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, devices_with_own_ops, same_bits_everywhere, sample};
    use candle_core::{DType, Device, Var};

    const QUANTIZER: ActivationQuantizer = ActivationQuantizer {
        scale: 0.007_812_5,
        zero_point: 100,
    };

    #[test]
    fn per_channel_matches_the_composition() -> Result<()> {
        for n in SIZES {
            for bits in [2, 4, 8] {
                let w = sample(&[3, n], 1);
                // A power of two below the largest magnitude, so that some are clipped and quotients are exact.
                let scales = Tensor::new(&[0.25f32, 0.5, 1.0], &Device::Cpu)?;
                let scales = (scales / f64::from(1u32 << (bits - 1)))?;
                check(
                    &[&w],
                    |t| fake_quantize_per_channel(t[0], &scales, bits),
                    |t| channel_reference(t[0], &scales.to_dtype(t[0].dtype())?, largest(bits)?, None),
                    Differences::Skip,
                    1e-6,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn codebooks_match_the_composition() -> Result<()> {
        for n in SIZES {
            for bits in [2, 4, 6] {
                let w = sample(&[3, n], 1);
                let scales = Tensor::new(&[1f32 / 128.0, 1.0 / 64.0, 1.0 / 32.0], &Device::Cpu)?;
                let codebook = Codebook::fit(&w, &scales, bits)?;
                let levels = codebook.nearest();
                check(
                    &[&w],
                    |t| fake_quantize_by_codebook(t[0], &scales, &codebook),
                    |t| channel_reference(t[0], &scales.to_dtype(t[0].dtype())?, 127.0, Some(&levels)),
                    Differences::Skip,
                    1e-6,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn every_device_gives_the_same_integers() -> Result<()> {
        for n in SIZES.into_iter().chain([9000]) {
            let x = sample(&[5, n], 1);
            let codebook = Codebook::fit(&x, &symmetric_scales(&x, 8)?, 3)?;
            let all = |x: &Tensor| -> Result<Vec<Vec<f32>>> {
                let scales = [4, 8].map(|bits| symmetric_scales(x, bits));
                let [of_4, of_8] = [scales[0].as_ref(), scales[1].as_ref()].map(|s| s.expect("scales of a matrix"));
                let values = [
                    of_4.clone(),
                    of_8.clone(),
                    fake_quantize_per_channel(x, of_4, 4)?,
                    fake_quantize_per_channel(x, of_8, 8)?,
                    fake_quantize_by_codebook(x, of_8, &codebook)?,
                    fake_quantize_per_tensor(x, QUANTIZER)?,
                ];
                values.iter().map(|t| t.flatten_all()?.to_vec1()).collect()
            };
            let expected = all(&x)?;
            for device in devices_with_own_ops() {
                assert!(all(&x.to_device(device)?)? == expected, "5 × {n} on {device:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn levels_and_their_simulation_agree() -> Result<()> {
        let w = sample(&[5, 37], 3);
        let scales = symmetric_scales(&w, 8)?;
        let codebook = Codebook::fit(&w, &scales, 3)?;
        let fake = fake_quantize_by_codebook(&w, &scales, &codebook)?.to_vec2::<f32>()?;
        let integers = quantize_per_channel(&w, &scales, 8)?;
        for ((row, integers), scale) in fake.iter().zip(integers.chunks(37)).zip(scales.to_vec1::<f32>()?) {
            let level = |q: i8| f32::from(codebook.levels()[usize::from(codebook.index_of(q))]);
            assert!(row.iter().zip(integers).all(|(v, &q)| *v == level(q) * scale));
        }
        let broken = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu)?;
        let shown = fake_quantize_by_codebook(&broken, &Tensor::new(&[1f32], &Device::Cpu)?, &codebook)?;
        assert!(shown.to_vec2::<f32>()?[0][1].is_nan());
        Ok(())
    }

    #[test]
    fn per_tensor_matches_the_composition() -> Result<()> {
        for n in SIZES {
            let x = sample(&[2, n], 1);
            check(
                &[&x],
                |t| fake_quantize_per_tensor(t[0], QUANTIZER),
                |t| tensor_reference(t[0], QUANTIZER),
                Differences::Skip,
                1e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn ties_clipping_and_straight_through() -> Result<()> {
        let x = Var::new(&[0.5f32, 1.5, 2.5, -0.5, 126.6, 127.4, 127.6, -200.0], &Device::Cpu)?;
        let y = fake_quantize_per_channel(&x.reshape((1, 8))?, &Tensor::new(&[1f32], &Device::Cpu)?, 8)?;
        assert_eq!(
            y.flatten_all()?.to_vec1::<f32>()?,
            [0.0, 2.0, 2.0, 0.0, 127.0, 127.0, 127.0, -127.0]
        );
        let gradients = y.sum_all()?.backward()?;
        let gradient = gradients.get(&x).expect("x is a variable").to_vec1::<f32>()?;
        assert_eq!(gradient, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        Ok(())
    }

    #[test]
    fn integers_bytes_and_simulation_agree() -> Result<()> {
        let w = sample(&[5, 37], 3);
        let scales = symmetric_scales(&w, 8)?;
        let fake = fake_quantize_per_channel(&w, &scales, 8)?.to_vec2::<f32>()?;
        let integers = quantize_per_channel(&w, &scales, 8)?;
        for ((row, integers), scale) in fake.iter().zip(integers.chunks(37)).zip(scales.to_vec1::<f32>()?) {
            assert!(row.iter().zip(integers).all(|(v, &q)| *v == f32::from(q) * scale));
            assert!(
                integers.iter().any(|q| q.abs() == 127),
                "the largest weight uses the whole range"
            );
        }
        let x = sample(&[501], 4).to_vec1::<f32>()?;
        let fake = fake_quantize_per_tensor(&Tensor::new(x.as_slice(), &Device::Cpu)?, QUANTIZER)?.to_vec1::<f32>()?;
        let bytes = quantize_activations(&x, QUANTIZER);
        assert!(
            fake.iter()
                .zip(&bytes)
                .all(|(v, &q)| *v == (f32::from(q) - 100.0) * QUANTIZER.scale)
        );
        assert!(bytes.contains(&0) && bytes.contains(&255));
        Ok(())
    }

    #[test]
    fn scales_of_zero_channels_and_of_other_types() -> Result<()> {
        let w = Tensor::new(&[[0f32, 0.0, 0.0], [-254.0, 127.0, 3.0]], &Device::Cpu)?;
        assert_eq!(symmetric_scales(&w, 8)?.to_vec1::<f32>()?, [1.0, 2.0]);
        assert_eq!(
            symmetric_scales(&w.to_dtype(DType::F64)?, 8)?.to_vec1::<f64>()?,
            [1.0, 2.0]
        );
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let (w, scales) = (sample(&[70, 129], 1), symmetric_scales(&sample(&[70, 129], 2), 4)?);
        same_bits_everywhere(&[&w], |t| fake_quantize_per_channel(t[0], &scales, 4))?;
        let codebook = Codebook::fit(&w, &scales, 4)?;
        same_bits_everywhere(&[&w], |t| fake_quantize_by_codebook(t[0], &scales, &codebook))?;
        same_bits_everywhere(&[&w], |t| fake_quantize_per_tensor(t[0], QUANTIZER))
    }

    #[test]
    fn impossible_arguments_are_errors() -> Result<()> {
        let w = sample(&[2, 3], 1);
        let scales = symmetric_scales(&w, 8)?;
        assert!(fake_quantize_per_channel(&w, &scales, 1).is_err());
        assert!(fake_quantize_per_channel(&w, &scales.narrow(0, 0, 1)?, 8).is_err());
        assert!(quantize_per_channel(&w, &scales, 9).is_err());
        let codebook = Codebook::fit(&w, &scales, 2)?;
        assert!(fake_quantize_by_codebook(&w, &scales.narrow(0, 0, 1)?, &codebook).is_err());
        let nothing = ActivationQuantizer {
            scale: 0.0,
            zero_point: 0,
        };
        assert!(fake_quantize_per_tensor(&w, nothing).is_err());
        Ok(())
    }
}
