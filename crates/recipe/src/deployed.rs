//! Models in folders, outside of any build: what the command line needs to run, time and judge them.

use orchestrate_ml::artifact::{Files, files_of_folder};
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::steps::{Context, EvaluateSettings, Figures, evaluate};
use std::path::Path;

pub use orchestrate_ml::Error as ModelError;
pub use orchestrate_ml::device::prepare_process;
pub use orchestrate_ml::evaluation::Latency;
pub use orchestrate_ml::predict::{Device, Prediction, Predictor};

/// Opens the device of that name: `cpu`, `cuda`, `metal` or `auto`.
///
/// # Errors
/// [`ModelError::Device`] if there is no such device, or it was not compiled in.
pub fn open_device(name: &str) -> Result<Device, ModelError> {
    name.parse::<DeviceChoice>()?.open()
}

/// Runs the model in `folder` on the test rows of the prepared data set in `data`, and times it.
///
/// # Errors
/// If the model cannot be read or does not fit the data.
pub fn evaluate_folder(
    folder: &Path,
    data: &Files,
    device: DeviceChoice,
    latency_seconds: f64,
) -> Result<Figures, ModelError> {
    let device = device.open()?;
    let scratch = tempfile::tempdir().map_err(|source| ModelError::Io {
        action: "make a folder in",
        path: std::env::temp_dir(),
        source,
    })?;
    let context = Context {
        device: &device,
        seed: 0,
        watch: &|_| {},
    };
    let settings = EvaluateSettings {
        batch_size: crate::lower::EVALUATION_BATCH,
        latency_seconds,
    };
    evaluate(
        &files_of_folder(folder)?,
        data,
        None,
        settings,
        &context,
        scratch.path(),
    )
}
