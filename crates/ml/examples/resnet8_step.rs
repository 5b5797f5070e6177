//! Prints the least and the median time of a training step of ResNet-8 with AdamW on 64 random images of 3×32×32, in
//! milliseconds: `cargo run --release --example resnet8_step -p orchestrate-ml`. It compares with nothing.

use candle_core::Device;
use orchestrate_kernels::{cross_entropy, gradients};
use orchestrate_ml::Result;
use orchestrate_ml::batch::Batch;
use orchestrate_ml::device::{on_pool, prepare_process};
use orchestrate_ml::masks::Masks;
use orchestrate_ml::models::{Input, ModelSpec};
use orchestrate_ml::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use orchestrate_ml::parameters::Parameters;
use orchestrate_ml::pass::Pass;
use orchestrate_ml::quantize::observer::Ranges;
use std::io::Write;
use std::time::Instant;

const ROWS: usize = 64;
const STEPS: usize = 40;

fn times() -> Result<Vec<f64>> {
    let input = Input::Image {
        width: 32,
        height: 32,
        channels: 3,
        mean: 0.5,
        std: 0.25,
    };
    let spec = ModelSpec::Resnet8 {
        channels: vec![16, 32, 64],
    };
    let mut parameters = Parameters::create(1, &Device::Cpu);
    let model = spec.resolve(&input)?.build(&mut parameters, 10)?;
    let settings = OptimizerSettings {
        kind: OptimizerKind::Adamw,
        momentum: 0.0,
        weight_decay: 0.01,
        gradient_clip: 1.0,
    };
    let mut optimizer = Optimizer::new(settings, parameters.variables(), &Masks::new())?;
    let pixels: Vec<u8> = (0..ROWS * 3 * 32 * 32).map(|i| (i * 7919 % 251) as u8).collect();
    let batch = Batch::of_pixels(&pixels, &input, &Device::Cpu)?;
    let labels = candle_core::Tensor::from_iter((0..ROWS as u32).map(|i| i % 10), &Device::Cpu)?;
    let mut times = Vec::with_capacity(STEPS);
    for step in 0..STEPS as u64 {
        let started = Instant::now();
        let logits = model.forward(&batch, &Pass::training(0.0, 1, step, Ranges::Fixed))?;
        let loss = cross_entropy(&logits, &labels, 0.0)?;
        optimizer.step(gradients(&loss)?, 1e-3)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn main() -> Result<()> {
    prepare_process();
    let times = on_pool(times)?;
    let (least, median) = (times[0], times[STEPS / 2]);
    writeln!(std::io::stdout(), "least {least:.1} ms, median {median:.1} ms").ok();
    Ok(())
}
