//! Training on the fused kernels in f32 has the losses of the same training on plain candle ops in f64, which is what the
//! kernels are composed of where no fused one runs. In a build for an accelerator, training there has them too.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use candle_core::{DType, Device, Tensor};
use orchestrate_kernels::{cross_entropy, gradients};
use orchestrate_ml::batch::{Batch, BatchInput};
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::masks::Masks;
use orchestrate_ml::models::{Architecture, Input, ModelSpec};
use orchestrate_ml::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use orchestrate_ml::parameters::{Parameters, Use};
use orchestrate_ml::pass::Pass;
use orchestrate_ml::quantize::observer::Ranges;
use std::collections::BTreeMap;

const STEPS: usize = 5;
const CLASSES: usize = 3;

/// Largest relative difference of a step's losses.
const TOLERANCE: f64 = 1e-5;

/// The loss of each step from `tensors` on, all computed in `dtype` on `device`. Nothing is dropped.
fn losses(
    architecture: &Architecture,
    tensors: &BTreeMap<String, Tensor>,
    batches: &[(Batch, Tensor)],
    kind: OptimizerKind,
    dtype: DType,
    device: &Device,
) -> Vec<f64> {
    let there = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap().to_device(device).unwrap();
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), there(tensor)));
    let mut parameters = Parameters::from_tensors(tensors.collect(), device, Use::Train);
    let model = architecture.build(&mut parameters, CLASSES).unwrap();
    let settings = OptimizerSettings {
        kind,
        momentum: 0.9,
        weight_decay: 0.01,
        gradient_clip: 0.0,
    };
    let mut optimizer = Optimizer::new(settings, parameters.variables(), &Masks::new()).unwrap();
    let mut losses = Vec::new();
    for (step, (batch, labels)) in batches.iter().enumerate() {
        let input = match &batch.input {
            BatchInput::Text { ids, mask } => BatchInput::Text {
                ids: ids.clone(),
                mask: mask.as_ref().map(|mask| mask.to_device(device).unwrap()),
            },
            BatchInput::Images(images) => BatchInput::Images(there(images)),
        };
        let batch = Batch { input, len: batch.len };
        let logits = model
            .forward(&batch, &Pass::training(0.0, 7, step as u64, Ranges::Fixed))
            .unwrap();
        assert_eq!(logits.dtype(), dtype);
        let loss = cross_entropy(&logits, labels, 0.1).unwrap();
        losses.push(loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap());
        let gradients = gradients(&loss).unwrap();
        assert!(optimizer.without_gradient(&gradients).is_empty());
        assert!(optimizer.step(gradients, 1e-3).unwrap() > 0.0);
    }
    losses
}

/// The CPU, and the accelerator that this build is for, which the machine must have then.
fn devices() -> Vec<Device> {
    let mut choices = vec![DeviceChoice::Cpu];
    if cfg!(feature = "cuda") {
        choices.push(DeviceChoice::Cuda);
    } else if cfg!(feature = "metal") {
        choices.push(DeviceChoice::Metal);
    }
    choices.into_iter().map(|choice| choice.open().unwrap()).collect()
}

fn check(spec: &ModelSpec, input: &Input, batches: &[(Batch, Tensor)]) {
    let architecture = spec.resolve(input).unwrap();
    let mut drawn = Parameters::create(7, &Device::Cpu);
    architecture.build(&mut drawn, CLASSES).unwrap();
    let tensors = drawn.floats();
    assert_eq!(batches.len(), STEPS);
    for kind in [OptimizerKind::Adamw, OptimizerKind::Sgd] {
        let losses = |dtype, device: &Device| losses(&architecture, &tensors, batches, kind, dtype, device);
        let expected = losses(DType::F64, &Device::Cpu);
        for device in devices() {
            let got = losses(DType::F32, &device);
            assert!(got[0] != got[STEPS - 1], "{kind:?} does not move {spec:?}");
            for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let difference = (got - expected).abs() / expected.abs();
                assert!(
                    difference <= TOLERANCE,
                    "{spec:?} with {kind:?} on {device:?}, step {step}: {got} is {difference:e} from {expected}"
                );
            }
        }
    }
}

fn labels(rows: usize, step: usize) -> Tensor {
    let labels = (0..rows).map(|row| ((row * 2 + step) % CLASSES) as u32);
    Tensor::from_iter(labels, &Device::Cpu).unwrap()
}

fn check_images(spec: &ModelSpec) {
    const ROWS: usize = 9;
    let (width, height) = (16, 18);
    let input = Input::Image {
        width,
        height,
        channels: 1,
        mean: 0.45,
        std: 0.3,
    };
    let batches: Vec<(Batch, Tensor)> = (0..STEPS)
        .map(|step| {
            let pixel = |i: usize| ((i * i * 31 + i * 7 + step * 53) % 251) as u8;
            let pixels: Vec<u8> = (0..ROWS * width * height).map(pixel).collect();
            (
                Batch::of_pixels(&pixels, &input, &Device::Cpu).unwrap(),
                labels(ROWS, step),
            )
        })
        .collect();
    check(spec, &input, &batches);
}

#[test]
fn a_bert() {
    let input = Input::Text {
        max_length: 12,
        vocab_size: 40,
    };
    let spec = ModelSpec::Bert {
        layers: 2,
        hidden: 24,
        heads: 3,
        intermediate: Some(40),
        max_positions: 12,
    };
    let batches: Vec<(Batch, Tensor)> = (0..STEPS)
        .map(|step| {
            let row = |row: usize| -> Vec<u32> {
                (0..3 + (row * 5 + step) % 10)
                    .map(|i| ((row * 17 + i * 11 + step) % 40) as u32)
                    .collect()
            };
            let rows: Vec<Vec<u32>> = (0..7).map(row).collect();
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            (Batch::of_tokens(&rows, 0, &Device::Cpu).unwrap(), labels(7, step))
        })
        .collect();
    check(&spec, &input, &batches);
}

#[test]
fn convolutions() {
    check_images(&ModelSpec::Lenet5 {
        channels: vec![5, 9],
        hidden: 33,
    });
}

#[test]
fn a_residual_network() {
    check_images(&ModelSpec::Resnet8 {
        channels: vec![5, 9, 17],
    });
}
