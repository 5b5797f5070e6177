//! Our side of a case: what it gives, so that a peer can be held against it, and how long it takes.
//!
//! Training is [`fit`] itself, timed from one step's report to the next; inference is what `orchestrate bench` times.

use super::Failure;
use super::cases::{Case, Work};
use super::prepare::{DISTILLATION, SEED, TRAINING, data};
use candle_core::Device;
use orchestrate_ml::artifact::{LoadedModel, ModelArtifact, files_of_folder};
use orchestrate_ml::batch::{Batch, Rows};
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::context::Context;
use orchestrate_ml::data::Prepared;
use orchestrate_ml::distillation::{Targets, write_teacher_logits};
use orchestrate_ml::parameters::Use;
use orchestrate_ml::pass::Pass;
use orchestrate_ml::progress::Progress;
use orchestrate_ml::training::{ProductPrecision, Training, fit};
use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

/// In which numbers a side computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Matrix products in bf16, on the CPU in the form that is fastest here.
    Bf16,
    /// Weights and activations in 8 bits.
    Int8,
    /// f32 throughout, with gradient checkpointing.
    Checkpointed,
}

impl Precision {
    /// The precision that the driver calls `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            "checkpointed" => Ok(Self::Checkpointed),
            unknown => Err(format!("there is no precision {unknown:?}")),
        }
    }

    fn training(self, device: &Device) -> Training {
        match self {
            Self::F32 | Self::Int8 => TRAINING,
            Self::Bf16 => Training {
                precision: if device.is_cpu() {
                    ProductPrecision::fastest_bf16().unwrap_or_default()
                } else {
                    ProductPrecision::Bf16
                },
                ..TRAINING
            },
            Self::Checkpointed => Training {
                gradient_checkpointing: true,
                ..TRAINING
            },
        }
    }
}

/// A case ready to run.
pub struct Side {
    case: Case,
    device: Device,
    training: Training,
    model: LoadedModel,
    teacher: Option<LoadedModel>,
    targets: Option<Targets>,
    data: Prepared,
    /// The first rows, as many as are a batch.
    batch: Batch,
}

impl Side {
    /// Loads the case that was prepared in `folder`, to run on `device`.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn open(case: Case, precision: Precision, folder: &Path, device: Device) -> Result<Self, Failure> {
        let load = |name: &str, purpose| -> Result<LoadedModel, Failure> {
            let files = files_of_folder(&folder.join(name))?;
            Ok(ModelArtifact::open(&files)?.load(&device, purpose)?)
        };
        let model = match (case.work, precision) {
            (Work::Infer, Precision::Int8) => load("int8", Use::Infer)?,
            (Work::Infer, Precision::F32 | Precision::Bf16 | Precision::Checkpointed) => load("model", Use::Infer)?,
            (Work::Train | Work::Distil, _) => load("model", Use::Train)?,
        };
        let data = data(&case)?;
        let all: Vec<usize> = (0..case.rows).collect();
        let batch = Rows::train(&data, &device).batch(&all)?;
        let (mut teacher, mut targets) = (None, None);
        if case.work == Work::Distil {
            let loaded = load("teacher", Use::Infer)?;
            let rows = Rows::train(&data, &device);
            write_teacher_logits(&loaded, &rows, case.classes, ProductPrecision::F32, folder, &|_| ())?;
            let files = files_of_folder(folder)?;
            targets = Some(Targets::read(&files, rows.len(), case.classes, DISTILLATION, &device)?);
            teacher = Some(loaded);
        }
        Ok(Self {
            training: precision.training(&device),
            case,
            device,
            model,
            teacher,
            targets,
            data,
            batch,
        })
    }

    /// Numbers that a peer must give as well: the logits, or the mean loss after one, two and three steps.
    ///
    /// # Errors
    /// If the work fails.
    pub fn check(&self) -> Result<Vec<f64>, Failure> {
        match self.case.work {
            Work::Infer => {
                let logits = self.model.model.forward(&self.batch, &Pass::inference())?;
                Ok(logits
                    .flatten_all()?
                    .to_vec1::<f32>()?
                    .into_iter()
                    .map(f64::from)
                    .collect())
            }
            Work::Train | Work::Distil => Ok(self.fit(3)?.into_iter().map(|(_, loss)| loss).collect()),
        }
    }

    /// Milliseconds of each of `count` runs, after `before` that are not counted.
    ///
    /// # Errors
    /// If the work fails, or `before` is 0.
    pub fn run(&self, count: usize, before: usize) -> Result<Vec<f64>, Failure> {
        let passes = |model: &LoadedModel| -> Result<Vec<f64>, Failure> {
            let times: Vec<f64> = (0..before + count)
                .map(|_| self.pass(model))
                .collect::<Result<_, _>>()?;
            Ok(times[before..].to_vec())
        };
        match (self.case.work, &self.teacher) {
            (Work::Infer, _) => passes(&self.model),
            (Work::Distil, Some(teacher)) => {
                let (teacher, steps) = (passes(teacher)?, self.steps(count, before)?);
                Ok(teacher.into_iter().zip(steps).map(|(t, s)| t + s).collect())
            }
            (Work::Train | Work::Distil, _) => self.steps(count, before),
        }
    }

    /// Milliseconds of the pass of `model` over one batch.
    fn pass(&self, model: &LoadedModel) -> Result<f64, Failure> {
        let started = Instant::now();
        model.model.forward(&self.batch, &Pass::inference())?.to_vec2::<f32>()?;
        Ok(milliseconds(started))
    }

    /// Milliseconds of each of `count` steps after `before`: a step is timed from the report of the one before it.
    fn steps(&self, count: usize, before: usize) -> Result<Vec<f64>, Failure> {
        let reports = self.fit(before + count)?;
        let first = before
            .checked_sub(1)
            .ok_or("a step is needed before the first that is timed")?;
        let between = |pair: &[(Instant, f64)]| (pair[1].0 - pair[0].0).as_secs_f64() * 1e3;
        Ok(reports[first..].windows(2).map(between).collect())
    }

    /// When each step ended, and the mean loss until then.
    fn fit(&self, steps: usize) -> Result<Vec<(Instant, f64)>, Failure> {
        let rows = Rows::train(&self.data, &self.device);
        let training = Training {
            epochs: steps.div_ceil(self.case.batches),
            max_steps: Some(steps),
            batch_size: self.case.rows,
            ..self.training
        };
        let reports = RefCell::new(Vec::new());
        let watch = |progress: &Progress| {
            let loss = progress.loss.unwrap_or(f64::NAN);
            reports.borrow_mut().push((Instant::now(), loss));
        };
        let context = Context {
            device: &self.device,
            seed: SEED,
            watch: &watch,
            interruption: Interruption::NONE,
        };
        fit(&self.model, &rows, self.targets.as_ref(), &training, &context)?;
        Ok(reports.into_inner())
    }
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
