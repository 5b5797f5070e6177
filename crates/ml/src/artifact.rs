//! A model on disk: `config.json`, `model.safetensors`, and where they apply `tokenizer.json` and `masks.safetensors`.
//!
//! Writing is deterministic: the same model gives the same bytes. Reading checks everything before it is used. Where the
//! files lie is the caller's business: a model is opened over a map from file name to path.

use crate::data::{Task, Tokenizer};
use crate::error::{Error, Result};
use crate::masks::{MASKS_FILE, Masks, check_masks, read_masks, write_masks};
use crate::models::{Input, Model, ModelConfig};
use crate::parameters::{Parameters, Use, WEIGHT_CODEBOOK, WEIGHT_SCALE};
use candle_core::{Device, Tensor};
use orchestrate_kernels::{ActivationQuantizer, Codebook};
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File name to path.
pub type Files = BTreeMap<String, PathBuf>;

/// The configuration's file.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer's file, of models that read text.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// The files of a folder, by name.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed.
pub fn files_of_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read the folder", folder))? {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        if path.is_file()
            && let Some(name) = path.file_name().and_then(|n| n.to_str())
        {
            files.insert(name.to_owned(), path.clone());
        }
    }
    Ok(files)
}

/// A model that was opened: its configuration is read, its weights are not yet.
#[derive(Debug)]
pub struct ModelArtifact {
    /// The configuration.
    pub config: ModelConfig,
    /// The tokenizer's JSON, of models that read text.
    pub tokenizer: Option<String>,
    files: Files,
}

/// A model in memory.
pub struct LoadedModel {
    /// The tensors by name.
    pub parameters: Parameters,
    /// The network over them.
    pub model: Box<dyn Model>,
    /// Its pruning masks, if any.
    pub masks: Masks,
}

impl LoadedModel {
    /// A model without masks over `parameters`, which have all that `config` asks for.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape.
    pub fn new(config: &ModelConfig, mut parameters: Parameters) -> Result<Self> {
        let model = config.architecture.build(&mut parameters, config.classes())?;
        Ok(Self {
            parameters,
            model,
            masks: Masks::new(),
        })
    }
}

impl ModelArtifact {
    /// Opens the model in `files`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Corrupt`], and [`Error::Unsuited`] for widths or an activation that
    /// cannot be run.
    pub fn open(files: &Files) -> Result<Self> {
        let config_path = required(files, CONFIG_FILE)?;
        let text = std::fs::read_to_string(config_path).map_err(Error::io("read", config_path))?;
        let config: ModelConfig = serde_json::from_str(&text).map_err(|e| Error::Corrupt {
            path: config_path.clone(),
            expected: "model configuration",
            detail: e.to_string(),
        })?;
        config.architecture.validate()?;
        config
            .check_labels()
            .and_then(|()| config.check_input())
            .map_err(|detail| Error::Corrupt {
                path: config_path.clone(),
                expected: "model configuration",
                detail,
            })?;
        required(files, WEIGHTS_FILE)?;
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(Error::io("read", path));
        let tokenizer = files.get(TOKENIZER_FILE).map(read).transpose()?;
        Ok(Self {
            config,
            tokenizer,
            files: files.clone(),
        })
    }

    /// Reads the weights and builds the network.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape than the configuration implies, or a mask does not hold.
    pub fn load(&self, device: &Device, purpose: Use) -> Result<LoadedModel> {
        self.build(
            Parameters::read(required(&self.files, WEIGHTS_FILE)?, device, purpose)?,
            device,
        )
    }

    /// As [`ModelArtifact::load`], over parameters that the caller prepared.
    ///
    /// # Errors
    /// As [`ModelArtifact::load`].
    pub fn build(&self, parameters: Parameters, device: &Device) -> Result<LoadedModel> {
        let mut loaded = LoadedModel::new(&self.config, parameters)?;
        if let Some(path) = self.files.get(MASKS_FILE) {
            loaded.masks = read_masks(path, device)?;
            check_masks(&loaded.masks, &loaded.parameters.weights_as_floats()?)?;
        }
        Ok(loaded)
    }

    /// What the model was trained for, and how its input becomes numbers.
    ///
    /// # Errors
    /// [`Error::MissingFile`] or [`Error::Data`] if it reads text and its tokenizer is absent or not to be read.
    pub fn task(&self) -> Result<Task> {
        let labels = self.config.id2label.values().cloned().collect();
        match &self.config.input {
            Input::Text { max_length, vocab_size } => {
                let json = self.tokenizer.as_deref().ok_or_else(|| Error::MissingFile {
                    name: TOKENIZER_FILE,
                    present: self.file_names(),
                })?;
                let tokenizer = Tokenizer::from_tokenizer_json(TOKENIZER_FILE, json.as_bytes())?;
                if tokenizer.vocab_size() != *vocab_size {
                    return Err(Error::Unsuited(format!(
                        "{TOKENIZER_FILE} has {} tokens, but the model was trained with {vocab_size}: the files do not belong \
                         together",
                        tokenizer.vocab_size()
                    )));
                }
                Ok(Task::Text {
                    tokenizer,
                    max_length: *max_length,
                    labels,
                })
            }
            &Input::Image {
                width,
                height,
                channels,
                mean,
                std,
            } => Ok(Task::Image {
                width,
                height,
                channels,
                mean,
                std,
                labels,
            }),
        }
    }

