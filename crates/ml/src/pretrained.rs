//! Weights that a model starts from instead of a seed: of a BERT or DistilBERT that someone trained elsewhere, in the files that
//! Hugging Face's `save_pretrained` writes.
//!
//! [`Pretrained::open`] reads `config.json` and the header of `model.safetensors`, and holds every tensor against the
//! architecture, so that whatever is missing, left over or of another shape is known before anything runs. A classifier is
//! kept if its classes are the data's, in the data's order; a table of words is kept as far as the data's vocabulary goes,
//! which must be the beginning of the model's own.

mod config;
mod family;
mod vocabulary;
mod weights;

use crate::artifact::{CONFIG_FILE, Files, TOKENIZER_FILE, WEIGHTS_FILE, files_of_folder};
use crate::data::{Task, Tokenizer};
use crate::error::{Error, Result};
use crate::masks::MASKS_FILE;
use crate::models::{Architecture, ModelSpec};
use candle_core::{DType, Device, Tensor};
use config::Config;
use family::Family;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vocabulary::{SETTINGS_FILE, VOCAB_FILE, Vocabulary};
use weights::Weights;

/// Weights in Python's own format, which can run programs when it is read.
const PICKLED_FILE: &str = "pytorch_model.bin";
/// The list of the parts of weights in several files.
const PARTS_FILE: &str = "model.safetensors.index.json";

const CLASSIFIER: &str = "classifier.";
const POOLER: &str = "bert.pooler.";
const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const SEGMENTS: &str = "bert.embeddings.token_type_embeddings.weight";

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
    /// What the classifier's outputs stand for, in their order.
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

/// The files of `folder` that say what a pretrained model is, by name.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read, [`Error::Unsuited`] if a file that is needed is not there or the model is pruned.
pub fn files_of(folder: &Path) -> Result<Files> {
    let mut files = files_of_folder(folder)?;
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
    if files.contains_key(MASKS_FILE) {
        return Err(Error::Unsuited(format!(
            "{} has a {MASKS_FILE}: its weights are pruned, and starting from them would lose that",
            folder.display()
        )));
    }
    let mut kept = vec![CONFIG_FILE, WEIGHTS_FILE];
    kept.extend(if files.contains_key(TOKENIZER_FILE) {
        [TOKENIZER_FILE].as_slice()
    } else {
        &[VOCAB_FILE, SETTINGS_FILE]
    });
    files.retain(|name, _| kept.contains(&name.as_str()));
    Ok(files)
}

/// Checks that the file at `path` is a `config.json` of something that can be started from.
///
/// # Errors
/// [`Error::Io`], [`Error::Corrupt`].
pub fn check_config(path: &Path) -> Result<()> {
    Config::read(path).map(drop)
}

