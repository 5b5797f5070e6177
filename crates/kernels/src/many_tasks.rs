//! Every op on inputs of several tasks, and at widths up to 513, beside its composition in f64: values and gradients. What
//! a task wrote at another's place would be the same for any number of threads, but not the same as this.

use crate::precision::ProductPrecision::F32;
use crate::storage::TASK;
use crate::testing::{DROPOUT, Differences, TOLERANCE, check, quantized, sample};
use crate::{
    ActivationQuantizer, Affine, Projections, Queries, add_norm, add_relu, attention, batch_norm, batch_norm_relu,
    conv2d, cross_entropy, distillation_loss, dropout, embedding, embedding_norm, fake_quantize_per_channel,
    fake_quantize_per_tensor, feed_forward, gelu, global_average_pool, layer_norm, linear, max_pool2d, min_max,
    quantize_per_channel, relu, scale_channels, self_attention, softmax_last_dim, symmetric_scales, tanh,
};
use candle_core::{DType, Device, Result, Tensor};

/// Rows and widths: rows that fill several tasks, alone or together; the last has more elements than two of the parts that
/// whole tensors are reduced by.
const SHAPES: [(usize, usize); 5] = [(33, 513), (5000, 3), (2, 8195), (401, 17), (641, 63)];

/// A power of two, by which f32 and f64 divide to the same integers.
const QUANTIZER: ActivationQuantizer = ActivationQuantizer {
    scale: 0.015_625,
    zero_point: 120,
};

/// The op in f32, which is fused, beside itself in f64, which is composed.
fn agrees(inputs: &[&Tensor], op: impl Fn(&[&Tensor]) -> Result<Tensor>) -> Result<()> {
    check(inputs, &op, &op, Differences::Skip, TOLERANCE)
}

fn like(t: &Tensor, other: &Tensor) -> Result<Tensor> {
    t.to_dtype(other.dtype())
}

fn affine(weight: &Tensor, bias: &Tensor) -> Affine {
    Affine {
        weight: weight.clone(),
        bias: bias.clone(),
    }
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_vec1()
}

#[test]
fn elementwise() -> Result<()> {
    for (rows, width) in SHAPES {
        let (x, y) = (sample(&[rows, width], 1), sample(&[rows, width], 2));
        assert!(x.elem_count() > TASK);
        agrees(&[&x], |t| gelu(t[0]))?;
        agrees(&[&x], |t| relu(t[0]))?;
        agrees(&[&x], |t| tanh(t[0]))?;
        agrees(&[&x], |t| dropout(t[0], DROPOUT))?;
        agrees(&[&x, &y], |t| add_relu(t[0], t[1]))?;
    }
    Ok(())
}

#[test]
fn rows() -> Result<()> {
    for (rows, width) in SHAPES {
        let (x, y) = (sample(&[rows, width], 1), sample(&[rows, width], 2));
        let (weight, bias) = (sample(&[width], 3), sample(&[width], 4));
        agrees(&[&x], |t| softmax_last_dim(t[0]))?;
        agrees(&[&x, &weight, &bias], |t| layer_norm(t[0], t[1], t[2], 0.1))?;
        for dropout in [None, Some(DROPOUT)] {
            agrees(&[&x, &y, &weight, &bias], |t| {
                add_norm(t[0], t[1], dropout, t[2], t[3], 0.1)
            })?;
        }
        let labels = Tensor::from_iter((0..rows).map(|row| (row * 5 % width) as u32), &Device::Cpu)?;
        agrees(&[&x], |t| cross_entropy(t[0], &labels, 0.1))?;
        // Nine times the difference of two logarithms.
        let distance = |t: &[&Tensor]| distillation_loss(t[0], &like(&y, t[0])?, 3.0);
        check(&[&x], distance, distance, Differences::Skip, 2e-5)?;
        let ids = Tensor::from_iter((0..2 * rows).map(|i| (i * 7 % rows) as u32), &Device::Cpu)?;
        agrees(&[&x], |t| embedding(t[0], &ids))?;
        let (ids, places) = (ids.reshape((rows, 2))?, sample(&[2, width], 5));
        agrees(&[&x, &places, &weight, &bias], |t| {
            embedding_norm(t[0], &ids, t[1], t[2], t[3], 0.1)
        })?;
    }
    Ok(())
}

