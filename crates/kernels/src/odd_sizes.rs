//! Every op with sizes that are no multiple of any vector, tile or task: the same bits on all instruction sets and for any
//! number of threads.

use crate::testing::{DROPOUT, SIZES, bits, same_bits_everywhere, same_everywhere, sample};
use crate::{
    ActivationQuantizer, AdamWStep, Affine, Codebook, MovingRows, PackedLinear, ProductPrecision, Projections, Queries,
    RowGradient, SgdStep, adamw_step, adamw_step_of_rows, add_norm, add_relu, all_finite, attention, batch_norm,
    batch_norm_relu, conv2d, cross_entropy, distillation_loss, dropout, embedding, embedding_norm,
    fake_quantize_by_codebook, fake_quantize_per_channel, fake_quantize_per_tensor, feed_forward, gelu,
    global_average_pool, layer_norm, linear, max_pool2d, min_max, quantize_per_channel, relu, scale_channels,
    self_attention, sgd_step, softmax_last_dim, squared_norm, symmetric_scales, tanh,
};
use candle_core::{DType, Device, Result, Tensor};

/// Each size with another one, so that all are met in both places.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    SIZES.into_iter().zip([65, 513, 1, 7, 17, 3, 63])
}

fn labels(rows: usize, classes: usize) -> Result<Tensor> {
    Tensor::from_iter((0..rows).map(|row| (row % classes) as u32), &Device::Cpu)
}

#[test]
fn elementwise() -> Result<()> {
    for (rows, width) in pairs() {
        let (x, y) = (sample(&[rows, width], 1), sample(&[rows, width], 2));
        same_bits_everywhere(&[&x], |t| gelu(t[0]))?;
        same_bits_everywhere(&[&x], |t| relu(t[0]))?;
        same_bits_everywhere(&[&x], |t| tanh(t[0]))?;
        same_bits_everywhere(&[&x], |t| dropout(t[0], DROPOUT))?;
        same_bits_everywhere(&[&x, &y], |t| add_relu(t[0], t[1]))?;
    }
    Ok(())
}

#[test]
fn rows() -> Result<()> {
    for (rows, width) in pairs() {
        let (x, y) = (sample(&[rows, width], 1), sample(&[rows, width], 2));
        let (weight, bias) = (sample(&[width], 3), sample(&[width], 4));
        same_bits_everywhere(&[&x], |t| softmax_last_dim(t[0]))?;
        same_bits_everywhere(&[&x, &weight, &bias], |t| layer_norm(t[0], t[1], t[2], 1e-5))?;
        same_bits_everywhere(&[&x, &y, &weight, &bias], |t| {
            add_norm(t[0], t[1], Some(DROPOUT), t[2], t[3], 1e-5)
        })?;
        let labels = labels(rows, width)?;
        same_bits_everywhere(&[&x], |t| cross_entropy(t[0], &labels, 0.1))?;
        same_bits_everywhere(&[&x], |t| distillation_loss(t[0], &y, 3.0))?;
        let ids = Tensor::from_iter((0..2 * rows).map(|i| (i * 7 % rows) as u32), &Device::Cpu)?;
        same_bits_everywhere(&[&x], |t| embedding(t[0], &ids))?;
        let (ids, places) = (ids.reshape((rows, 2))?, sample(&[2, width], 5));
        same_bits_everywhere(&[&x, &places, &weight, &bias], |t| {
            embedding_norm(t[0], &ids, t[1], t[2], t[3], 1e-5)
        })?;
        same_bits_everywhere(&[&x], |t| {
            fake_quantize_per_channel(t[0], &symmetric_scales(t[0], 8)?, 8)
        })?;
        same_bits_everywhere(&[&x], |t| {
            let scales = symmetric_scales(t[0], 8)?;
            fake_quantize_by_codebook(t[0], &scales, &Codebook::fit(t[0], &scales, 4)?)
        })?;
        same_everywhere(|| {
            let scales = symmetric_scales(&x, 8)?;
            Ok((bits(&scales)?, quantize_per_channel(&x, &scales, 8)?))
        })?;
        let quantizer = ActivationQuantizer {
            scale: 0.013,
            zero_point: 120,
        };
        same_bits_everywhere(&[&x], |t| fake_quantize_per_tensor(t[0], quantizer))?;
    }
    Ok(())
}

#[test]
fn products() -> Result<()> {
    for ((rows, inputs), outputs) in pairs().zip([17, 63, 65, 513, 1, 7, 3]) {
        let (x, weight, bias) = (
            sample(&[rows, inputs], 1),
            sample(&[outputs, inputs], 2),
            sample(&[outputs], 3),
        );
        let (back, last) = (sample(&[inputs, outputs], 4), sample(&[inputs], 5));
        for precision in ProductPrecision::ALL {
            same_bits_everywhere(&[&x, &weight, &bias], |t| linear(t[0], t[1], Some(t[2]), precision))?;
            same_bits_everywhere(&[&x, &weight, &bias, &back, &last], |t| {
                let affine = |weight: &Tensor, bias: &Tensor| Affine {
                    weight: weight.clone(),
                    bias: bias.clone(),
                };
                feed_forward(t[0], &affine(t[1], t[2]), &affine(t[3], t[4]), precision)
            })?;
        }
    }
    Ok(())
}

