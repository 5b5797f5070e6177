//! Every op over a batch of nothing, forward and backward: nothing of the right shape comes out, and the gradients of
//! parameters are zeros.

use crate::precision::ProductPrecision::F32;
use crate::testing::{DROPOUT, empty_batch, sample};
use crate::{
    ActivationQuantizer, AdamWStep, Affine, Codebook, MovingRows, Projections, Queries, RowGradient, SgdStep,
    adamw_step, adamw_step_of_rows, add_norm, add_relu, attention, batch_norm, batch_norm_relu, conv2d, cross_entropy,
    distillation_loss, dropout, embedding, embedding_norm, fake_quantize_by_codebook, fake_quantize_per_channel,
    fake_quantize_per_tensor, feed_forward, gelu, global_average_pool, layer_norm, linear, max_pool2d, relu,
    self_attention, sgd_step, softmax_last_dim, symmetric_scales, tanh,
};
use candle_core::{DType, Device, Result, Tensor};

fn affine(weight: &Tensor, bias: &Tensor) -> Affine {
    Affine {
        weight: weight.clone(),
        bias: bias.clone(),
    }
}

#[test]
fn elementwise() -> Result<()> {
    let (x, y) = (sample(&[0, 5], 1), sample(&[0, 5], 2));
    assert_eq!(empty_batch(&[&x], |t| gelu(t[0]))?, [0, 5]);
    assert_eq!(empty_batch(&[&x], |t| relu(t[0]))?, [0, 5]);
    assert_eq!(empty_batch(&[&x], |t| tanh(t[0]))?, [0, 5]);
    assert_eq!(empty_batch(&[&x], |t| dropout(t[0], DROPOUT))?, [0, 5]);
    assert_eq!(empty_batch(&[&x, &y], |t| add_relu(t[0], t[1]))?, [0, 5]);
    Ok(())
}

#[test]
fn rows() -> Result<()> {
    let (x, y) = (sample(&[0, 5], 1), sample(&[0, 5], 2));
    let (weight, bias) = (sample(&[5], 3), sample(&[5], 4));
    assert_eq!(empty_batch(&[&x], |t| softmax_last_dim(t[0]))?, [0, 5]);
    let norm = empty_batch(&[&x, &weight, &bias], |t| layer_norm(t[0], t[1], t[2], 1e-5))?;
    assert_eq!(norm, [0, 5]);
    let sum = empty_batch(&[&x, &y, &weight, &bias], |t| {
        add_norm(t[0], t[1], Some(DROPOUT), t[2], t[3], 1e-5)
    })?;
    assert_eq!(sum, [0, 5]);
    let none = Tensor::zeros((0, 3), DType::U32, &Device::Cpu)?;
    let (table, places) = (sample(&[4, 5], 5), sample(&[3, 5], 6));
    let words = empty_batch(&[&table, &places, &weight, &bias], |t| {
        embedding_norm(t[0], &none, t[1], t[2], t[3], 1e-5)
    })?;
    assert_eq!(words, [0, 3, 5]);
    Ok(())
}

#[test]
fn losses() -> Result<()> {
    let (x, y) = (sample(&[0, 5], 1), sample(&[0, 5], 2));
    let none = Tensor::zeros(0, DType::U32, &Device::Cpu)?;
    assert_eq!(empty_batch(&[&x], |t| cross_entropy(t[0], &none, 0.1))?, [0; 0]);
    assert_eq!(empty_batch(&[&x], |t| distillation_loss(t[0], &y, 2.0))?, [0; 0]);
    assert_eq!(distillation_loss(&x, &y, 2.0)?.to_scalar::<f32>()?, 0.0);
    Ok(())
}

#[test]
fn tables() -> Result<()> {
    let none = Tensor::zeros(0, DType::U32, &Device::Cpu)?;
    assert_eq!(empty_batch(&[&sample(&[4, 3], 1)], |t| embedding(t[0], &none))?, [0, 3]);
    Ok(())
}

#[test]
fn quantization() -> Result<()> {
    let quantizer = ActivationQuantizer {
        scale: 0.1,
        zero_point: 7,
    };
    for dims in [[0, 5], [5, 0]] {
        let x = sample(&dims, 1);
        assert_eq!(empty_batch(&[&x], |t| fake_quantize_per_tensor(t[0], quantizer))?, dims);
        let scales = Tensor::ones(dims[0], DType::F32, &Device::Cpu)?;
        let through = empty_batch(&[&x], |t| fake_quantize_per_channel(t[0], &scales, 8))?;
        assert_eq!(through, dims);
        let codebook = Codebook::fit(&x, &scales, 2)?;
        assert_eq!(codebook.levels(), [0; 4]);
        let through = empty_batch(&[&x], |t| fake_quantize_by_codebook(t[0], &scales, &codebook))?;
        assert_eq!(through, dims);
    }
    assert_eq!(symmetric_scales(&sample(&[0, 5], 1), 8)?.dims(), [0]);
    assert_eq!(symmetric_scales(&sample(&[3, 0], 1), 8)?.to_vec1::<f32>()?, [1.0; 3]);
    Ok(())
}

