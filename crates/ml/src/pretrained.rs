//! Weights that a model starts from instead of a seed: of a BERT that someone trained elsewhere, in the files that Hugging
//! Face's `save_pretrained` writes.
//!
//! [`Pretrained::open`] reads `config.json` and the header of `model.safetensors`, and holds every tensor against the
//! architecture, so that whatever is missing, left over or of another shape is known before anything runs. A classifier is
//! kept if its classes are the data's, in the data's order; a table of words is kept as far as the data's vocabulary goes,
//! which must be the beginning of the model's own.

mod config;
mod weights;

use crate::artifact::{CONFIG_FILE, Files, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::data::{Task, Tokenizer};
use crate::error::{Error, Result};
use crate::models::{Architecture, BertConfig, ModelSpec};
use candle_core::{Device, Tensor};
use config::Config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weights::Weights;

/// The file of a vocabulary, one token a line, where there is no tokenizer.json.
const VOCAB_FILE: &str = "vocab.txt";
/// Weights in Python's own format, which can run programs when it is read.
const PICKLED_FILE: &str = "pytorch_model.bin";
/// The list of the parts of weights in several files.
const PARTS_FILE: &str = "model.safetensors.index.json";

const CLASSIFIER: &str = "classifier.";
const POOLER: &str = "bert.pooler.";
const WORDS: &str = "bert.embeddings.word_embeddings.weight";

/// What becomes of the classifier that is among the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classifier {
    /// It is kept; if there is none, it starts from the seed.
    #[default]
    Keep,
    /// It starts from the seed, for the classes of the data.
    New,
}

/// How a model starts from pretrained weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PretrainedSettings {
    /// What becomes of their classifier.
    pub classifier: Classifier,
    /// What the classifier's outputs stand for, in their order; where absent, `id2label` of the configuration says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

/// Pretrained weights, whose values are not read yet.
#[derive(Debug, Clone)]
pub struct Pretrained {
    config: Config,
    weights: Weights,
    /// Outputs of the classifier, if there is one.
    outputs: Option<usize>,
    has_pooler: bool,
    vocabulary: Option<Vocabulary>,
}

/// The file that says which number stands for which token.
#[derive(Debug, Clone)]
enum Vocabulary {
    TokenizerJson(PathBuf),
    VocabTxt(PathBuf),
}

/// The files of `folder` that say what a pretrained model is, by name.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read, [`Error::Unsuited`] if a file that is needed is not there.
pub fn files_of(folder: &Path) -> Result<Files> {
    let mut files = crate::artifact::files_of_folder(folder)?;
    let lacks = |what: String| Err(Error::Unsuited(format!("{} has no {what}", folder.display())));
    if !files.contains_key(WEIGHTS_FILE) {
        return lacks(if files.contains_key(PICKLED_FILE) {
            format!(
                "{WEIGHTS_FILE}, only {PICKLED_FILE}, which can run programs when it is read: load it in Python and write it \
                 again with `save_pretrained(folder, safe_serialization=True)`"
            )
        } else if files.contains_key(PARTS_FILE) {
            format!(
                "{WEIGHTS_FILE}, but weights in several files: write them again as one, with a large `max_shard_size`"
            )
        } else {
            WEIGHTS_FILE.to_owned()
        });
    }
    if !files.contains_key(CONFIG_FILE) {
        return lacks(format!("{CONFIG_FILE}, which says what the weights are of"));
    }
    files.retain(|name, _| [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, VOCAB_FILE].contains(&name.as_str()));
    if files.contains_key(TOKENIZER_FILE) {
        files.remove(VOCAB_FILE);
    }
    Ok(files)
}

impl Pretrained {
    /// Reads what `files`, of [`files_of`], say of the model, and checks every tensor's name and shape.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`]; [`Error::Corrupt`] for what is no BERT of floats; [`Error::MissingTensor`],
    /// [`Error::WrongTensor`] and [`Error::UnusedTensors`].
    pub fn open(files: &Files) -> Result<Self> {
        let file = |name| {
            files.get(name).ok_or_else(|| Error::MissingFile {
                name,
                present: files.keys().cloned().collect(),
            })
        };
        let config = Config::read(file(CONFIG_FILE)?)?;
        let weights = Weights::open(file(WEIGHTS_FILE)?)?;
        let outputs = weights
            .shape("classifier.weight")
            .map(|shape| shape.first().copied().unwrap_or(0));
        let has_pooler = weights.shape("bert.pooler.dense.weight").is_some();
        let shapes = Architecture::Bert(config.bert.clone()).shapes(outputs.unwrap_or(2))?;
        weights.check(&shapes, |name| {
            outputs.is_none() && name.starts_with(CLASSIFIER) || !has_pooler && name.starts_with(POOLER)
        })?;
        if let (Some(outputs), Some(classes)) = (outputs, &config.classes)
            && classes.len() != outputs
        {
            return Err(Error::Unsuited(format!(
                "the classifier has {outputs} outputs, but id2label in {CONFIG_FILE} names {} classes",
                classes.len()
            )));
        }
        Ok(Self {
            config,
            weights,
            outputs,
            has_pooler,
            vocabulary: Vocabulary::among(files),
        })
    }

    /// The architecture, without what only the data can tell.
    pub fn spec(&self) -> ModelSpec {
        let bert = &self.config.bert;
        ModelSpec::Bert {
            layers: bert.num_hidden_layers,
            hidden: bert.hidden_size,
            heads: bert.num_attention_heads,
            intermediate: Some(bert.intermediate_size),
            max_positions: bert.max_position_embeddings,
        }
    }

