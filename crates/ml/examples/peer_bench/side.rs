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
use orchestrate_ml::evaluation::logits_of;
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
    /// Matrix products in bf16.
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

    fn training(self) -> Training {
        match self {
            Self::F32 | Self::Int8 => TRAINING,
            Self::Bf16 => Training {
                precision: ProductPrecision::Bf16,
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
    training: Training,
    model: LoadedModel,
    teacher: Option<LoadedModel>,
    targets: Option<Targets>,
    data: Prepared,
    /// The first batch.
    batch: Batch,
}

impl Side {
    /// Loads the case that was prepared in `folder`.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn open(case: Case, precision: Precision, folder: &Path) -> Result<Self, Failure> {
        let load = |name: &str, purpose| -> Result<LoadedModel, Failure> {
            let files = files_of_folder(&folder.join(name))?;
            Ok(ModelArtifact::open(&files)?.load(&Device::Cpu, purpose)?)
        };
        let model = match (case.work, precision) {
            (Work::Infer, Precision::Int8) => load("int8", Use::Infer)?,
            (Work::Infer, Precision::F32 | Precision::Bf16 | Precision::Checkpointed) => load("model", Use::Infer)?,
            (Work::Train | Work::Distil, _) => load("model", Use::Train)?,
        };
        let data = data(&case)?;
        let all: Vec<usize> = (0..case.rows).collect();
        let batch = Rows::train(&data, &Device::Cpu).batch(&all)?;
        let (mut teacher, mut targets) = (None, None);
        if case.work == Work::Distil {
            let loaded = load("teacher", Use::Infer)?;
            let rows = Rows::train(&data, &Device::Cpu);
            write_teacher_logits(&loaded, &rows, case.classes, folder, &|_| ())?;
            let files = files_of_folder(folder)?;
            targets = Some(Targets::read(
                &files,
                rows.len(),
                case.classes,
                DISTILLATION,
                &Device::Cpu,
            )?);
            teacher = Some(loaded);
        }
        Ok(Self {
            training: precision.training(),
            case,
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

    /// Milliseconds of each of `count` runs, after one that is not counted.
    ///
    /// # Errors
    /// If the work fails.
    pub fn run(&self, count: usize) -> Result<Vec<f64>, Failure> {
        match self.case.work {
            // As a step of training is, the first run is left out.
            Work::Infer => (0..=count)
                .map(|_| {
                    let started = Instant::now();
                    self.model
                        .model
                        .forward(&self.batch, &Pass::inference())?
                        .to_vec2::<f32>()?;
                    Ok(milliseconds(started))
                })
                .collect::<Result<Vec<_>, Failure>>()
                .map(|times| times[1..].to_vec()),
            Work::Train => self.steps(count),
            Work::Distil => {
                let passes = count.div_ceil(self.case.batches);
                let teacher = (0..=passes)
                    .map(|_| self.teacher_pass())
                    .collect::<Result<Vec<_>, _>>()?;
                let teacher = teacher[1..].iter().flat_map(|t| vec![*t; self.case.batches]);
                Ok(teacher.zip(self.steps(count)?).map(|(t, s)| t + s).collect())
            }
        }
    }

    /// Milliseconds of each of `count` steps; one more before them is not counted.
    fn steps(&self, count: usize) -> Result<Vec<f64>, Failure> {
        let reports = self.fit(count + 1)?;
        let between = |pair: &[(Instant, f64)]| (pair[1].0 - pair[0].0).as_secs_f64() * 1e3;
        Ok(reports.windows(2).map(between).collect())
    }

    /// When each step ended, and the mean loss until then.
    fn fit(&self, steps: usize) -> Result<Vec<(Instant, f64)>, Failure> {
        let rows = Rows::train(&self.data, &Device::Cpu);
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
            device: &Device::Cpu,
            seed: SEED,
            watch: &watch,
            interruption: Interruption::NONE,
        };
        fit(&self.model, &rows, self.targets.as_ref(), &training, &context)?;
        Ok(reports.into_inner())
    }

    /// Milliseconds of the teacher's pass over one of the batches.
    fn teacher_pass(&self) -> Result<f64, Failure> {
        let rows = Rows::train(&self.data, &Device::Cpu);
        let started = Instant::now();
        if let Some(teacher) = &self.teacher {
            logits_of(teacher.model.as_ref(), &rows, self.case.rows, &|_| ())?;
        }
        Ok(milliseconds(started) / self.case.batches as f64)
    }
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
