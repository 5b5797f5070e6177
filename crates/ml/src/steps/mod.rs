//! One function for each kind of work, from files to a folder of files, with the settings that it takes.
//!
//! Every function reads its inputs, does its work and writes an artifact into `out`, an empty folder. The same inputs,
//! settings and seed give the same bytes on the CPU. Figures that belong to the result are metrics; what a clock or a
//! memory meter said are measurements, and never enter a file.

mod data;
mod distill;
mod evaluate;
mod export;
mod finetune;
mod prune;
mod quantize;
mod train;

pub use data::{prepare_data, training_rows};
pub use distill::{DistillSettings, Initialization, LogitsSettings, Start, distill, teacher_logits};
pub use evaluate::{EvaluateSettings, evaluate};
pub use export::{ExportSettings, Precision, export};
pub use finetune::{FinetuneSettings, finetune};
pub use prune::prune;
pub use quantize::{QuantizeSettings, quantize};
pub use train::{TrainSettings, train};

pub use crate::context::Context;

use crate::artifact::{Files, LoadedModel, ModelArtifact, NewModel};
use crate::batch::{Rows, input_of};
use crate::data::{Prepared, Task};
use crate::distillation::{Distillation, Targets};
use crate::error::{Error, Result};
use crate::models::{Architecture, ModelConfig, ModelSpec};
use crate::parameters::{Parameters, Use};
use crate::pretrained::{Pretrained, PretrainedSettings};
use crate::training::{Fitted, Training, fit};
use orchestrate_kernels::ActivationQuantizer;
use std::collections::BTreeMap;
use std::path::Path;

/// What a step says of its result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Equal on every run.
    pub metrics: BTreeMap<String, f64>,
    /// Of this run alone.
    pub measurements: BTreeMap<String, f64>,
}

impl Figures {
    fn of_metrics<const N: usize>(metrics: [(&str, f64); N]) -> Self {
        let metrics = metrics
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Self {
            metrics,
            measurements: BTreeMap::new(),
        }
    }

    fn of_training(fitted: &Fitted) -> Self {
        let mut figures = Self::of_metrics([("steps", fitted.steps as f64), ("final_loss", fitted.final_loss)]);
        if fitted.resumed_after > 0 {
            let resumed_after = fitted.resumed_after as f64;
            figures.measurements.insert("resumed_after_step".into(), resumed_after);
        }
        figures
    }
}

/// A teacher's outputs on the training rows: an artifact of [`teacher_logits`].
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// The artifact.
    pub logits: &'a Files,
    /// How to use it.
    pub distillation: Distillation,
}

fn fit_on(
    trainee: &LoadedModel,
    data: &Prepared,
    lesson: Option<Lesson>,
    training: &Training,
    context: &Context,
) -> Result<Fitted> {
    let rows = Rows::train(data, context.device);
    let targets = lesson
        .map(|l| {
            Targets::read(
                l.logits,
                rows.len(),
                data.labels().len(),
                l.distillation,
                context.device,
            )
        })
        .transpose()?;
    fit(trainee, &rows, targets.as_ref(), training, context)
}

fn write_model(
    config: &ModelConfig,
    tokenizer: Option<&str>,
    model: &LoadedModel,
    quantizers: &BTreeMap<String, ActivationQuantizer>,
    out: &Path,
) -> Result<()> {
    NewModel {
        config,
        tokenizer,
        floats: &model.parameters.floats(),
        quantizers,
        codebooks: model.parameters.codebooks(),
        masks: &model.masks,
    }
    .write(out)
}

fn new_config(model: &ModelSpec, data: &Prepared) -> Result<ModelConfig> {
    let input = input_of(data);
    let mut architecture = model.resolve(&input)?;
    if let Architecture::Bert(config) = &mut architecture {
        config.pad_token_id = data.pad_id();
    }
    architecture.validate()?;
    let id2label = data.labels().iter().cloned().enumerate().collect();
    Ok(ModelConfig {
        architecture,
        id2label,
        input,
        dense_widths: BTreeMap::new(),
    })
}

/// A new model on `data`, from the seed or from pretrained weights: how it starts from them, and their files.
fn new_model(
    model: &ModelSpec,
    pretrained: Option<(&PretrainedSettings, &Files)>,
    data: &Prepared,
    context: &Context,
) -> Result<(ModelConfig, LoadedModel)> {
    let mut config = new_config(model, data)?;
    let parameters = match pretrained {
        None => Parameters::create(context.seed, context.device),
        Some((settings, files)) => {
            let pretrained = Pretrained::open(files)?;
            if pretrained.spec() != *model {
                return Err(Error::Unsuited(
                    "the pretrained model's config.json was changed while the build ran: build again".into(),
                ));
            }
            pretrained.complete(&mut config.architecture);
            let tensors = pretrained.tensors(settings, &data.task)?.into_iter();
            let tensors = tensors.map(|(name, tensor)| Ok((name, tensor.to_device(context.device)?)));
            Parameters::from_tensors(tensors.collect::<Result<_>>()?, context.device, Use::Train)
                .with_rest_from_seed(context.seed)
        }
    };
    let model = LoadedModel::new(&config, parameters)?;
    Ok((config, model))
}

fn tokenizer_of(data: &Prepared) -> Option<&str> {
    match &data.task {
        Task::Text { tokenizer, .. } => Some(tokenizer.to_json()),
        Task::Image { .. } => None,
    }
}

/// A model is only run on data whose numbers mean what its own did: of its tokenizer or normalization, and its classes.
fn require_same_data(artifact: &ModelArtifact, data: &Prepared) -> Result<()> {
    let (task, other) = (artifact.task()?, &data.task);
    let what = match (&task, other) {
        _ if task.labels() != other.labels() => "classes",
        (Task::Text { tokenizer, .. }, Task::Text { tokenizer: theirs, .. })
            if tokenizer.to_json() != theirs.to_json() =>
        {
            "tokenizer"
        }
        _ if input_of(data) != artifact.config.input => "shape or normalization",
        _ => return Ok(()),
    };
    Err(Error::Unsuited(format!(
        "the model was trained on data of another {what} than this step gives it (classes {:?} against {:?}): a teacher, its \
         students and their data must agree; name the same data in all of them, or give the texts one `tokenizer`",
        task.labels(),
        other.labels()
    )))
}
