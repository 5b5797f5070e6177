//! The convolution with integer weights: patches of bytes as rows, padded with the zero point, then the same product.
//!
//! Channels come last in images and weights, so that a patch is few pieces that are copied: sums of integers have no order.

use super::linear::Epilogue;
use super::packed::PackedInt8;
use super::product::product;
use crate::fake_quantize::{ActivationQuantizer, quantize_activations};
use crate::patches::Geometry;
use crate::storage::{Shared, slice, tensor};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

/// The cross-correlation of [`crate::conv2d`] with i8 weights and u8 activations. Inference on the CPU only.
#[derive(Debug, Clone)]
pub struct Int8Conv2d {
    packed: PackedInt8,
    epilogue: Epilogue,
    input: ActivationQuantizer,
    channels: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Int8Conv2d {
    /// A layer of row-major `weights` of `shape` `[out, in, k, k]`, with a scale for each output channel, the bias in f32, and
    /// the quantizer of its input.
    ///
    /// # Errors
    /// If a patch has more elements than [`PackedInt8::LONGEST`].
    ///
    /// # Panics
    /// If the kernel is not square, or weights, scales or bias are not as many as `shape` asks for.
    pub fn new(
        weights: &[i8],
        shape: [usize; 4],
        weight_scales: Vec<f32>,
        bias: Option<Vec<f32>>,
        input: ActivationQuantizer,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let [outputs, channels, kernel, kernel_width] = shape;
        assert_eq!(kernel, kernel_width, "a square kernel");
        let weights = channels_last(weights, channels, kernel * kernel);
        let packed = PackedInt8::pack(&weights, outputs, channels * kernel * kernel)?;
        let epilogue = Epilogue::new(&packed, &weight_scales, bias, input);
        Ok(Self {
            packed,
            epilogue,
            input,
            channels,
            kernel,
            stride,
            padding,
        })
    }

    /// `x: [batch, in, height, width]` in f32 to `[batch, out, height', width']`. There is no gradient.
    ///
    /// # Errors
    /// If the channels are not the layer's, the kernel is larger than the padded image, or `x` is not f32 on the CPU.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        if channels != self.channels {
            bail!(
                "an integer convolution of {} channels was given {:?}",
                self.channels,
                x.dims()
            )
        }
        let geometry = Geometry::new(channels, [height, width], self.kernel, self.stride, self.padding)?;
        let x = x.detach().contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let bytes = quantize_activations(slice(&storage, layout)?, self.input);
        let size = self.packed.n() * geometry.patches();
        let mut out = vec![0.0; batch * size];
        out.par_chunks_exact_mut(size.max(1))
            .zip(bytes.par_chunks_exact(geometry.image().max(1)))
            .for_each_init(
                || {
                    let rows = vec![0; geometry.patches() * self.packed.row_stride()];
                    (vec![self.input.zero_point; geometry.pixels()], rows)
                },
                |(pixels, rows), (out, image)| self.image(&geometry, image, pixels, rows, out),
            );
        tensor(out, (batch, self.packed.n(), geometry.output[0], geometry.output[1]))
    }

    /// One image: pixels, rows of patches, product, and the results transposed to planes.
    fn image(&self, geometry: &Geometry, image: &[u8], pixels: &mut [u8], rows: &mut [u8], out: &mut [f32]) {
        let patches = geometry.patches();
        geometry.write_pixels(image, pixels);
        geometry.write_rows(pixels, self.packed.row_stride(), rows);
        let shared = Shared::new(out);
        product(rows, patches, &self.packed, |rows, columns, sums, stride| {
            for (place, channel) in columns.enumerate() {
                // SAFETY: each task has rows (patches) and columns (channels) of its own.
                let plane = unsafe { shared.range(channel * patches + rows.start, rows.len()) };
                self.epilogue
                    .apply_to_channel(sums[place..].iter().step_by(stride), channel, plane);
            }
        });
    }
}

