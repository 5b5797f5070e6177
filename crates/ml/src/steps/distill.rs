//! A student trained towards a teacher, and the teacher's outputs that it is trained on.

use super::{Context, Figures, Lesson, fit_on, new_config, new_model, require_same_data, tokenizer_of, write_model};
use crate::artifact::{Files, LoadedModel, ModelArtifact};
use crate::batch::Rows;
use crate::data::Prepared;
use crate::distillation::{Distillation, layers_of_teacher, write_teacher_logits};
use crate::error::{Error, Result};
use crate::models::{Architecture, ModelConfig, ModelSpec};
use crate::numerics;
use crate::parameters::{Parameters, Use};
use crate::pretrained::PretrainedSettings;
use crate::training::Training;
use orchestrate_kernels::ProductPrecision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How a student starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// From the seed, or from pretrained weights if its model has them.
    Random,
    /// From every k-th layer of its teacher (Sanh et al. 2019, section 3).
    Teacher,
}

/// Settings of [`distill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillSettings {
    /// The student's architecture.
    pub model: ModelSpec,
    /// How it starts from pretrained weights, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PretrainedSettings>,
    /// How it starts.
    pub initialize: Initialization,
    /// How it listens.
    pub distillation: Distillation,
    /// How it is trained.
    pub training: Training,
}

/// Settings of [`teacher_logits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogitsSettings {
    /// That of matrix products.
    #[serde(
        default,
        skip_serializing_if = "numerics::is_default",
        with = "numerics::PrecisionName"
    )]
    pub precision: ProductPrecision,
}

/// Runs a teacher over the training rows and keeps its logits.
///
/// # Errors
/// If the teacher does not fit the data.
pub fn teacher_logits(
    teacher: &Files,
    data: &Files,
    settings: LogitsSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(teacher)?;
    require_same_data(&artifact, &data)?;
    let teacher = artifact.load(context.device, Use::Infer)?;
    let rows = Rows::train(&data, context.device);
    let classes = artifact.config.classes();
    numerics::warn_of_emulation(settings.precision, context.device);
    write_teacher_logits(&teacher, &rows, classes, settings.precision, out, context.watch)?;
    Ok(Figures::of_metrics([("rows", rows.len() as f64)]))
}

/// What a student may start from, beside the seed.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Its teacher, if it takes over layers.
    pub teacher: Option<&'a Files>,
    /// The files of its pretrained weights, if it has some.
    pub pretrained: &'a Files,
}

/// Trains a student towards a teacher, whose outputs are `logits`.
///
/// # Errors
/// If the models do not fit each other or the data, or as [`fit`](crate::training::fit).
pub fn distill(
    data: &Files,
    logits: &Files,
    start: Start,
    settings: &DistillSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let (config, student) = match (settings.initialize, start.teacher) {
        (Initialization::Random, _) => {
            let pretrained = settings
                .pretrained
                .as_ref()
                .map(|settings| (settings, start.pretrained));
            new_model(&settings.model, pretrained, &data, context)?
        }
        (Initialization::Teacher, Some(files)) => from_teacher(files, &settings.model, &data, context)?,
        (Initialization::Teacher, None) => {
            return Err(Error::Unsuited(
                "initialize = \"teacher\" needs the teacher's weights".into(),
            ));
        }
    };
    let lesson = Lesson {
        logits,
        distillation: settings.distillation,
    };
    let fitted = fit_on(&student, &data, Some(lesson), &settings.training, context)?;
    write_model(&config, tokenizer_of(&data), &student, &BTreeMap::new(), out)?;
    Ok(Figures::of_training(&fitted))
}

/// A student of the architecture `model` made of layers of its teacher.
fn from_teacher(
    teacher: &Files,
    model: &ModelSpec,
    data: &Prepared,
    context: &Context,
) -> Result<(ModelConfig, LoadedModel)> {
    let mut config = new_config(model, data)?;
    let artifact = ModelArtifact::open(teacher)?;
    if let (Architecture::Bert(student), Architecture::Bert(teacher)) =
        (&mut config.architecture, &artifact.config.architecture)
    {
        student.compute_as(teacher);
    }
    let teacher = artifact.load(context.device, Use::Infer)?;
    let tensors = layers_of_teacher(&artifact.config, &config, &teacher.parameters.floats())?;
    let parameters = Parameters::from_tensors(tensors, context.device, Use::Train);
    let student = LoadedModel::new(&config, parameters)?;
    Ok((config, student))
}
