//! The fully connected layer with integer weights, and the epilogue that turns integer sums into f32.

use super::packed::PackedInt8;
use super::product::{TASK_COLUMNS, product};
use crate::activation::gelu_forward;
use crate::fake_quantize::{ActivationQuantizer, quantize_activations, to_bytes};
use crate::isa::multiversion;
use crate::storage::{Shared, slice, tensor};
use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// What follows an integer product, for each output channel n: (sum − correction\[n\]) · factor\[n\] + bias\[n\].
#[derive(Debug, Clone)]
pub(super) struct Epilogue {
    corrections: Vec<i32>,
    factors: Vec<f32>,
    bias: Vec<f32>,
}

impl Epilogue {
    /// # Panics
    /// If scales or bias are not one for each row of `packed`.
    pub(super) fn new(packed: &PackedInt8, scales: &[f32], bias: Option<Vec<f32>>, input: ActivationQuantizer) -> Self {
        let n = packed.n();
        let bias = bias.unwrap_or_else(|| vec![0.0; n]);
        assert_eq!(
            (scales.len(), bias.len()),
            (n, n),
            "a scale and a bias for each of {n} output channels"
        );
        let zero = i32::from(input.zero_point);
        Self {
            corrections: packed.row_sums().into_iter().map(|sum| zero * sum).collect(),
            factors: scales.iter().map(|scale| input.scale * scale).collect(),
            bias,
        }
    }

    /// Writes the results of `sums`, which belong to the output channels from `first` on, and hands them back.
    pub(super) fn apply<'a>(&self, sums: &[i32], first: usize, out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        assert!(sums.len() >= out.len(), "a sum for each result");
        let channels = first..first + out.len();
        dequantize(
            sums,
            &self.corrections[channels.clone()],
            &self.factors[channels.clone()],
            &self.bias[channels],
            out,
        );
        // SAFETY: there are a sum, a correction, a factor and a bias for each, so that all are written.
        unsafe { out.assume_init_mut() }
    }

    /// Writes the results of one output channel's `sums`.
    pub(super) fn apply_to_channel<'a>(&self, sums: impl Iterator<Item = &'a i32>, channel: usize, out: &mut [f32]) {
        let (correction, factor, bias) = (self.corrections[channel], self.factors[channel], self.bias[channel]);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (sum - correction) as f32 * factor + bias;
        }
    }
}

multiversion! {
    fn dequantize(sums: &[i32], corrections: &[i32], factors: &[f32], bias: &[f32], out: &mut [MaybeUninit<f32>]) {
        for ((((out, sum), correction), factor), bias) in
            out.iter_mut().zip(sums).zip(corrections).zip(factors).zip(bias)
        {
            out.write((sum - correction) as f32 * factor + bias);
        }
    }
}

/// y = x Wᵀ + b with i8 weights and u8 activations: the activations are quantized once, multiplied exactly, and scaled
/// back (Jacob et al. 2018, section 2.2). Inference on the CPU only.
#[derive(Debug, Clone)]
pub struct Int8Linear {
    packed: PackedInt8,
    epilogue: Epilogue,
    input: ActivationQuantizer,
}

impl Int8Linear {
    /// A layer of `packed` weights `[out, in]`, with a scale for each output channel, the bias in f32, and the quantizer of
    /// its input.
    ///
    /// # Panics
    /// If scales or bias are not one for each output channel.
    pub fn new(
        packed: PackedInt8,
        weight_scales: Vec<f32>,
        bias: Option<Vec<f32>>,
        input: ActivationQuantizer,
    ) -> Self {
        let epilogue = Epilogue::new(&packed, &weight_scales, bias, input);
        Self {
            packed,
            epilogue,
            input,
        }
    }