/// Checks that `folder` holds something that can be started from.
///
/// # Errors
/// As [`files_of`] and [`Pretrained::open`].
pub fn check_folder(folder: &Path) -> Result<()> {
    let pretrained = Pretrained::open(&files_of(folder)?)?;
    pretrained
        .vocabulary
        .map_or(Ok(()), |vocabulary| vocabulary.read().map(drop))
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
        let weights = Weights::open(file(WEIGHTS_FILE)?, config.family)?;
        let outputs = weights.rows("classifier.weight");
        let (has_classifier, has_pooler) = (weights.has_any(CLASSIFIER), weights.has_any(POOLER));
        let shapes = Architecture::Bert(config.bert.clone()).shapes(outputs.unwrap_or(2))?;
        weights.check(&shapes, |name| {
            !has_classifier && name.starts_with(CLASSIFIER)
                || !has_pooler && name.starts_with(POOLER)
                || config.family == Family::DistilBert && name == SEGMENTS
        })?;
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

    /// What is not among the weights and must be learnt, if anything is.
    pub fn lacks(&self, settings: &PretrainedSettings) -> Option<&'static str> {
        match (settings.classifier, self.outputs) {
            (Classifier::Keep, Some(_)) if self.has_pooler => None,
            (Classifier::Keep, Some(_)) => Some("pooler"),
            (Classifier::Keep, None) | (Classifier::New, _) => Some("classifier"),
        }
    }

    /// `settings` with what they leave to the files: whether there is a classifier to keep, and what its outputs stand for.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if that is not what the classifier has, or cannot be told.
    pub fn resolve(&self, settings: PretrainedSettings) -> Result<PretrainedSettings> {
        let refuse = |why: String| Err(Error::Unsuited(why));
        let outputs = match (settings.classifier, self.outputs) {
            (Classifier::Keep, Some(outputs)) => outputs,
            (Classifier::Keep, None) | (Classifier::New, _) => {
                return match settings.classes {
                    Some(classes) => refuse(format!(
                        "`classes` names {classes:?}, but no classifier of the pretrained model is kept: a new one has the classes \
                         of the data"
                    )),
                    None => Ok(PretrainedSettings {
                        classifier: Classifier::New,
                        classes: None,
                    }),
                };
            }
        };
        if !self.config.is_single_label {
            return refuse(
                "the classifier was taught to give several classes at once, or a number, and only one class of several can be \
                 given here: start with another, `classifier = \"new\"`"
                    .to_owned(),
            );
        }
        if outputs < 2 {
            return refuse("the classifier has one output, and so tells no classes apart".to_owned());
        }
        let (classes, origin) = match (settings.classes, self.config.classes.clone()) {
            (Some(classes), _) => (classes, "`classes`"),
            (None, Err(why)) => return refuse(why),
            (None, Ok(Some(classes))) => (classes, "id2label in config.json"),
            (None, Ok(None)) => ((0..outputs).map(unnamed).collect(), "nothing"),
        };
        if classes.len() != outputs || classes.iter().collect::<BTreeSet<_>>().len() != outputs {
            return refuse(format!(
                "the classifier has {outputs} outputs, for which {origin} must name as many different classes, and it names \
                 {classes:?}"
            ));
        }
        Ok(PretrainedSettings {
            classifier: Classifier::Keep,
            classes: Some(classes),
        })
    }

    /// Checks that data which `tokenizer` cuts mean the same to the model as its own did.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if its vocabulary is not the beginning of the model's, or it cuts texts otherwise; [`Error::Io`] and
    /// [`Error::Data`] if the model's vocabulary cannot be read.
    pub fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<()> {
        self.check_size(tokenizer)?;
        self.vocabulary.as_ref().map_or(Ok(()), |own| own.check(tokenizer))
    }

    /// The part of [`Pretrained::check_vocabulary`] that is left where `tokenizer` is the model's own.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if it has more tokens than the model.
    pub fn check_size(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ours, theirs) = (tokenizer.vocab_size(), self.config.bert.vocab_size);
        if ours > theirs {
            return Err(Error::Unsuited(format!(
                "the data's vocabulary has {ours} tokens and the pretrained model {theirs}: give the data the `tokenizer` or the \
                 `vocab` of the model"
            )));
        }
        Ok(())
    }

    /// Puts what the weights say of the architecture into `architecture`, which [`Pretrained::spec`] gave on the data.
    pub(crate) fn complete(&self, architecture: &mut Architecture) {
        if let Architecture::Bert(bert) = architecture {
            bert.compute_as(&self.config.bert);
        }
    }

    /// The tensors that a model on data of `task` starts from, as f32 on the CPU, by name; `settings` are of
    /// [`Pretrained::resolve`].
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
        let order = settings.classes.as_ref().map(|classes| order_of(classes, labels));
        let order = order.transpose()?;
        let mut tensors = self.weights.read()?;
        if let Some(words) = tensors.get_mut(WORDS) {
            *words = words.narrow(0, 0, tokenizer.vocab_size())?.contiguous()?;
        }
        if self.config.family == Family::DistilBert {
            let width = self.config.bert.hidden_size;
            let none = Tensor::zeros((1, width), DType::F32, &Device::Cpu)?;
            tensors.insert(SEGMENTS.to_owned(), none);
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
}

/// Of each of the data's classes the output that stands for it, among those that stand for `classes`.
fn order_of(classes: &[String], labels: &[String]) -> Result<Vec<u32>> {
    // A file that says nothing else numbers its classes, and so may the data.
    let is_unnamed = classes
        .iter()
        .enumerate()
        .all(|(index, class)| *class == unnamed(index));
    let place = |label: &String| {
        let by_name = classes.iter().position(|class| class == label);
        let by_number = || {
            label
                .parse()
                .ok()
                .filter(|number| is_unnamed && *number < classes.len())
        };
        by_name.or_else(by_number)
    };
    let known: Vec<usize> = labels.iter().filter_map(place).collect();
    let distinct: BTreeSet<usize> = known.iter().copied().collect();
    if known.len() == labels.len() && distinct.len() == classes.len() {
        return Ok(known.into_iter().map(|index| index as u32).collect());
    }
    let advice = if known.len() == labels.len() {
        "every class of a classifier that is kept must have rows among the data that are trained on; or start with another \
         one, `classifier = \"new\"`"
    } else {
        "say what its outputs stand for in the data's words, `classes = [...]`, or start with another one, `classifier = \"new\"`"
    };
    Err(Error::Unsuited(format!(
        "the classifier's classes are {classes:?}, and the data's {labels:?}: {advice}"
    )))
}

/// What Hugging Face calls a class that has no name.
fn unnamed(index: usize) -> String {
    format!("LABEL_{index}")
}