    /// Where to run the model: integer layers run on the CPU only, all else on `wanted`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn inference_device(&self, wanted: &Device) -> Result<Device> {
        let path = self.weights_path()?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| Error::Corrupt {
            path: path.clone(),
            expected: "safetensors file",
            detail: e.to_string(),
        })?;
        let integers = header
            .tensors()
            .keys()
            .any(|name| name.ends_with(&format!(".weight{WEIGHT_SCALE}")));
        Ok(if integers { Device::Cpu } else { wanted.clone() })
    }

    /// The names of the files there are.
    pub fn file_names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// Where the weights are.
    ///
    /// # Errors
    /// [`Error::MissingFile`].
    pub fn weights_path(&self) -> Result<&PathBuf> {
        required(&self.files, WEIGHTS_FILE)
    }

    /// Size of the weights' file in bytes on disk.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`].
    pub fn weights_bytes(&self) -> Result<u64> {
        let path = self.weights_path()?;
        Ok(std::fs::metadata(path).map_err(Error::io("read", path))?.len())
    }
}

fn required<'a>(files: &'a Files, name: &'static str) -> Result<&'a PathBuf> {
    files.get(name).ok_or_else(|| Error::MissingFile {
        name,
        present: files.keys().cloned().collect(),
    })
}

/// What is to be written as a model.
pub struct NewModel<'a> {
    /// Its configuration, widths included.
    pub config: &'a ModelConfig,
    /// Its tokenizer's JSON.
    pub tokenizer: Option<&'a str>,
    /// f32 tensors by name.
    pub floats: &'a BTreeMap<String, Tensor>,
    /// Input quantizers by layer path.
    pub quantizers: &'a BTreeMap<String, ActivationQuantizer>,
    /// Codebooks by weight.
    pub codebooks: &'a BTreeMap<String, Arc<Codebook>>,
    /// Pruning masks by parameter.
    pub masks: &'a Masks,
}

impl NewModel<'_> {
    /// Writes the model's files into `folder`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] and [`Error::MaskLost`] for weights that must not be published, [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (name, tensor) in self.floats {
            if !orchestrate_kernels::all_finite(tensor)? {
                return Err(Error::NotFinite {
                    what: name.clone(),
                    step: 0,
                    learning_rate: 0.0,
                });
            }
        }
        check_masks(self.masks, self.floats)?;
        let floats = self
            .floats
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), RawTensor::of_floats(tensor)?)));
        let mut tensors: BTreeMap<String, RawTensor> = floats.collect::<Result<_>>()?;
        tensors.extend(quantizer_tensors(self.quantizers));
        let levels = self.codebooks.iter();
        tensors.extend(
            levels.map(|(name, codebook)| (format!("{name}{WEIGHT_CODEBOOK}"), RawTensor::of_levels(codebook))),
        );
        write_tensors(tensors.into_iter(), &folder.join(WEIGHTS_FILE))?;
        if !self.masks.is_empty() {
            write_masks(self.masks, &folder.join(MASKS_FILE))?;
        }
        write_description(self.config, self.tokenizer, folder)
    }
}

/// Writes `config.json` and `tokenizer.json`.
pub(crate) fn write_description(config: &ModelConfig, tokenizer: Option<&str>, folder: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(config).expect("a configuration has string keys and finite numbers");
    let path = folder.join(CONFIG_FILE);
    std::fs::write(&path, json + "\n").map_err(Error::io("write", &path))?;
    if let Some(tokenizer) = tokenizer {
        let path = folder.join(TOKENIZER_FILE);
        std::fs::write(&path, tokenizer).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Scale and zero point of each layer's input as tensors.
pub(crate) fn quantizer_tensors(
    quantizers: &BTreeMap<String, ActivationQuantizer>,
) -> impl Iterator<Item = (String, RawTensor)> {
    quantizers.iter().flat_map(|(path, q)| {
        let scale = RawTensor {
            dtype: Dtype::F32,
            shape: vec![],
            bytes: q.scale.to_le_bytes().to_vec(),
        };
        let zero_point = RawTensor {
            dtype: Dtype::U8,
            shape: vec![],
            bytes: vec![q.zero_point],
        };
        [
            (format!("{path}.input_scale"), scale),
            (format!("{path}.input_zero_point"), zero_point),
        ]
    })
}

/// A tensor as bytes, little-endian, row-major.
pub(crate) struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl RawTensor {
    pub fn of_floats(tensor: &Tensor) -> Result<Self> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self::of_slice(&values, tensor.dims()))
    }

    pub fn of_levels(codebook: &Codebook) -> Self {
        Self {
            dtype: Dtype::I8,
            shape: vec![codebook.levels().len()],
            bytes: codebook.levels().iter().map(|level| level.cast_unsigned()).collect(),
        }
    }

    pub fn of_slice(values: &[f32], shape: &[usize]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes,
        }
    }
}

impl View for RawTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes a safetensors file without metadata, whose order the format's own library would leave to a hash map.
pub(crate) fn write_tensors<N: AsRef<str> + Ord + std::fmt::Display>(
    tensors: impl Iterator<Item = (N, RawTensor)>,
    path: &Path,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, None).map_err(|e| Error::Corrupt {
        path: path.into(),
        expected: "set of tensors",
        detail: e.to_string(),
    })?;
    std::fs::write(path, bytes).map_err(Error::io("write", path))
}
