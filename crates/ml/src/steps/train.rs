//! A model trained from a seed.

use super::{Context, Figures, fit_on, new_config, tokenizer_of, write_model};
use crate::artifact::{Files, LoadedModel};
use crate::data::Prepared;
use crate::error::Result;
use crate::masks::Masks;
use crate::models::ModelSpec;
use crate::parameters::Parameters;
use crate::training::Training;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of [`train`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// The architecture.
    pub model: ModelSpec,
    /// How it is trained.
    pub training: Training,
}

/// Trains a model from a seed.
///
/// # Errors
/// If the model does not fit the data, or as [`fit`].
pub fn train(data: &Files, settings: &TrainSettings, context: &Context, out: &Path) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let config = new_config(&settings.model, &data)?;
    let mut parameters = Parameters::create(context.seed, context.device);
    let model = config.architecture.build(&mut parameters, config.classes())?;
    let trainee = LoadedModel {
        parameters,
        model,
        masks: Masks::new(),
    };
    let fitted = fit_on(&trainee, &data, None, &settings.training, context)?;
    write_model(&config, tokenizer_of(&data), &trainee, &BTreeMap::new(), out)?;
    Ok(Figures::of_training(&fitted))
}
