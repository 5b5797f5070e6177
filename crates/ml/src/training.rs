//! The training loop: one function, [`fit`], for every step that trains.
//!
//! Its result depends on the initial parameters, the data, the settings and the seed alone: batches and dropout come from
//! streams keyed by epoch and step, and parameters are visited in the order of their names. So it may go on from a
//! checkpoint after any step.

use crate::artifact::LoadedModel;
use crate::batch::{EpochOrder, Rows};
use crate::checkpoint::{History, Keeper, State};
use crate::context::Context;
use crate::course::{Course, Moment};
use crate::distillation::Targets;
use crate::error::{Error, Result};
use crate::evaluation::highest;
use crate::numerics;
use crate::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use crate::pass::Pass;
use crate::progress::Progress;
use crate::quantize::observer::Ranges;
use crate::schedule::Schedule;
use candle_core::Tensor;
pub use orchestrate_kernels::ProductPrecision;
use orchestrate_kernels::{Gradients, cross_entropy, gradients};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Settings of one training, as a recipe's step gives them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Passes over the training rows.
    pub epochs: usize,
    /// Stop after this many optimizer steps, if sooner.
    pub max_steps: Option<usize>,
    /// Rows a step.
    pub batch_size: usize,
    /// Peak rate.
    pub learning_rate: f64,
    /// Update rule.
    pub optimizer: OptimizerKind,
    /// Of SGD.
    pub momentum: f64,
    /// Decoupled for AdamW, added to the gradient for SGD.
    pub weight_decay: f64,
    /// Of the learning rate.
    pub schedule: Schedule,
    /// Fraction of the steps over which the rate rises, of one epoch's under [`Schedule::WarmupStableDecay`].
    pub warmup: f64,
    /// Fraction of the steps over which the rate falls under [`Schedule::WarmupStableDecay`]; 0 under the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lr_decay: f64,
    /// Largest global gradient norm; 0 for none.
    pub gradient_clip: f64,
    /// Mass that the hard targets give to the other classes (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
    /// Share of activations dropped.
    pub dropout: f64,
    /// Whether rows of like length share a batch.
    pub bucket_by_length: bool,
    /// Parts that a batch is cut into, one after the other, whose gradients are added up: the memory of a smaller batch.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub gradient_accumulation: usize,
    /// Whether the equal parts of a deep model keep their inputs alone and are run once more in the backward pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// Of matrix products, forward and backward; parameters, sums and all else are f32.
    #[serde(
        default,
        skip_serializing_if = "numerics::is_default",
        with = "numerics::PrecisionName"
    )]
    pub precision: ProductPrecision,
}

fn one() -> usize {
    1
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

// Serde hands over a reference.
fn is_one(value: &usize) -> bool {
    *value == 1
}

impl Training {
    /// What stands for no training, whatever settings one would have had.
    pub const NONE: Self = Self {
        epochs: 0,
        max_steps: None,
        batch_size: 1,
        learning_rate: 0.0,
        optimizer: OptimizerKind::Adamw,
        momentum: 0.0,
        weight_decay: 0.0,
        schedule: Schedule::Constant,
        warmup: 0.0,
        lr_decay: 0.0,
        gradient_clip: 0.0,
        label_smoothing: 0.0,
        dropout: 0.0,
        bucket_by_length: false,
        gradient_accumulation: 1,
        gradient_checkpointing: false,
        precision: ProductPrecision::F32,
    };

    fn order(&self, seed: u64) -> EpochOrder {
        EpochOrder {
            batch_size: self.batch_size,
            by_length: self.bucket_by_length,
            seed,
        }
    }

    fn optimizer_settings(&self) -> OptimizerSettings {
        OptimizerSettings {
            kind: self.optimizer,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            gradient_clip: self.gradient_clip,
        }
    }
}

/// What a training did.
#[derive(Debug, Clone, Copy)]
pub struct Fitted {
    /// Optimizer steps.
    pub steps: usize,
    /// How many of them a checkpoint had done.
    pub resumed_after: usize,
    /// Mean loss of the last tenth of the steps.
    pub final_loss: f64,
}

/// Trains `trainee` in place on `rows`, towards the labels and, if given, towards a teacher's `targets`.
///
/// # Errors
/// [`Error::NotFinite`] if the loss or the gradient stops being a number, [`Error::NoGradient`] if a parameter is not
/// reached, [`Error::Unsuited`] if there are no rows, [`Error::Stopped`] if it was asked to stop and can go on later.
pub fn fit(
    trainee: &LoadedModel,
    rows: &Rows,
    targets: Option<&Targets>,
    settings: &Training,
    context: &Context,
) -> Result<Fitted> {
    if rows.is_empty() {
        return Err(Error::Unsuited("there are no training rows".into()));
    }
    warn_of_idle_checkpointing(trainee, settings);
    numerics::warn_of_emulation(settings.precision, context.device);
    let course = Course::new(settings, rows.len(), !trainee.parameters.observers().is_empty());
    let optimizer = Optimizer::new(
        settings.optimizer_settings(),
        trainee.parameters.variables(),
        &trainee.masks,
    )?;
    let mut state = State {
        trainee,
        optimizer,
        history: History::default(),
    };
    let mut keeper = Keeper::new(context.interruption, &course);
    let first = keeper.resume(&mut state);
    let batch_loss = BatchLoss {
        trainee,
        rows,
        targets,
        settings,
        seed: context.seed,
    };
    let (started, mut rows_seen) = (Instant::now(), 0);
    let batches = (0..settings.epochs).flat_map(|epoch| rows.epoch(&settings.order(context.seed), epoch));
    for (step, indices) in batches.take(course.total).enumerate().skip(first) {
        batch_loss.step(&mut state, &indices, step, course.moment(step), step == first)?;
        rows_seen += indices.len();
        (context.watch)(&Progress {
            done: step + 1,
            total: course.total,
            loss: Some(recent_mean(&state.history.losses, 20)),
            accuracy: Some(recent_mean(&state.history.accuracies, 20)),
            rows_per_second: Some(rows_seen as f64 / started.elapsed().as_secs_f64()),
        });
        keeper.after(step, &state)?;
    }
    let losses = &state.history.losses;
    Ok(Fitted {
        steps: losses.len(),
        resumed_after: first,
        final_loss: recent_mean(losses, losses.len().div_ceil(10)),
    })
}

/// What one batch taught.
struct Learnt {
    /// Mean over its rows.
    loss: f64,
    /// Share of its rows that were predicted right.
    accuracy: f64,
    gradients: Gradients,
}

/// What the loss of a batch depends on beside its rows.
struct BatchLoss<'a> {
    trainee: &'a LoadedModel,
    rows: &'a Rows<'a>,
    targets: Option<&'a Targets>,
    settings: &'a Training,
    seed: u64,
}