#[test]
fn products() -> Result<()> {
    let (x, weight, bias) = (sample(&[0, 3], 1), sample(&[4, 3], 2), sample(&[4], 3));
    let (back, last) = (sample(&[2, 4], 4), sample(&[2], 5));
    let linear = empty_batch(&[&x, &weight, &bias], |t| linear(t[0], t[1], Some(t[2]), F32))?;
    assert_eq!(linear, [0, 4]);
    let fed = empty_batch(&[&x, &weight, &bias, &back, &last], |t| {
        feed_forward(t[0], &affine(t[1], t[2]), &affine(t[3], t[4]), F32)
    })?;
    assert_eq!(fed, [0, 2]);
    Ok(())
}

#[test]
fn heads() -> Result<()> {
    let qkv = [1, 2, 3].map(|seed| sample(&[0, 4, 6], seed));
    for dropout in [None, Some(DROPOUT)] {
        let attended = empty_batch(&qkv.each_ref(), |t| attention(t[0], t[1], t[2], None, 2, dropout, F32))?;
        assert_eq!(attended, [0, 4, 6]);
    }
    let (weight, bias) = (sample(&[6, 6], 4), sample(&[6], 5));
    for (queries, count) in [(Queries::All, 4), (Queries::First, 1)] {
        let attended = empty_batch(&[&qkv[0], &weight, &bias], |t| {
            let [query, key, value, output] = [(); 4].map(|()| affine(t[1], t[2]));
            let projections = Projections {
                query,
                key,
                value,
                output,
            };
            self_attention(t[0], &projections, None, 2, queries, Some(DROPOUT), F32)
        })?;
        assert_eq!(attended, [0, count, 6]);
    }
    Ok(())
}

#[test]
fn images() -> Result<()> {
    let x = sample(&[0, 3, 9, 7], 1);
    let (weight, bias) = (sample(&[3], 2), sample(&[3], 3));
    assert_eq!(empty_batch(&[&x], |t| global_average_pool(t[0]))?, [0, 3]);
    assert_eq!(empty_batch(&[&x], |t| max_pool2d(t[0], 2, 2))?, [0, 3, 4, 3]);
    let all = [&x, &weight, &bias];
    assert_eq!(
        empty_batch(&all, |t| Ok(batch_norm(t[0], t[1], t[2], 0.1)?.0))?,
        [0, 3, 9, 7]
    );
    assert_eq!(
        empty_batch(&all, |t| Ok(batch_norm_relu(t[0], t[1], t[2], 0.1)?.0))?,
        [0, 3, 9, 7]
    );
    let bias = sample(&[5], 4);
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1)] {
        let weight = sample(&[5, 3, kernel, kernel], 5);
        let convolved = empty_batch(&[&x, &weight, &bias], |t| {
            conv2d(t[0], t[1], Some(t[2]), stride, kernel / 2, F32)
        })?;
        assert_eq!(convolved, [0, 5, 9usize.div_ceil(stride), 7usize.div_ceil(stride)]);
    }
    Ok(())
}

#[test]
fn optimizer_steps() -> Result<()> {
    let [p, g, m, v, mask] = [1, 2, 3, 4, 5].map(|seed| sample(&[0, 3], seed));
    let adamw = AdamWStep {
        lr: 0.01,
        gradient_factor: 0.7,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
    };
    let sgd = SgdStep {
        lr: 0.1,
        gradient_factor: 0.7,
        momentum: 0.9,
        weight_decay: 0.01,
        nesterov: true,
    };
    for dtype in [DType::F32, DType::F64] {
        let [p, g, m, v, mask] = [&p, &g, &m, &v, &mask].map(|t| t.to_dtype(dtype).and_then(|t| t.copy()));
        let (p, g, m, v, mask) = (p?, g?, m?, v?, mask?);
        for mask in [None, Some(&mask)] {
            adamw_step(&p, &g, &m, &v, mask, &adamw)?;
            sgd_step(&p, &g, &m, mask, &sgd)?;
        }
        assert_eq!(p.dims(), [0, 3]);
    }
    for (rows, width) in [(0, 3), (3, 2)] {
        let p = sample(&[rows, width], 1);
        let (m, v) = (p.zeros_like()?, p.zeros_like()?);
        let mut moving = MovingRows::of(&m, &v)?;
        adamw_step_of_rows(
            &p,
            &RowGradient::scatter(&[], &[], rows, width),
            &m,
            &v,
            &mut moving,
            &adamw,
        )?;
        assert_eq!(p.dims(), [rows, width]);
    }
    Ok(())
}
