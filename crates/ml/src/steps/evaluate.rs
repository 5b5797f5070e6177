//! A model read back from its files, judged and timed.

use super::{Context, Figures, require_same_data};
use crate::artifact::{Files, ModelArtifact};
use crate::batch::Rows;
use crate::data::Prepared;
use crate::distillation::write_logits;
use crate::error::{Error, Result};
use crate::evaluation::{Agreement, Latency, Size, quality};
use crate::parameters::Use;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Latency is the median over predictions of so many different rows, each at batch 1.
const LATENCY_ROWS: usize = 64;

/// Settings of [`evaluate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSettings {
    /// Rows of a batch.
    pub batch_size: usize,
    /// How long latency is measured, in seconds; 0 for not at all.
    pub latency_seconds: f64,
}

/// Reads a model back from disk, runs it on the test rows, and keeps its logits. With `reference`, an evaluation of another
/// model on the same data, it also says how the two differ.
///
/// # Errors
/// If the model cannot be read or does not fit the data.
pub fn evaluate(
    model: &Files,
    data: &Files,
    reference: Option<&Files>,
    settings: EvaluateSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let device = artifact.inference_device(context.device)?;
    let loaded = artifact.load(&device, Use::Infer)?;
    let rows = Rows::test(&data, &device);
    let quality = quality(&loaded, &rows, settings.batch_size, context.watch)?;
    let size = Size::of(&artifact, &loaded, &rows)?;
    let mut figures = Figures::of_metrics([
        ("accuracy", quality.accuracy),
        ("loss", quality.loss),
        ("rows", rows.len() as f64),
        ("file_bytes", size.file_bytes as f64),
        ("parameters", size.parameters as f64),
        ("parameters_nonzero", size.nonzero as f64),
        ("macs", size.macs as f64),
        ("tokens", size.tokens as f64),
    ]);
    let classes = artifact.config.classes();
    if let Some(files) = reference {
        let agreement = Agreement::with_files(&quality.logits, files, rows.len(), classes)?;
        figures.metrics.extend([
            ("predictions_changed".to_owned(), agreement.different as f64),
            ("agreement".to_owned(), agreement.same_predictions),
            ("largest_logit_difference".to_owned(), agreement.largest_difference),
        ]);
    }
    write_logits(&quality.logits, classes, out)?;
    if settings.latency_seconds > 0.0 {
        let budget = Duration::try_from_secs_f64(settings.latency_seconds)
            .map_err(|e| Error::Unsuited(format!("latency_seconds = {}: {e}", settings.latency_seconds)))?;
        let latency = Latency::measure(loaded.model.as_ref(), &rows.singles(LATENCY_ROWS)?, budget)?;
        figures.measurements = BTreeMap::from([
            ("latency_ms_p50".to_owned(), latency.p50),
            ("latency_ms_p90".to_owned(), latency.p90),
            ("latency_ms_p99".to_owned(), latency.p99),
            ("latency_runs".to_owned(), latency.runs as f64),
        ]);
    }
    Ok(figures)
}