/// `[out, channels, places]` as `[out, places, channels]`.
fn channels_last(weights: &[i8], channels: usize, places: usize) -> Vec<i8> {
    let mut turned = vec![0; weights.len()];
    let size = (channels * places).max(1);
    for (turned, weights) in turned.chunks_exact_mut(size).zip(weights.chunks_exact(size)) {
        for (index, weight) in weights.iter().enumerate() {
            turned[index % places * channels + index / places] = *weight;
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::conv2d;
    use crate::fake_quantize::{
        fake_quantize_per_channel, fake_quantize_per_tensor, quantize_per_channel, symmetric_scales,
    };
    use crate::isa::{Isa, with_isa};
    use crate::precision::ProductPrecision;
    use crate::testing::{bits, quantized, sample};

    const INPUT: ActivationQuantizer = ActivationQuantizer {
        scale: 0.028,
        zero_point: 131,
    };

    fn layer(w: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Result<Int8Conv2d> {
        let scales = symmetric_scales(w, 8)?;
        let weights = quantize_per_channel(w, &scales, 8)?;
        let (o, i, k, _) = w.dims4()?;
        Int8Conv2d::new(
            &weights,
            [o, i, k, k],
            scales.to_vec1()?,
            Some(bias.to_vec1()?),
            INPUT,
            stride,
            padding,
        )
    }

    #[test]
    fn agrees_with_the_simulation() -> Result<()> {
        for (batch, channels, side, outputs, kernel, stride, padding) in [
            (2, 1, 7, 3, 3, 1, 1),
            (1, 3, 5, 17, 3, 2, 2),
            (3, 2, 6, 7, 5, 1, 0),
            (2, 7, 3, 1, 1, 1, 0),
            (5, 3, 6, 5, 3, 1, 1),
        ] {
            let x = sample(&[batch, channels, side, side + 1], 1);
            let (w, bias) = (sample(&[outputs, channels, kernel, kernel], 2), sample(&[outputs], 3));
            let weights = fake_quantize_per_channel(&w, &symmetric_scales(&w, 8)?, 8)?;
            let simulated = conv2d(
                &fake_quantize_per_tensor(&x, INPUT)?,
                &weights,
                Some(&bias),
                stride,
                padding,
                ProductPrecision::F32,
            )?;
            let exact = layer(&w, &bias, stride, padding)?.forward(&x)?;
            assert_eq!(exact.dims(), simulated.dims());
            let worst = (exact - simulated)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(worst < 1e-4, "{worst}");
        }
        Ok(())
    }

    #[test]
    fn same_bits_on_every_instruction_set() -> Result<()> {
        let (x, w, bias) = (sample(&[3, 3, 20, 20], 1), sample(&[33, 3, 5, 5], 2), sample(&[33], 3));
        let layer = layer(&w, &bias, 1, 2)?;
        let expected = layer.forward(&x)?.flatten_all()?.to_vec1::<f32>()?;
        for isa in Isa::available() {
            let got = with_isa(isa, || layer.forward(&x))?.flatten_all()?.to_vec1::<f32>()?;
            assert!(got == expected, "{isa:?}");
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_channels() -> Result<()> {
        let layer = layer(&sample(&[5, 3, 3, 3], 1), &sample(&[5], 2), 1, 0)?;
        assert_eq!(layer.forward(&sample(&[0, 3, 4, 4], 1))?.dims(), [0, 5, 2, 2]);
        assert!(layer.forward(&sample(&[1, 2, 4, 4], 1)).is_err());
        Ok(())
    }

    /// Every output by its definition: the bytes of a patch, the zero point beyond the image; exact integers, then three
    /// operations in f32.
    fn by_definition(x: &Tensor, w: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Result<Vec<u32>> {
        let (batch, channels, height, width) = x.dims4()?;
        let (outputs, _, kernel, _) = w.dims4()?;
        let [rows, columns] = Geometry::new(channels, [height, width], kernel, stride, padding)?.output;
        let scales = symmetric_scales(w, 8)?;
        let weights = quantize_per_channel(w, &scales, 8)?;
        let (scales, bias) = (scales.to_vec1::<f32>()?, bias.to_vec1::<f32>()?);
        let bytes: Vec<u8> = x
            .flatten_all()?
            .to_vec1()?
            .iter()
            .map(|v| quantized(*v, INPUT))
            .collect();
        let zero = i32::from(INPUT.zero_point);
        let byte = |image: usize, channel: usize, row: usize, column: usize| {
            let place = row.checked_sub(padding).zip(column.checked_sub(padding));
            match place.filter(|(row, column)| *row < height && *column < width) {
                Some((row, column)) => i32::from(bytes[((image * channels + channel) * height + row) * width + column]),
                None => zero,
            }
        };
        let mut out = Vec::new();
        for image in 0..batch {
            for output in 0..outputs {
                let weights = &weights[output * channels * kernel * kernel..][..channels * kernel * kernel];
                let correction = zero * weights.iter().map(|w| i32::from(*w)).sum::<i32>();
                for place in 0..rows * columns {
                    let (row, column) = (place / columns * stride, place % columns * stride);
                    let products = weights.iter().enumerate().map(|(i, weight)| {
                        let (channel, y, x) = (i / (kernel * kernel), i / kernel % kernel, i % kernel);
                        byte(image, channel, row + y, column + x) * i32::from(*weight)
                    });
                    let sum: i32 = products.sum();
                    let value = (sum - correction) as f32 * (INPUT.scale * scales[output]) + bias[output];
                    out.push(value.to_bits());
                }
            }
        }
        Ok(out)
    }

    /// Each of 1, 3, 7, 17, 63, 65 and 513 as the channels in, the channels out, the height and the width.
    #[test]
    fn bit_for_bit_the_definition_on_every_instruction_set() -> Result<()> {
        for (channels, outputs, height, width, kernel, stride, padding) in [
            (1, 513, 17, 3, 3, 1, 1),
            (3, 1, 513, 7, 3, 2, 1),
            (7, 63, 3, 17, 5, 1, 2),
            (17, 65, 7, 1, 3, 1, 2),
            (63, 3, 1, 65, 1, 1, 0),
            (65, 7, 63, 3, 3, 2, 1),
            (513, 17, 3, 3, 3, 1, 0),
            (1, 3, 65, 63, 5, 1, 0),
            (3, 7, 3, 513, 3, 1, 1),
        ] {
            let x = sample(&[2, channels, height, width], 1);
            let (w, bias) = (sample(&[outputs, channels, kernel, kernel], 2), sample(&[outputs], 3));
            let expected = by_definition(&x, &w, &bias, stride, padding)?;
            let layer = layer(&w, &bias, stride, padding)?;
            for isa in Isa::available() {
                let got = bits(&with_isa(isa, || layer.forward(&x))?)?;
                assert!(got == expected, "{isa:?}: {:?} by {:?}", x.dims(), w.dims());
            }
        }
        Ok(())
    }
}
