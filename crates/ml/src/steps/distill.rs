//! A student trained towards a teacher, and the teacher's outputs that it is trained on.

use super::{Context, Figures, Lesson, fit_on, new_config, require_same_data, tokenizer_of, write_model};
use crate::artifact::{Files, LoadedModel, ModelArtifact};
use crate::batch::Rows;
use crate::data::Prepared;
use crate::distillation::{Distillation, layers_of_teacher, write_teacher_logits};
use crate::error::{Error, Result};
use crate::masks::Masks;
use crate::models::ModelSpec;
use crate::numerics;
use crate::parameters::{Parameters, Use};
use crate::training::Training;
use orchestrate_kernels::ProductPrecision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How a student starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// From the seed.
    Random,
    /// From every k-th layer of its teacher (Sanh et al. 2019, section 3).
    Teacher,
}

/// Settings of [`distill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillSettings {
    /// The student's architecture.
    pub model: ModelSpec,
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

/// Trains a student towards a teacher; `teacher` is read only if the student starts from its layers.
///
/// # Errors
/// If the models do not fit each other or the data, or as [`fit`].
pub fn distill(
    data: &Files,
    logits: &Files,
    teacher: Option<&Files>,
    settings: &DistillSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let config = new_config(&settings.model, &data)?;
    let mut parameters = match (settings.initialize, teacher) {
        (Initialization::Random, _) => Parameters::create(context.seed, context.device),
        (Initialization::Teacher, Some(files)) => {
            let artifact = ModelArtifact::open(files)?;
            let teacher = artifact.load(context.device, Use::Infer)?;
            let tensors = layers_of_teacher(&artifact.config, &config, &teacher.parameters.floats())?;
            Parameters::from_tensors(tensors, context.device, Use::Train)
        }
        (Initialization::Teacher, None) => {
            return Err(Error::Unsuited(
                "initialize = \"teacher\" needs the teacher's weights".into(),
            ));
        }
    };
    let model = config.architecture.build(&mut parameters, config.classes())?;
    let student = LoadedModel {
        parameters,
        model,
        masks: Masks::new(),
    };
    let lesson = Lesson {
        logits,
        distillation: settings.distillation,
    };
    let fitted = fit_on(&student, &data, Some(lesson), &settings.training, context)?;
    write_model(&config, tokenizer_of(&data), &student, &BTreeMap::new(), out)?;
    Ok(Figures::of_training(&fitted))
}