    /// `x: [..., in]` in f32 to `[..., out]`. There is no gradient.
    ///
    /// # Errors
    /// If the last dimension is not the layer's, or `x` is not f32 on the CPU.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_bytes(&self.quantize(x)?)
    }

    /// Whether [`Int8Linear::quantize`] of both layers gives the same.
    pub fn quantizes_like(&self, other: &Self) -> bool {
        self.input == other.input && self.packed.k() == other.packed.k()
    }

    /// `x: [..., in]` as this layer multiplies it.
    ///
    /// # Errors
    /// As [`Int8Linear::forward`].
    pub fn quantize(&self, x: &Tensor) -> Result<QuantizedActivations> {
        let k = self.packed.k();
        if x.dim(D::Minus1)? != k {
            bail!("an integer layer of {k} inputs was given {:?}", x.dims())
        }
        let mut shape = x.dims().to_vec();
        shape.pop();
        let x = x.detach().contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        Ok(QuantizedActivations {
            values: self.rows_of_bytes(slice(&storage, layout)?),
            rows: shape.iter().product(),
            shape,
            k,
            quantizer: self.input,
        })
    }

    /// Activations as bytes, each row filled up to whole groups.
    fn rows_of_bytes(&self, x: &[f32]) -> Vec<u8> {
        let (k, stride) = (self.packed.k(), self.packed.row_stride());
        if k == stride {
            return quantize_activations(x, self.input);
        }
        let mut bytes = vec![0; x.len() / k * stride];
        bytes
            .par_chunks_exact_mut(stride)
            .with_min_len(16)
            .zip(x.par_chunks_exact(k))
            .for_each(|(bytes, x)| {
                to_bytes(x, self.input.scale, f32::from(self.input.zero_point), &mut bytes[..k]);
            });
        bytes
    }

    /// [`Int8Linear::forward`] of what this layer, or one that [quantizes like it](Int8Linear::quantizes_like), quantized.
    ///
    /// # Errors
    /// If another layer did.
    pub fn forward_bytes(&self, x: &QuantizedActivations) -> Result<Tensor> {
        let n = self.packed.n();
        let len = x.rows * n;
        let mut out = Vec::with_capacity(len);
        let shared = Shared::new(&mut out.spare_capacity_mut()[..len]);
        self.multiply(x, |row, columns, sums| {
            // SAFETY: each task has rows and columns of its own.
            let out = unsafe { shared.range(row * n + columns.start, columns.len()) };
            self.epilogue.apply(sums, columns.start, out);
        })?;
        // SAFETY: tasks have all rows and columns, and each has written its own.
        unsafe { out.set_len(len) };
        let mut shape = x.shape.clone();
        shape.push(n);
        tensor(out, shape)
    }

    /// What `next` multiplies of gelu of this layer's result, without that result: a task's part is bytes again before the
    /// next one begins.
    ///
    /// # Errors
    /// As [`Int8Linear::forward_bytes`], or if `next` has another number of inputs than this layer outputs.
    pub fn gelu_bytes(&self, x: &QuantizedActivations, next: &Self) -> Result<QuantizedActivations> {
        if next.packed.k() != self.packed.n() {
            bail!("{} outputs for {} inputs", self.packed.n(), next.packed.k())
        }
        let stride = next.packed.row_stride();
        let mut values = vec![0; x.rows * stride];
        let shared = Shared::new(&mut values);
        self.multiply(x, |row, columns, sums| {
            let mut neurons = [MaybeUninit::uninit(); TASK_COLUMNS];
            let neurons = self.epilogue.apply(sums, columns.start, &mut neurons[..columns.len()]);
            gelu_forward(neurons);
            // SAFETY: each task has rows and columns of its own.
            let bytes = unsafe { shared.range(row * stride + columns.start, columns.len()) };
            to_bytes(neurons, next.input.scale, f32::from(next.input.zero_point), bytes);
        })?;
        Ok(QuantizedActivations {
            values,
            shape: x.shape.clone(),
            rows: x.rows,
            k: next.packed.k(),
            quantizer: next.input,
        })
    }

    /// Calls `sink(row, columns, sums)` for each row of each task of x · Wᵀ.
    fn multiply(&self, x: &QuantizedActivations, sink: impl Fn(usize, Range<usize>, &[i32]) + Sync) -> Result<()> {
        if x.quantizer != self.input || x.k != self.packed.k() {
            bail!("an integer layer was given what another one quantized")
        }
        product(&x.values, x.rows, &self.packed, |rows, columns, sums, stride| {
            for (row, sums) in rows.zip(sums.chunks(stride)) {
                sink(row, columns.clone(), sums);
            }
        });
        Ok(())
    }
}

/// Activations as a layer multiplies them: rows of bytes, each filled up to whole groups.
#[derive(Debug, Clone)]
pub struct QuantizedActivations {
    values: Vec<u8>,
    /// All dimensions but the last.
    shape: Vec<usize>,
    /// Their product.
    rows: usize,
    /// The last dimension.
    k: usize,
    quantizer: ActivationQuantizer,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_quantize::{
        fake_quantize_per_channel, fake_quantize_per_tensor, quantize_per_channel, symmetric_scales,
    };
    use crate::isa::{Isa, with_isa};
    use crate::linear::linear;
    use crate::precision::ProductPrecision;
    use crate::testing::{bits, quantized, sample};

    const INPUT: ActivationQuantizer = ActivationQuantizer {
        scale: 0.031,
        zero_point: 119,
    };