#[test]
fn packed_products() -> Result<()> {
    for ((rows, inputs), outputs) in pairs().zip([17, 63, 65, 513, 1, 7, 3]) {
        let (x, weight, bias) = (
            sample(&[rows, inputs], 1),
            sample(&[outputs, inputs], 2),
            sample(&[outputs], 3),
        );
        for precision in ProductPrecision::ALL {
            same_everywhere(|| bits(&PackedLinear::new(&weight, &bias)?.forward(&x, precision)?))?;
        }
    }
    Ok(())
}

#[test]
fn whole_tensors() -> Result<()> {
    let of_pairs = pairs().map(|(rows, width)| rows * width);
    for count in of_pairs.chain(SIZES) {
        let x = sample(&[count], 1);
        let of_all = || Ok((bits_of_range(&x)?, squared_norm(&x)?.to_bits(), all_finite(&x)?));
        same_everywhere(of_all)?;
    }
    Ok(())
}

fn bits_of_range(x: &Tensor) -> Result<[u32; 2]> {
    let (low, high) = min_max(x)?;
    Ok([low.to_bits(), high.to_bits()])
}

#[test]
fn optimizer_steps() -> Result<()> {
    let adamw = |step| AdamWStep {
        lr: 0.01,
        gradient_factor: 0.7,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step,
    };
    let of_pairs = pairs().map(|(rows, width)| rows * width);
    for count in of_pairs.chain(SIZES) {
        let mask = sample(&[count], 4).ge(0.0)?.to_dtype(DType::F32)?;
        let gradient = |step: u64| sample(&[count], 10 + step);
        same_everywhere(|| {
            let (p, m, v) = (sample(&[count], 1), sample(&[count], 2), sample(&[count], 3).abs()?);
            for step in 1..=3 {
                adamw_step(&p, &gradient(step), &m, &v, Some(&mask), &adamw(step))?;
            }
            Ok([bits(&p)?, bits(&m)?, bits(&v)?])
        })?;
        let (rows, width) = (count.div_ceil(7), 7);
        same_everywhere(|| {
            let p = sample(&[rows, width], 1);
            let (m, v) = (p.zeros_like()?, p.zeros_like()?);
            let mut moving = MovingRows::of(&m, &v)?;
            for step in 1..=3 {
                let ids: Vec<u32> = (0..5).map(|i| ((i + step) * i % rows as u64) as u32).collect();
                let values = sample(&[5, width], 10 + step).flatten_all()?.to_vec1()?;
                let gradient = RowGradient::scatter(&ids, &values, rows, width);
                adamw_step_of_rows(&p, &gradient, &m, &v, &mut moving, &adamw(step))?;
            }
            Ok([bits(&p)?, bits(&m)?, bits(&v)?])
        })?;
        for nesterov in [false, true] {
            let cfg = SgdStep {
                lr: 0.1,
                gradient_factor: 0.7,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov,
            };
            same_everywhere(|| {
                let (p, velocity) = (sample(&[count], 1), sample(&[count], 2));
                for step in 1..=3 {
                    sgd_step(&p, &gradient(step), &velocity, Some(&mask), &cfg)?;
                }
                Ok([bits(&p)?, bits(&velocity)?])
            })?;
        }
    }
    Ok(())
}

#[test]
fn heads() -> Result<()> {
    for (length, depth) in [(1, 65), (3, 63), (7, 17), (17, 7), (63, 3), (65, 1), (513, 1)] {
        let qkv = [1, 2, 3].map(|seed| sample(&[2, length, 2 * depth], seed));
        let (weight, bias) = (sample(&[2 * depth, 2 * depth], 4), sample(&[2 * depth], 5));
        for precision in ProductPrecision::ALL {
            same_bits_everywhere(&qkv.each_ref(), |t| {
                attention(t[0], t[1], t[2], None, 2, Some(DROPOUT), precision)
            })?;
            for queries in [Queries::All, Queries::First] {
                same_bits_everywhere(&[&qkv[0], &weight, &bias], |t| {
                    let affine = Affine {
                        weight: t[1].clone(),
                        bias: t[2].clone(),
                    };
                    let projections = Projections {
                        query: affine.clone(),
                        key: affine.clone(),
                        value: affine.clone(),
                        output: affine,
                    };
                    self_attention(t[0], &projections, None, 2, queries, Some(DROPOUT), precision)
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn images() -> Result<()> {
    for (i, (channels, side)) in [(1, 65), (3, 17), (7, 7), (17, 3), (63, 3), (65, 1), (513, 1)]
        .into_iter()
        .enumerate()
    {
        let x = sample(&[3, channels, side, side], 1);
        let (weight, bias) = (sample(&[channels], 2), sample(&[channels], 3));
        same_bits_everywhere(&[&x], |t| global_average_pool(t[0]))?;
        same_everywhere(|| bits(&scale_channels(&x, &weight, &bias)?))?;
        same_bits_everywhere(&[&x], |t| max_pool2d(t[0], side.min(3), 2))?;
        same_bits_everywhere(&[&x, &weight, &bias], |t| Ok(batch_norm(t[0], t[1], t[2], 1e-5)?.0))?;
        same_bits_everywhere(
            &[&x, &weight, &bias],
            |t| Ok(batch_norm_relu(t[0], t[1], t[2], 1e-5)?.0),
        )?;
        let outputs = SIZES[i].min(65);
        let bias = sample(&[outputs], 4);
        for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (1, 1, 0)] {
            let weight = sample(&[outputs, channels, kernel, kernel], 5);
            for precision in ProductPrecision::ALL {
                same_bits_everywhere(&[&x, &weight, &bias], |t| {
                    conv2d(t[0], t[1], Some(t[2]), stride, padding, precision)
                })?;
            }
        }
    }
    Ok(())
}
