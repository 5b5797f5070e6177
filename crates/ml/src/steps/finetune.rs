//! A model trained further, perhaps towards a teacher.

use super::{Context, Figures, Lesson, fit_on, require_same_data, write_model};
use crate::artifact::{Files, ModelArtifact};
use crate::data::Prepared;
use crate::distillation::Distillation;
use crate::error::{Error, Result};
use crate::parameters::Use;
use crate::training::Training;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of [`finetune`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FinetuneSettings {
    /// How the model is trained.
    pub training: Training,
    /// How it listens to its teacher, if it has one.
    pub distillation: Option<Distillation>,
}

impl FinetuneSettings {
    pub(super) fn lesson<'a>(&self, logits: Option<&'a Files>) -> Result<Option<Lesson<'a>>> {
        match (self.distillation, logits) {
            (None, _) => Ok(None),
            (Some(distillation), Some(logits)) => Ok(Some(Lesson { logits, distillation })),
            (Some(_), None) => Err(Error::Unsuited("distillation needs the teacher's logits".into())),
        }
    }
}

/// Trains a model further; its masks, if it has any, hold throughout.
///
/// # Errors
/// If the model does not fit the data, or as [`fit`].
pub fn finetune(
    model: &Files,
    data: &Files,
    logits: Option<&Files>,
    settings: &FinetuneSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let trainee = artifact.load(context.device, Use::Train)?;
    if !trainee.parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "a quantized model is trained by a step of kind \"quantize\" only".into(),
        ));
    }
    let fitted = fit_on(&trainee, &data, settings.lesson(logits)?, &settings.training, context)?;
    write_model(
        &artifact.config,
        artifact.tokenizer.as_deref(),
        &trainee,
        &BTreeMap::new(),
        out,
    )?;
    Ok(Figures::of_training(&fitted))
}
