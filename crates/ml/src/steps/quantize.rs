//! Calibration and quantization-aware training.

use super::finetune::FinetuneSettings;
use super::{Context, Figures, fit_on, require_same_data, write_model};
use crate::artifact::{Files, ModelArtifact};
use crate::batch::Rows;
use crate::data::Prepared;
use crate::error::{Error, Result};
use crate::layers::fold_norms;
use crate::parameters::{Parameters, Use};
use crate::quantize::{ObserverKind, WeightScheme, calibrate, quantizers};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Settings of [`quantize`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantizeSettings {
    /// Which integers weights may be.
    #[serde(default, skip_serializing_if = "WeightScheme::is_uniform")]
    pub weights: WeightScheme,
    /// How the range of a layer's input is estimated.
    pub observer: ObserverKind,
    /// Training rows that the ranges start from.
    pub calibration_rows: usize,
    /// Quantization-aware training; with no epochs, the model is quantized after training.
    pub finetune: FinetuneSettings,
}

/// Calibrates a model and trains it quantization-aware. Its widths and masks are kept; its batch norms are folded into the
/// convolutions first, so that what is simulated is what will run in integers (Jacob et al. 2018, section 3.2, with the
/// statistics frozen throughout).
///
/// # Errors
/// If the model does not fit the data, is quantized already, or as [`fit`].
pub fn quantize(
    model: &Files,
    data: &Files,
    logits: Option<&Files>,
    settings: &QuantizeSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let mut parameters = folded_parameters(&artifact, settings.weights, context.device)?;
    parameters.observe_inputs(settings.observer);
    let trainee = artifact.build(parameters, context.device)?;
    let rows = Rows::train(&data, context.device);
    let precision = settings.finetune.training.precision;
    calibrate(&trainee, &rows, settings.calibration_rows, precision, context.watch)?;
    let figures = if settings.finetune.training.epochs == 0 {
        Figures::of_metrics([("steps", 0.0)])
    } else {
        let lesson = settings.finetune.lesson(logits)?;
        Figures::of_training(&fit_on(&trainee, &data, lesson, &settings.finetune.training, context)?)
    };
    write_model(
        &artifact.config,
        artifact.tokenizer.as_deref(),
        &trainee,
        &quantizers(&trainee)?,
        out,
    )?;
    Ok(figures)
}

/// The tensors of a model that is not quantized, to be trained, its batch norms folded, and the codebooks of its weights.
fn folded_parameters(artifact: &ModelArtifact, weights: WeightScheme, device: &Device) -> Result<Parameters> {
    let loaded = artifact.load(device, Use::Infer)?;
    if !loaded.parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "the model is quantized already: give this step one that is not".into(),
        ));
    }
    let mut parameters = Parameters::from_tensors(fold_norms(&loaded.parameters)?, device, Use::Train);
    parameters.choose_codebooks(weights, loaded.parameters.weight_names())?;
    Ok(parameters)
}