impl BatchLoss<'_> {
    /// One optimizer step on the rows `indices`.
    fn step(&self, state: &mut State, indices: &[usize], step: usize, moment: Moment, is_first: bool) -> Result<()> {
        let Moment { learning_rate, ranges } = moment;
        let not_finite = |what: &str| Error::NotFinite {
            what: what.into(),
            step,
            learning_rate,
        };
        let learnt = self.learn(indices, step, ranges)?;
        if !learnt.loss.is_finite() {
            return Err(not_finite("the loss"));
        }
        if is_first {
            require_gradients(&state.optimizer, &learnt.gradients)?;
        }
        if !state.optimizer.step(learnt.gradients, learning_rate)?.is_finite() {
            return Err(not_finite("the gradient"));
        }
        state.history.losses.push(learnt.loss);
        state.history.accuracies.push(learnt.accuracy);
        Ok(())
    }

    /// The mean loss of the rows `indices` and its gradients, computed in as many parts as the settings say.
    fn learn(&self, indices: &[usize], step: usize, ranges: Ranges) -> Result<Learnt> {
        let parts = self.settings.gradient_accumulation.clamp(1, indices.len().max(1));
        let (mut sum, mut right, mut all) = (0.0, 0, Gradients::default());
        for (part, chosen) in indices.chunks(indices.len().div_ceil(parts).max(1)).enumerate() {
            let draw = (step * self.settings.gradient_accumulation + part) as u64;
            let pass = Pass::training(self.settings.dropout as f32, self.seed, draw, ranges)
                .with_checkpoints(self.settings.gradient_checkpointing)
                .with_precision(self.settings.precision);
            let logits = self.trainee.model.forward(&self.rows.batch(chosen)?, &pass)?;
            right += self.right(&logits, chosen)?;
            let labels = self.rows.labels(chosen)?;
            let mut loss = objective(&logits, &labels, self.targets, chosen, self.settings.label_smoothing)?;
            if chosen.len() < indices.len() {
                loss = (loss * (chosen.len() as f64 / indices.len() as f64))?;
            }
            let value = f64::from(loss.to_scalar::<f32>()?);
            sum += value;
            if !value.is_finite() {
                break;
            }
            all.add(gradients(&loss)?)?;
        }
        Ok(Learnt {
            loss: sum,
            accuracy: right as f64 / indices.len().max(1) as f64,
            gradients: all,
        })
    }

    /// How many of the rows `chosen` the `logits` predict right.
    fn right(&self, logits: &Tensor, chosen: &[usize]) -> Result<usize> {
        let scores = logits.to_vec2::<f32>()?;
        let is_right = |(scores, row): &(&Vec<f32>, &usize)| highest(scores) == self.rows.label(**row) as usize;
        Ok(scores.iter().zip(chosen).filter(is_right).count())
    }
}

/// Hard-label cross entropy, mixed with the distance to the teacher's soft labels where there is a teacher.
fn objective(
    logits: &Tensor,
    labels: &Tensor,
    targets: Option<&Targets>,
    rows: &[usize],
    label_smoothing: f64,
) -> Result<Tensor> {
    match targets {
        None => Ok(cross_entropy(logits, labels, label_smoothing)?),
        Some(targets) => {
            let soft = targets.loss(logits, rows)?;
            if targets.alpha() >= 1.0 {
                return Ok(soft);
            }
            let hard = cross_entropy(logits, labels, label_smoothing)?;
            Ok(((soft * targets.alpha())? + (hard * (1.0 - targets.alpha()))?)?)
        }
    }
}

fn warn_of_idle_checkpointing(trainee: &LoadedModel, settings: &Training) {
    if settings.gradient_checkpointing && trainee.model.parts() < 2 {
        tracing::warn!(
            "gradient_checkpointing changes nothing: only the encoder layers of a bert model before its last two are run once more"
        );
    }
}

fn require_gradients(optimizer: &Optimizer, gradients: &Gradients) -> Result<()> {
    let missing = optimizer.without_gradient(gradients);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::NoGradient(missing))
    }
}

fn recent_mean(losses: &[f64], count: usize) -> f64 {
    let recent = &losses[losses.len().saturating_sub(count.max(1))..];
    recent.iter().sum::<f64>() / recent.len().max(1) as f64
}
