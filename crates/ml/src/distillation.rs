//! Knowledge distillation (Hinton et al. 2015): a teacher's outputs on the training rows, computed once and kept, and the
//! loss that draws a student to them.
//!
//! The teacher is never in memory while a student trains: its logits are an artifact, which every step that learns from the
//! same teacher on the same data shares.

use crate::artifact::{Files, LoadedModel, RawTensor, write_tensors};
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::evaluation::logits_of;
use crate::models::{Architecture, ModelConfig};
use crate::progress::Watch;
use candle_core::{Device, Tensor};
use orchestrate_kernels::{ProductPrecision, distillation_loss};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The file of a teacher's outputs.
pub const LOGITS_FILE: &str = "logits.safetensors";

/// How a student listens to its teacher, as a recipe's step gives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// Softens both distributions; the loss is multiplied by its square (Hinton et al. 2015, section 2).
    pub temperature: f64,
    /// Weight of the soft loss; the hard one has the rest.
    pub alpha: f64,
}

/// A teacher's logits on every training row, and how to use them.
pub struct Targets {
    logits: Vec<f32>,
    classes: usize,
    device: Device,
    settings: Distillation,
}

impl Targets {
    /// Reads the logits in `files` for `rows` training rows of `classes` classes.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Corrupt`] if the logits are of other data.
    pub fn read(files: &Files, rows: usize, classes: usize, settings: Distillation, device: &Device) -> Result<Self> {
        let logits = read_logits(files, rows, classes)?;
        Ok(Self {
            logits,
            classes,
            device: device.clone(),
            settings,
        })
    }

    /// Weight of the soft loss.
    pub fn alpha(&self) -> f64 {
        self.settings.alpha
    }

    /// Mean over the batch of `T² KL(teacher ‖ student)`; `student: [B, classes]` are the logits on `rows`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn loss(&self, student: &Tensor, rows: &[usize]) -> Result<Tensor> {
        let teacher: Vec<f32> = rows
            .iter()
            .flat_map(|r| &self.logits[r * self.classes..(r + 1) * self.classes])
            .copied()
            .collect();
        let teacher = Tensor::from_vec(teacher, (rows.len(), self.classes), &self.device)?;
        Ok(distillation_loss(student, &teacher, self.settings.temperature)?)
    }
}

/// Runs `teacher` over `rows`, its matrix products in `precision`, and writes its logits into `folder`.
///
/// # Errors
/// If the teacher does not fit the data, or [`Error::Io`].
pub fn write_teacher_logits(
    teacher: &LoadedModel,
    rows: &Rows,
    classes: usize,
    precision: ProductPrecision,
    folder: &Path,
    watch: Watch,
) -> Result<()> {
    let logits = logits_of(teacher.model.as_ref(), rows, BATCH, precision, watch)?;
    write_logits(&logits, classes, folder)
}

const BATCH: usize = 64;

/// Writes `logits: [rows, classes]`.
pub(crate) fn write_logits(logits: &[f32], classes: usize, folder: &Path) -> Result<()> {
    let tensor = RawTensor::of_slice(logits, &[logits.len() / classes.max(1), classes]);
    write_tensors([("logits", tensor)].into_iter(), &folder.join(LOGITS_FILE))
}

/// Reads `[rows, classes]` logits.
pub(crate) fn read_logits(files: &Files, rows: usize, classes: usize) -> Result<Vec<f32>> {
    let present = || files.keys().cloned().collect();
    let path = files.get(LOGITS_FILE).ok_or_else(|| Error::MissingFile {
        name: LOGITS_FILE,
        present: present(),
    })?;
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let corrupt = |detail: String| Error::Corrupt {
        path: path.clone(),
        expected: "file of logits",
        detail,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let view = file.tensor("logits").map_err(|e| corrupt(e.to_string()))?;
    if view.dtype() != Dtype::F32 || view.shape() != [rows, classes] {
        let found = format!("{:?} {:?}", view.dtype(), view.shape());
        return Err(corrupt(format!(
            "logits are {found}, but there are {rows} rows of {classes} classes"
        )));
    }
    Ok(view
        .data()
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect())
}

/// The tensors with which a student of `student`'s shape starts when it takes every k-th layer of its teacher
/// (Sanh et al. 2019, section 3), in the student's names.
///
/// # Errors
/// [`Error::Unsuited`] if the two differ in more than their number of layers.
pub fn layers_of_teacher(
    teacher: &ModelConfig,
    student: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let (Architecture::Bert(from), Architecture::Bert(to)) = (&teacher.architecture, &student.architecture) else {
        return Err(Error::Unsuited(
            "initialize = \"teacher\" copies encoder layers: both models must be bert".into(),
        ));
    };
    let same_widths = from.hidden_size == to.hidden_size
        && from.layer_heads.iter().all(|h| *h == to.num_attention_heads)
        && from.layer_intermediate.iter().all(|n| *n == to.intermediate_size);
    if !same_widths || from.num_hidden_layers < to.num_hidden_layers {
        return Err(Error::Unsuited(format!(
            "initialize = \"teacher\" needs equal widths: the teacher has hidden {}, heads {:?}, intermediate {:?} in {} \
             layers, the student hidden {}, heads {}, intermediate {} in {}; use initialize = \"random\"",
            from.hidden_size,
            from.layer_heads,
            from.layer_intermediate,
            from.num_hidden_layers,
            to.hidden_size,
            to.num_attention_heads,
            to.intermediate_size,
            to.num_hidden_layers
        )));
    }
    const PREFIX: &str = "bert.encoder.layer.";
    let mut copied = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some((layer, rest)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')) else {
            copied.insert(name.clone(), tensor.clone());
            continue;
        };
        let layer: usize = layer
            .parse()
            .map_err(|_| Error::Unsuited(format!("{name:?} has no layer number")))?;
        let taken = (0..to.num_hidden_layers).find(|i| i * from.num_hidden_layers / to.num_hidden_layers == layer);
        if let Some(index) = taken {
            copied.insert(format!("{PREFIX}{index}.{rest}"), tensor.clone());
        }
    }
    Ok(copied)
}
