//! A model trained from a seed, or from weights that were trained elsewhere.

use super::{Context, Figures, fit_on, new_model, tokenizer_of, write_model};
use crate::artifact::Files;
use crate::data::Prepared;
use crate::error::Result;
use crate::models::ModelSpec;
use crate::pretrained::PretrainedSettings;
use crate::training::Training;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of [`train`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// The architecture.
    pub model: ModelSpec,
    /// How it starts from pretrained weights, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PretrainedSettings>,
    /// How it is trained; for no epochs, pretrained weights are taken as they are.
    pub training: Training,
}

/// Trains a model from a seed, or from the weights in the files `pretrained`, which are of
/// [`files_of`](crate::pretrained::files_of).
///
/// # Errors
/// If the model or the pretrained weights do not fit the data, or as [`fit`](crate::training::fit).
pub fn train(
    data: &Files,
    pretrained: &Files,
    settings: &TrainSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let start = settings.pretrained.as_ref().map(|settings| (settings, pretrained));
    let (config, trainee) = new_model(&settings.model, start, &data, context)?;
    let figures = if settings.training.epochs > 0 {
        Figures::of_training(&fit_on(&trainee, &data, None, &settings.training, context)?)
    } else {
        Figures::of_metrics([("steps", 0.0)])
    };
    write_model(&config, tokenizer_of(&data), &trainee, &BTreeMap::new(), out)?;
    Ok(figures)
}
