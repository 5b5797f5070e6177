//! Models in folders, outside of any build: what the command line needs to run, time and judge them.

use crate::recipe::Data;
use orchestrate_ml::artifact::files_of_folder;
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::steps::{Context, EvaluateSettings, Figures, evaluate, prepare_data};
use std::path::Path;
use tempfile::TempDir;

pub use orchestrate_ml::Error as ModelError;
pub use orchestrate_ml::device::{on_pool, prepare_process};
pub use orchestrate_ml::difference::describe_difference;
pub use orchestrate_ml::evaluation::Latency;
pub use orchestrate_ml::predict::{Device, Prediction, Predictor};
pub use orchestrate_ml::pretrained::{check_config, check_folder};

/// Opens the device of that name: `cpu`, `cuda`, `metal` or `auto`.
///
/// # Errors
/// [`ModelError::Device`] if there is no such device, or it was not compiled in.
pub fn open_device(name: &str) -> Result<Device, ModelError> {
    name.parse::<DeviceChoice>()?.open()
}

/// Prepares `data` as the model in `folder` reads its input, runs the model on the test rows, and times it.
///
/// # Errors
/// If the model or the data cannot be read, or do not fit each other.
pub fn evaluate_folder(
    folder: &Path,
    data: &Data,
    device: DeviceChoice,
    latency_seconds: f64,
) -> Result<Figures, ModelError> {
    let device = device.open()?;
    let model = files_of_folder(folder)?;
    let (prepared, evaluated) = (scratch()?, scratch()?);
    prepare_data(&data.spec, &data.files, Some(&model), prepared.path())?;
    let context = Context {
        device: &device,
        seed: 0,
        watch: &|_| {},
        interruption: Interruption::NONE,
    };
    let settings = EvaluateSettings {
        batch_size: crate::lower::EVALUATION_BATCH,
        latency_seconds,
    };
    let data = files_of_folder(prepared.path())?;
    evaluate(&model, &data, None, settings, &context, evaluated.path())
}

fn scratch() -> Result<TempDir, ModelError> {
    tempfile::tempdir().map_err(|source| ModelError::Io {
        action: "make a folder in",
        path: std::env::temp_dir(),
        source,
    })
}
