//! Prints how long a training step of BERT-small takes in each precision, in milliseconds: 4 layers of 512 with 8 heads,
//! 30522 tokens, a batch of 32 rows of 64 tokens, forward, backward, clipping and AdamW.
//!
//! `cargo run --release --example step_times`, with `CANDLE_NUM_THREADS=1` as workers have it. Precisions take turns, so that
//! the ratio holds where the machine's mood does not; the name of one as argument leaves the other out, for a profiler.

use candle_core::{Device, Tensor};
use orchestrate_kernels::{ProductPrecision, cross_entropy, gradients};
use orchestrate_ml::batch::Batch;
use orchestrate_ml::device::{on_pool, prepare_process};
use orchestrate_ml::error::Result;
use orchestrate_ml::masks::Masks;
use orchestrate_ml::models::{Input, Model, ModelSpec};
use orchestrate_ml::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use orchestrate_ml::parameters::Parameters;
use orchestrate_ml::pass::Pass;
use orchestrate_ml::quantize::observer::Ranges;
use std::io::Write;
use std::time::Instant;

const PRECISIONS: [(&str, ProductPrecision); 3] = [
    ("f32", ProductPrecision::F32),
    ("bf16", ProductPrecision::Bf16),
    ("bf16-amx", ProductPrecision::Bf16Amx),
];
const ROUNDS: usize = 12;
const ROWS: usize = 32;
const TOKENS: usize = 64;
const VOCABULARY: usize = 30522;

/// A model with all that it is trained with.
struct Trainee {
    model: Box<dyn Model>,
    optimizer: Optimizer,
    batch: Batch,
    labels: Tensor,
}

impl Trainee {
    fn new() -> Result<Self> {
        let spec = ModelSpec::Bert {
            layers: 4,
            hidden: 512,
            heads: 8,
            intermediate: None,
            max_positions: 512,
        };
        let input = Input::Text {
            max_length: TOKENS,
            vocab_size: VOCABULARY,
        };
        let mut parameters = Parameters::create(1, &Device::Cpu);
        let model = spec.resolve(&input)?.build(&mut parameters, 2)?;
        let settings = OptimizerSettings {
            kind: OptimizerKind::Adamw,
            momentum: 0.0,
            weight_decay: 0.01,
            gradient_clip: 1.0,
        };
        let ids: Vec<u32> = (0..ROWS * TOKENS).map(|i| (i * 7919 % VOCABULARY) as u32).collect();
        let rows: Vec<&[u32]> = ids.chunks(TOKENS).collect();
        Ok(Self {
            model,
            optimizer: Optimizer::new(settings, parameters.variables(), &Masks::new())?,
            batch: Batch::of_tokens(&rows, 0, &Device::Cpu)?,
            labels: Tensor::from_iter((0..ROWS as u32).map(|i| i % 2), &Device::Cpu)?,
        })
    }

    /// Milliseconds of one step.
    fn step(&mut self, precision: ProductPrecision, step: u64) -> Result<f64> {
        let start = Instant::now();
        let pass = Pass::training(0.1, 1, step, Ranges::Fixed).with_precision(precision);
        let logits = self.model.forward(&self.batch, &pass)?;
        let gradients = gradients(&cross_entropy(&logits, &self.labels, 0.0)?)?;
        self.optimizer.step(gradients, 1e-4)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

fn measure() -> Result<[Vec<f64>; 3]> {
    let mut trainee = Trainee::new()?;
    let mut times = [const { Vec::new() }; 3];
    let only = std::env::args().nth(1);
    for round in 0..ROUNDS {
        for (times, (name, precision)) in times.iter_mut().zip(PRECISIONS) {
            if only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            times.push(trainee.step(precision, round as u64)?);
        }
    }
    Ok(times)
}

fn main() -> Result<()> {
    prepare_process();
    let times = on_pool(measure)?;
    for ((name, _), mut times) in PRECISIONS.into_iter().zip(times) {
        if times.is_empty() {
            continue;
        }
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let line = format!("{name:<5} least {least:7.1} ms, median {median:7.1} ms");
        writeln!(std::io::stdout(), "{line}").map_err(candle_core::Error::from)?;
    }
    Ok(())
}
