//! The `config.json` beside pretrained weights, in Hugging Face's keys: the widths of a BERT or DistilBERT, and what it calls its
//! classes.
//!
//! Whatever would make the model another function than the one that is built here is refused.

use super::family::Family;
use crate::error::{Error, Result};
use crate::models::{Architecture, BertConfig, BertShape, PoolerAct};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The position embedding that a BERT has: one learnt vector a position.
const ABSOLUTE: &str = "absolute";

/// As a recipe may ask for.
const MOST_LAYERS: usize = 256;

/// More segments than any model has.
const MOST_SEGMENTS: usize = 65_536;

/// The `problem_type` of a classifier in the sense of this program.
const SINGLE_LABEL: &str = "single_label_classification";

const PRUNED: &str = "heads or neurons of its layers are pruned, and only whole models can be read";

/// The keys of a BERT that are read; a configuration has many more, of training and of text generation.
#[derive(Debug, Deserialize)]
struct Bert {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "usual_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "usual_activation")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    /// In the files of this program.
    #[serde(default)]
    pooler_act: PoolerAct,
    /// In the files of this program: the heads that pruning left of each layer.
    layer_heads: Option<Vec<usize>>,
    /// In the files of this program: the neurons that pruning left of each layer.
    layer_intermediate: Option<Vec<usize>>,
}

/// The keys of a DistilBERT that are read.
#[derive(Debug, Deserialize)]
struct DistilBert {
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "usual_activation")]
    activation: String,
}

/// The keys that every configuration may have.
#[derive(Debug, Deserialize)]
struct Common {
    /// Names, or whatever else stands there.
    id2label: Option<BTreeMap<usize, Value>>,
    problem_type: Option<String>,
    #[serde(default)]
    pruned_heads: BTreeMap<String, Vec<usize>>,
}

fn two() -> usize {
    2
}

fn usual_epsilon() -> f64 {
    1e-12
}

fn usual_activation() -> String {
    "gelu".to_owned()
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    /// Whose names the tensors have.
    pub family: Family,
    /// The widths, as they are in the file.
    pub bert: BertConfig,
    /// The names of the classes by index, if it gives them; or why they cannot be read, where they are needed.
    pub classes: std::result::Result<Option<Vec<String>>, String>,
    /// Whether the classifier gives one class of several, as far as the file says.
    pub is_single_label: bool,
}

impl Config {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::of(&text).map_err(|detail| Error::Corrupt {
            path: path.into(),
            expected: "configuration of a BERT",
            detail,
        })
    }

    fn of(text: &str) -> std::result::Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let family = family_of(&document)?;
        // The tree is read twice, since serde's flattening would lose the types of an index.
        let common: Common = from(&document)?;
        let bert = match family {
            Family::Bert => from::<Bert>(&document)?.config()?,
            Family::DistilBert => from::<DistilBert>(&document)?.config()?,
        };
        if !common.pruned_heads.is_empty() {
            return Err(PRUNED.to_owned());
        }
        Architecture::Bert(bert.clone()).validate().map_err(|e| e.to_string())?;
        if !(bert.layer_norm_eps.is_finite() && bert.layer_norm_eps > 0.0) {
            return Err(format!("its layer_norm_eps is {}", bert.layer_norm_eps));
        }
        Ok(Self {
            family,
            bert,
            classes: common.id2label.map(names).transpose(),
            is_single_label: common.problem_type.is_none_or(|kind| kind == SINGLE_LABEL),
        })
    }
}

fn from<T: DeserializeOwned>(document: &Value) -> std::result::Result<T, String> {
    T::deserialize(document).map_err(|e| e.to_string())
}

/// Looked at first: of another architecture the other keys are others, too.
fn family_of(document: &Value) -> std::result::Result<Family, String> {
    let Some(kind) = document.get("model_type") else {
        return Ok(Family::Bert);
    };
    let found = Family::ALL.iter().find(|(name, _)| kind.as_str() == Some(name));
    found.map(|(_, family)| *family).ok_or_else(|| {
        let known: Vec<String> = Family::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("its model_type is {kind}, and only {} can be read", known.join(" and "))
    })
}

/// The widths, checked before a list of them is made.
fn widths(shape: BertShape, vocab_size: usize, positions: usize) -> std::result::Result<BertConfig, String> {
    let layers = shape.layers;
    if layers > MOST_LAYERS {
        return Err(format!("it has {layers} layers: from 1 to {MOST_LAYERS} can be read"));
    }
    BertConfig::new(shape, vocab_size, positions).map_err(|e| e.to_string())
}

impl Bert {
    fn config(self) -> std::result::Result<BertConfig, String> {
        if let Some(kind) = self.position_embedding_type.filter(|kind| kind != ABSOLUTE) {
            return Err(format!(
                "its position_embedding_type is {kind:?}, and only {ABSOLUTE:?} can be read"
            ));
        }
        if self.is_decoder {
            return Err("it is a decoder, and only encoders can be read".to_owned());
        }
        let cut = |widths: &Option<Vec<usize>>, whole| widths.iter().flatten().any(|width| *width != whole);
        if cut(&self.layer_heads, self.num_attention_heads) || cut(&self.layer_intermediate, self.intermediate_size) {
            return Err(PRUNED.to_owned());
        }
        if !(1..=MOST_SEGMENTS).contains(&self.type_vocab_size) {
            return Err(format!("its type_vocab_size is {}", self.type_vocab_size));
        }
        let shape = BertShape {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
        };
        Ok(BertConfig {
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: self.hidden_act,
            pooler_act: self.pooler_act,
            ..widths(shape, self.vocab_size, self.max_position_embeddings)?
        })
    }
}

impl DistilBert {
    fn config(self) -> std::result::Result<BertConfig, String> {
        let shape = BertShape {
            layers: self.n_layers,
            hidden: self.dim,
            heads: self.n_heads,
            intermediate: self.hidden_dim,
        };
        Ok(BertConfig {
            // Of zeros.
            type_vocab_size: 1,
            hidden_act: self.activation,
            pooler_act: PoolerAct::Relu,
            ..widths(shape, self.vocab_size, self.max_position_embeddings)?
        })
    }
}

/// The names by index, if they are numbered from 0 without gaps.
fn names(by_index: BTreeMap<usize, Value>) -> std::result::Result<Vec<String>, String> {
    if by_index.keys().copied().eq(0..by_index.len()) {
        let name = |value: Value| match value {
            Value::String(name) => name,
            other => other.to_string(),
        };
        return Ok(by_index.into_values().map(name).collect());
    }
    Err(format!(
        "its id2label does not number the classes from 0 on: {by_index:?}"
    ))
}
