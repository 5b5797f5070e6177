//! The `config.json` beside pretrained weights, in Hugging Face's keys: the widths of a BERT, and what it calls its classes.
//!
//! Whatever would make the model another function than the one that is built here is refused.

use crate::error::{Error, Result};
use crate::models::{Architecture, BertConfig, BertShape};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The position embedding that a BERT has: one learnt vector a position.
const ABSOLUTE: &str = "absolute";

/// As a recipe may ask for.
const MOST_LAYERS: usize = 256;

/// The keys that are read; a configuration has many more, of training and of text generation.
#[derive(Debug, Deserialize)]
struct Document {
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
    #[serde(default)]
    pruned_heads: BTreeMap<String, Vec<usize>>,
    /// In the files of this program: the heads that pruning left of each layer.
    layer_heads: Option<Vec<usize>>,
    /// In the files of this program: the neurons that pruning left of each layer.
    layer_intermediate: Option<Vec<usize>>,
    id2label: Option<BTreeMap<usize, String>>,
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
    /// The widths, as they are in the file.
    pub bert: BertConfig,
    /// The names of the classes by index, if it gives them.
    pub classes: Option<Vec<String>>,
}

impl Config {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let corrupt = |detail: String| Error::Corrupt {
            path: path.into(),
            expected: "configuration of a BERT",
            detail,
        };
        // Asked for first: of another architecture the other keys are others, too.
        let tree: serde_json::Value = serde_json::from_str(&text).map_err(|e| corrupt(e.to_string()))?;
        match tree["model_type"].as_str() {
            None | Some("bert") => {}
            Some(other) => {
                return Err(corrupt(format!(
                    "its model_type is {other:?}, and only \"bert\" can be read"
                )));
            }
        }
        let document: Document = serde_json::from_value(tree).map_err(|e| corrupt(e.to_string()))?;
        document.config().map_err(|error| corrupt(error.to_string()))
    }
}

impl Document {
    fn config(self) -> Result<Config> {
        let refuse = |why: String| Err(Error::Unsuited(why));
        if let Some(kind) = self.position_embedding_type.filter(|kind| kind != ABSOLUTE) {
            return refuse(format!(
                "its position_embedding_type is {kind:?}, and only {ABSOLUTE:?} can be read"
            ));
        }
        if self.is_decoder {
            return refuse("it is a decoder, and only encoders can be read".to_owned());
        }
        let cut = |widths: &Option<Vec<usize>>, whole| widths.iter().flatten().any(|width| *width != whole);
        if !self.pruned_heads.is_empty()
            || cut(&self.layer_heads, self.num_attention_heads)
            || cut(&self.layer_intermediate, self.intermediate_size)
        {
            return refuse("heads or neurons of its layers are pruned, and only whole models can be read".to_owned());
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let layers = self.num_hidden_layers;
            return refuse(format!("num_hidden_layers = {layers}: from 1 to {MOST_LAYERS}"));
        }
        let shape = BertShape {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate: self.intermediate_size,
        };
        let mut bert = BertConfig::new(shape, self.vocab_size, self.max_position_embeddings)?;
        bert.type_vocab_size = self.type_vocab_size;
        bert.layer_norm_eps = self.layer_norm_eps;
        bert.hidden_act = self.hidden_act;
        Architecture::Bert(bert.clone()).validate()?;
        if !(bert.layer_norm_eps.is_finite() && bert.layer_norm_eps > 0.0) {
            return refuse(format!("its layer_norm_eps is {}", bert.layer_norm_eps));
        }
        Ok(Config {
            bert,
            classes: self.id2label.map(names).transpose()?,
        })
    }
}

/// The names by index, if they are numbered from 0 without gaps.
fn names(by_index: BTreeMap<usize, String>) -> Result<Vec<String>> {
    if by_index.keys().copied().eq(0..by_index.len()) {
        return Ok(by_index.into_values().collect());
    }
    Err(Error::Unsuited(format!(
        "its id2label does not number the classes from 0 on: {by_index:?}"
    )))
}