    /// What is not among the weights and must be learnt, if it is that.
    pub fn lacks(&self, settings: &PretrainedSettings) -> Option<&'static str> {
        match (settings.classifier, self.outputs) {
            (Classifier::Keep, Some(_)) if self.has_pooler => None,
            (Classifier::Keep, Some(_)) => Some("pooler"),
            (Classifier::Keep, None) | (Classifier::New, _) => Some("classifier"),
        }
    }

    /// What the classifier's outputs stand for, if there is a classifier.
    fn classes(&self, settings: &PretrainedSettings) -> Option<Vec<String>> {
        let outputs = self.outputs?;
        let named = settings.classes.as_ref().or(self.config.classes.as_ref()).cloned();
        Some(named.unwrap_or_else(|| (0..outputs).map(unnamed).collect()))
    }

    /// Puts what the weights say of the architecture into `architecture`, which [`Pretrained::spec`] gave on the data.
    pub(crate) fn complete(&self, architecture: &mut Architecture) {
        if let Architecture::Bert(bert) = architecture {
            let BertConfig {
                type_vocab_size,
                layer_norm_eps,
                ..
            } = self.config.bert;
            bert.type_vocab_size = type_vocab_size;
            bert.layer_norm_eps = layer_norm_eps;
        }
    }

    /// The tensors that a model on data of `task` starts from, as f32 on the CPU, by name.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the data's vocabulary is not the model's, or its classes are not the classifier's;
    /// [`Error::Io`], [`Error::Corrupt`].
    pub(crate) fn tensors(&self, settings: &PretrainedSettings, task: &Task) -> Result<BTreeMap<String, Tensor>> {
        let Task::Text { tokenizer, labels, .. } = task else {
            return Err(Error::Unsuited(
                "a bert model reads text, but the data are images".into(),
            ));
        };
        self.check_vocabulary(tokenizer)?;
        let order = self.order_of(settings, labels)?;
        let mut tensors = self.weights.read()?;
        if let Some(words) = tensors.get_mut(WORDS) {
            *words = words.narrow(0, 0, tokenizer.vocab_size())?.contiguous()?;
        }
        match order {
            None => tensors.retain(|name, _| !name.starts_with(CLASSIFIER)),
            Some(order) => {
                let rows = Tensor::from_vec(order, labels.len(), &Device::Cpu)?;
                let classifier = tensors.iter_mut().filter(|(name, _)| name.starts_with(CLASSIFIER));
                for (_, tensor) in classifier {
                    *tensor = tensor.index_select(&rows, 0)?;
                }
            }
        }
        Ok(tensors)
    }

    /// Of each of the data's classes the classifier's output; nothing if there is none to be kept.
    fn order_of(&self, settings: &PretrainedSettings, labels: &[String]) -> Result<Option<Vec<u32>>> {
        let Some(classes) = self
            .classes(settings)
            .filter(|_| settings.classifier == Classifier::Keep)
        else {
            return Ok(None);
        };
        let outputs = self.outputs.unwrap_or(0);
        // A file that says nothing else numbers its classes, and so may the data.
        let is_unnamed = classes
            .iter()
            .enumerate()
            .all(|(index, class)| *class == unnamed(index));
        let place = |label: &String| {
            let by_name = classes.iter().position(|class| class == label);
            let by_number = || label.parse().ok().filter(|number| is_unnamed && *number < outputs);
            by_name.or_else(by_number)
        };
        let order: Option<Vec<usize>> = labels.iter().map(place).collect();
        let sorted = order.clone().map(|mut order| {
            order.sort_unstable();
            order
        });
        match (order, sorted) {
            (Some(order), Some(sorted)) if sorted.iter().copied().eq(0..outputs) => {
                Ok(Some(order.into_iter().map(|index| index as u32).collect()))
            }
            _ => Err(Error::Unsuited(format!(
                "the classifier's classes are {classes:?}, and the data's {labels:?}: say what its outputs stand for in the \
                 data's words, `classes = [...]`, or start with another one, `classifier = \"new\"`"
            ))),
        }
    }

    fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ours, theirs) = (tokenizer.vocab_size(), self.config.bert.vocab_size);
        let advice = "give the data the `tokenizer` or the `vocab` of the model";
        if ours > theirs {
            return Err(Error::Unsuited(format!(
                "the data's vocabulary has {ours} tokens and the pretrained model {theirs}: {advice}"
            )));
        }
        let Some(vocabulary) = &self.vocabulary else {
            return Ok(());
        };
        match vocabulary.read()?.first_difference(tokenizer) {
            None => Ok(()),
            Some((id, own, other)) => Err(Error::Unsuited(format!(
                "the data's vocabulary is not that of the pretrained model, whose token {id} is `{own}` where the data's is \
                 `{other}`: {advice}"
            ))),
        }
    }
}

impl Vocabulary {
    fn among(files: &Files) -> Option<Self> {
        let tokenizer = files.get(TOKENIZER_FILE).cloned().map(Self::TokenizerJson);
        tokenizer.or_else(|| files.get(VOCAB_FILE).cloned().map(Self::VocabTxt))
    }

    fn read(&self) -> Result<Tokenizer> {
        let (Self::TokenizerJson(path) | Self::VocabTxt(path)) = self;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let origin = path.display().to_string();
        Ok(match self {
            Self::TokenizerJson(_) => Tokenizer::from_tokenizer_json(&origin, &bytes)?,
            // Its tokens are compared, and not what it makes of a text.
            Self::VocabTxt(_) => Tokenizer::from_vocab_txt(&origin, &bytes, true)?,
        })
    }
}

/// What Hugging Face calls a class that has no name.
fn unnamed(index: usize) -> String {
    format!("LABEL_{index}")
}