#[test]
fn quantization() -> Result<()> {
    for (rows, width) in SHAPES {
        let x = sample(&[rows, width], 1);
        agrees(&[&x], |t| fake_quantize_per_tensor(t[0], QUANTIZER))?;
        let powers = (0..rows).map(|row| 2f32.powi(-4 - (row % 3) as i32));
        let scales = Tensor::from_iter(powers, &Device::Cpu)?;
        agrees(&[&x], |t| fake_quantize_per_channel(t[0], &like(&scales, t[0])?, 4))?;
        let scales = symmetric_scales(&x, 8)?;
        let integers = quantize_per_channel(&x, &scales, 8)?;
        let scales = scales.to_vec1::<f32>()?;
        for ((row, scale), integers) in x.to_vec2::<f32>()?.iter().zip(scales).zip(integers.chunks_exact(width)) {
            let largest = row.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            assert_eq!(scale, largest / 127.0);
            let expected = row
                .iter()
                .map(|v| (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8);
            assert!(expected.eq(integers.iter().copied()));
        }
        let bytes = crate::fake_quantize::quantize_activations(&values(&x)?, QUANTIZER);
        let expected = values(&x)?.into_iter().map(|v| quantized(v, QUANTIZER));
        assert!(expected.eq(bytes));
    }
    Ok(())
}

#[test]
fn whole_tensors() -> Result<()> {
    for count in SHAPES.map(|(rows, width)| rows * width) {
        let x = sample(&[count], 1);
        let before = values(&x)?;
        for place in [0, count / 2, count - 1] {
            for (extreme, sign) in [(9.0, 1.0), (-9.0, -1.0)] {
                let mut moved = before.clone();
                moved[place] = extreme;
                let least = moved.iter().copied().fold(f32::INFINITY, f32::min);
                let most = moved.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(
                    min_max(&Tensor::new(moved, &Device::Cpu)?)?,
                    (least, most),
                    "{sign} at {place}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn products() -> Result<()> {
    for (rows, inputs, outputs) in [(65, 513, 63), (513, 63, 17), (17, 65, 513), (700, 7, 9)] {
        let (x, weight, bias) = (
            sample(&[rows, inputs], 1),
            sample(&[outputs, inputs], 2),
            sample(&[outputs], 3),
        );
        agrees(&[&x, &weight, &bias], |t| linear(t[0], t[1], Some(t[2]), F32))?;
        let (back, last) = (sample(&[7, outputs], 4), sample(&[7], 5));
        agrees(&[&x, &weight, &bias, &back, &last], |t| {
            feed_forward(t[0], &affine(t[1], t[2]), &affine(t[3], t[4]), F32)
        })?;
    }
    Ok(())
}

#[test]
fn heads() -> Result<()> {
    for (batch, length, heads, depth) in [(9, 65, 3, 7), (1, 513, 1, 3), (2, 3, 9, 57), (70, 9, 2, 5)] {
        let width = heads * depth;
        let qkv = [1, 2, 3].map(|seed| sample(&[batch, length, width], seed));
        let kept = (0..batch * length).map(|i| f32::from((i % length) <= length - 1 - i / length % length));
        let mask = Tensor::from_iter(kept, &Device::Cpu)?.reshape((batch, length))?;
        for (mask, dropout, queries) in [
            (None, None, Queries::All),
            (Some(&mask), Some(DROPOUT), Queries::All),
            (Some(&mask), Some(DROPOUT), Queries::First),
        ] {
            agrees(&qkv.each_ref(), |t| {
                attention(t[0], t[1], t[2], mask, heads, dropout, F32)
            })?;
            let inputs = 5;
            let small = |dims: &[usize], seed| sample(dims, seed) * 0.25;
            let samples = [
                sample(&[batch, length, inputs], 4),
                small(&[width, inputs], 5)?,
                small(&[width], 6)?,
                small(&[width, inputs], 7)?,
                small(&[width], 8)?,
                small(&[width, inputs], 9)?,
                small(&[width], 10)?,
                small(&[3, width], 11)?,
                small(&[3], 12)?,
            ];
            let op = |t: &[&Tensor]| {
                let projections = Projections {
                    query: affine(t[1], t[2]),
                    key: affine(t[3], t[4]),
                    value: affine(t[5], t[6]),
                    output: affine(t[7], t[8]),
                };
                self_attention(t[0], &projections, mask, heads, queries, dropout, F32)
            };
            // Many terms of the key's gradients cancel.
            check(&samples.each_ref(), op, op, Differences::Skip, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    for (batch, channels, sides, outputs, kernel, stride, padding) in [
        (2, 1, [63, 65], 3, 3, 1, 1),
        (2, 3, [65, 63], 2, 5, 2, 2),
        (1, 2, [65, 64], 17, 5, 1, 2),
        (3, 513, [3, 5], 3, 3, 1, 1),
        (2, 3, [5, 3], 513, 3, 2, 1),
        (2, 513, [2, 3], 17, 1, 1, 0),
        (1, 1, [513, 3], 2, 3, 1, 1),
        (40, 3, [9, 7], 5, 3, 2, 1),
        (40, 3, [9, 7], 5, 3, 1, 1),
    ] {
        let x = sample(&[batch, channels, sides[0], sides[1]], 1);
        let weight = sample(&[outputs, channels, kernel, kernel], 2);
        let bias = sample(&[outputs], 3);
        agrees(&[&x, &weight, &bias], |t| {
            conv2d(t[0], t[1], Some(t[2]), stride, padding, F32)
        })?;
    }
    Ok(())
}

#[test]
fn images() -> Result<()> {
    for (batch, channels, sides) in [(3, 5, [63, 65]), (2, 513, [3, 5]), (700, 3, [3, 3]), (2, 1, [65, 513])] {
        let x = sample(&[batch, channels, sides[0], sides[1]], 1);
        assert!(x.elem_count() > TASK);
        let (weight, bias) = (sample(&[channels], 2), sample(&[channels], 3));
        agrees(&[&x], |t| global_average_pool(t[0]))?;
        for (kernel, stride) in [(2, 2), (3, 2), (3, 1)] {
            agrees(&[&x], |t| max_pool2d(t[0], kernel, stride))?;
        }
        let scaled = scale_channels(&x, &weight, &bias)?.to_dtype(DType::F64)?;
        let [x64, weight64, bias64] = [&x, &weight, &bias].map(|t| t.to_dtype(DType::F64));
        let expected = scale_channels(&x64?, &weight64?, &bias64?)?;
        assert!((scaled - expected)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-5);
        let all = [&x, &weight, &bias];
        agrees(&all, |t| Ok(batch_norm(t[0], t[1], t[2], 0.1)?.0))?;
        agrees(&all, |t| Ok(batch_norm_relu(t[0], t[1], t[2], 0.1)?.0))?;
        let [x64, weight64, bias64] = all.map(|t| t.to_dtype(DType::F64));
        let (_, ours) = batch_norm(&x, &weight, &bias, 0.1)?;
        let (_, expected) = batch_norm(&x64?, &weight64?, &bias64?, 0.1)?;
        assert_eq!(ours.count, expected.count);
        for (ours, expected) in [(ours.mean, expected.mean), (ours.variance, expected.variance)] {
            let worst = (ours.to_dtype(DType::F64)? - expected)?
                .abs()?
                .max_all()?
                .to_scalar::<f64>()?;
            assert!(worst < 1e-6, "{worst}");
        }
    }
    Ok(())
}
