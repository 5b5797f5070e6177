//! A model as it is deployed.

use super::Figures;
use crate::artifact::{Files, ModelArtifact, NewModel};
use crate::error::Result;
use crate::layers::fold_norms;
use crate::parameters::Use;
use crate::quantize::write_integers;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What the weights of an exported model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 8-bit integers with a scale for each output channel.
    Int8,
    /// 32-bit floats.
    F32,
}

/// Settings of [`export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSettings {
    /// What the weights become.
    pub precision: Precision,
}

/// Writes a model as it is to be deployed, its batch norms folded into the convolutions before them.
///
/// # Errors
/// If the model cannot be read, or is asked for in integers without having been quantized.
pub fn export(model: &Files, settings: ExportSettings, out: &Path) -> Result<Figures> {
    let artifact = ModelArtifact::open(model)?;
    match settings.precision {
        Precision::Int8 => write_integers(model, out)?,
        Precision::F32 => {
            let loaded = artifact.load(&Device::Cpu, Use::Infer)?;
            let new = NewModel {
                config: &artifact.config,
                tokenizer: artifact.tokenizer.as_deref(),
                floats: &fold_norms(&loaded.parameters)?,
                quantizers: &BTreeMap::new(),
                codebooks: &BTreeMap::new(),
                masks: &loaded.masks,
            };
            new.write(out)?;
        }
    }
    let exported = ModelArtifact::open(&crate::artifact::files_of_folder(out)?)?;
    exported.load(&Device::Cpu, Use::Infer)?;
    Ok(Figures::of_metrics([("file_bytes", exported.weights_bytes()? as f64)]))
}