    fn layer(w: &Tensor, bias: Option<&Tensor>) -> Result<Int8Linear> {
        let (n, k) = w.dims2()?;
        let scales = symmetric_scales(w, 8)?;
        let packed = PackedInt8::pack(&quantize_per_channel(w, &scales, 8)?, n, k)?;
        let bias = bias.map(Tensor::to_vec1).transpose()?;
        Ok(Int8Linear::new(packed, scales.to_vec1()?, bias, INPUT))
    }

    #[test]
    fn agrees_with_the_simulation() -> Result<()> {
        for (m, n, k) in [(1, 1, 1), (3, 7, 17), (7, 65, 63), (65, 3, 64), (130, 129, 130)] {
            let (x, w, bias) = (sample(&[1, m, k], 1), sample(&[n, k], 2), sample(&[n], 3));
            let weights = fake_quantize_per_channel(&w, &symmetric_scales(&w, 8)?, 8)?;
            for bias in [None, Some(&bias)] {
                let simulated = linear(
                    &fake_quantize_per_tensor(&x, INPUT)?,
                    &weights,
                    bias,
                    ProductPrecision::F32,
                )?;
                let exact = layer(&w, bias)?.forward(&x)?;
                assert_eq!(exact.dims(), [1, m, n]);
                let worst = (exact - simulated)?.abs()?.max_all()?.to_scalar::<f32>()?;
                // Only the f32 product rounds.
                assert!(worst < 1e-5 * (k as f32), "{m} {n} {k}: {worst}");
            }
        }
        Ok(())
    }

    #[test]
    fn same_bits_on_every_instruction_set_and_for_all_threads() -> Result<()> {
        let (x, w, bias) = (sample(&[130, 131], 1), sample(&[140, 131], 2), sample(&[140], 3));
        let layer = layer(&w, Some(&bias))?;
        let expected = layer.forward(&x)?.to_vec2::<f32>()?;
        for isa in Isa::available() {
            assert_eq!(
                with_isa(isa, || layer.forward(&x))?.to_vec2::<f32>()?,
                expected,
                "{isa:?}"
            );
        }
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool can be started");
            assert_eq!(
                pool.install(|| layer.forward(&x))?.to_vec2::<f32>()?,
                expected,
                "{threads} threads"
            );
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_width() -> Result<()> {
        let layer = layer(&sample(&[5, 3], 1), None)?;
        assert_eq!(layer.forward(&sample(&[0, 3], 1))?.dims(), [0, 5]);
        assert!(layer.forward(&sample(&[2, 4], 1)).is_err());
        assert!(
            layer
                .forward(&sample(&[2, 3], 1).to_dtype(candle_core::DType::F64)?)
                .is_err()
        );
        Ok(())
    }

    /// One output by its definition: exact integers, then three operations in f32.
    fn by_definition(x: &[f32], weights: &[i8], scale: f32, bias: f32) -> f32 {
        let sum: i32 = x
            .iter()
            .zip(weights)
            .map(|(x, w)| i32::from(quantized(*x, INPUT)) * i32::from(*w))
            .sum();
        let correction = i32::from(INPUT.zero_point) * weights.iter().map(|w| i32::from(*w)).sum::<i32>();
        (sum - correction) as f32 * (INPUT.scale * scale) + bias
    }

    #[test]
    fn bit_for_bit_the_definition_on_every_instruction_set() -> Result<()> {
        const SIZES: [usize; 7] = [1, 3, 7, 17, 63, 65, 513];
        for i in 0..SIZES.len() {
            let [m, n, k] = [i, i + 2, i + 4].map(|i| SIZES[i % SIZES.len()]);
            let (x, w, bias) = (sample(&[m, k], 1), sample(&[n, k], 2), sample(&[n], 3));
            let scales = symmetric_scales(&w, 8)?;
            let weights = quantize_per_channel(&w, &scales, 8)?;
            let (scales, biases) = (scales.to_vec1::<f32>()?, bias.to_vec1::<f32>()?);
            let expected: Vec<u32> = x
                .to_vec2::<f32>()?
                .iter()
                .flat_map(|x| (0..n).map(|n| by_definition(x, &weights[n * k..][..k], scales[n], biases[n]).to_bits()))
                .collect();
            let layer = layer(&w, Some(&bias))?;
            for isa in Isa::available() {
                let got = bits(&with_isa(isa, || layer.forward(&x))?)?;
                assert!(got == expected, "{isa:?}: {m}×{k} by {n}×{k}");
            }
        }
        Ok(())
    }
}
