//! The widths of a BERT, and what follows from them: what can be pruned, operations, parameters, memory.
//!
//! Heads and feed-forward neurons can be pruned layer by layer, so both are counted per layer here; the usual keys of
//! `config.json` keep the widths that the model was designed with.

use super::super::Activations;
use crate::error::{Error, Result};
use crate::groups::{Group, Member, Unit};
use serde::{Deserialize, Serialize};

/// What the pooler's output goes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolerAct {
    /// In BERT (Devlin et al. 2019).
    #[default]
    Tanh,
    /// In DistilBERT (Sanh et al. 2019).
    Relu,
}

impl PoolerAct {
    fn is_tanh(&self) -> bool {
        *self == Self::Tanh
    }
}

/// Widths of a BERT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Heads a layer, before pruning.
    pub num_attention_heads: usize,
    /// Feed-forward neurons a layer, before pruning.
    pub intermediate_size: usize,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the segment embedding; only segment 0 is used.
    pub type_vocab_size: usize,
    /// Added to the variance.
    pub layer_norm_eps: f64,
    /// Always `gelu`, in its exact form.
    pub hidden_act: String,
    /// Activation behind the pooler.
    #[serde(default, skip_serializing_if = "PoolerAct::is_tanh")]
    pub pooler_act: PoolerAct,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Heads that each layer has now.
    pub layer_heads: Vec<usize>,
    /// Feed-forward neurons that each layer has now.
    pub layer_intermediate: Vec<usize>,
}

/// The four numbers that one usually gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
}

impl BertConfig {
    pub(crate) fn new(shape: Shape, vocab_size: usize, max_positions: usize) -> Result<Self> {
        let Shape {
            layers,
            hidden,
            heads,
            intermediate,
        } = shape;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(Error::Unsuited(format!(
                "{heads} heads do not divide hidden = {hidden}"
            )));
        }
        Ok(Self {
            vocab_size,
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            intermediate_size: intermediate,
            max_position_embeddings: max_positions,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".into(),
            pooler_act: PoolerAct::Tanh,
            pad_token_id: 0,
            layer_heads: vec![heads; layers],
            layer_intermediate: vec![intermediate; layers],
        })
    }

    /// Takes over from `other` what is no width, but makes tensors mean what they do there.
    pub(crate) fn compute_as(&mut self, other: &Self) {
        self.type_vocab_size = other.type_vocab_size;
        self.layer_norm_eps = other.layer_norm_eps;
        self.pooler_act = other.pooler_act;
    }

    pub(super) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    pub(crate) fn widths(&self) -> Vec<(&'static str, usize)> {
        let mut widths = vec![
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            (
                "hidden_size / num_attention_heads",
                self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0),
            ),
            ("max_position_embeddings", self.max_position_embeddings),
            ("layer_heads and layer_intermediate of every layer", {
                let complete = self.layer_heads.len() == self.num_hidden_layers;
                usize::from(complete && self.layer_intermediate.len() == self.num_hidden_layers)
            }),
        ];
        widths.extend(self.layer_heads.iter().map(|w| ("layer_heads", *w)));
        widths.extend(self.layer_intermediate.iter().map(|w| ("layer_intermediate", *w)));
        widths
    }

    /// Two groups a layer: first its heads, then its neurons.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let of_layer = |layer: usize| {
            let path = format!("bert.encoder.layer.{layer}");
            let head = self.head_dim();
            let projections = ["query", "key", "value"].iter().flat_map(|name| {
                let projection = format!("{path}.attention.self.{name}");
                [
                    Member::new(format!("{projection}.weight"), 0, head),
                    Member::new(format!("{projection}.bias"), 0, head),
                ]
            });
            let output = Member::new(format!("{path}.attention.output.dense.weight"), 1, head);
            let heads = Group {
                name: format!("{path}.attention"),
                unit: Unit::Heads,
                size: self.layer_heads[layer],
                members: projections.chain([output]).collect(),
            };
            let neurons = Group {
                name: format!("{path}.intermediate"),
                unit: Unit::Neurons,
                size: self.layer_intermediate[layer],
                members: vec![
                    Member::new(format!("{path}.intermediate.dense.weight"), 0, 1),
                    Member::new(format!("{path}.intermediate.dense.bias"), 0, 1),
                    Member::new(format!("{path}.output.dense.weight"), 1, 1),
                ],
            };
            [heads, neurons]
        };
        (0..self.num_hidden_layers).flat_map(of_layer).collect()
    }

    pub(crate) fn set_width(&mut self, group: usize, size: usize) {
        if group.is_multiple_of(2) {
            self.layer_heads[group / 2] = size;
        } else {
            self.layer_intermediate[group / 2] = size;
        }
    }

    /// Positions that a layer computes: of the last one's, the first alone is read.
    fn queries(&self, layer: usize, tokens: usize) -> usize {
        if layer + 1 == self.num_hidden_layers {
            tokens.min(1)
        } else {
            tokens
        }
    }

    pub(crate) fn macs(&self, tokens: usize, classes: usize) -> u64 {
        let hidden = self.hidden_size;
        let layers: usize = (0..self.num_hidden_layers)
            .map(|layer| {
                let context = self.layer_heads[layer] * self.head_dim();
                let queries = self.queries(layer, tokens);
                let projections = 2 * (tokens + queries) * hidden * context;
                let scores_and_context = 2 * queries * tokens * context;
                projections + scores_and_context + 2 * queries * hidden * self.layer_intermediate[layer]
            })
            .sum();
        (layers + hidden * hidden + hidden * classes) as u64
    }

    pub(crate) fn parameters(&self, classes: usize) -> u64 {
        let hidden = self.hidden_size;
        let tables = self.vocab_size + self.max_position_embeddings + self.type_vocab_size;
        let norm = 2 * hidden;
        let layers: usize = (0..self.num_hidden_layers)
            .map(|layer| {
                let (context, neurons) = (
                    self.layer_heads[layer] * self.head_dim(),
                    self.layer_intermediate[layer],
                );
                let attention = 3 * (hidden + 1) * context + (context + 1) * hidden;
                let feed_forward = (hidden + 1) * neurons + (neurons + 1) * hidden;
                attention + feed_forward + 2 * norm
            })
            .sum();
        (tables * hidden + norm + layers + (hidden + 1) * (hidden + classes)) as u64
    }

    /// Each layer keeps queries, keys, values and context, the neurons before and after their activation, and what each of
    /// its four parts gives. The gradients of a layer take two thirds of that (measured).
    pub(crate) fn activations(&self, tokens: usize) -> Activations {
        let hidden = self.hidden_size;
        let layer = |layer: usize| {
            let (context, neurons) = (
                self.layer_heads[layer] * self.head_dim(),
                self.layer_intermediate[layer],
            );
            let queries = self.queries(layer, tokens);
            (2 * (tokens + queries) * context + queries * (2 * neurons + 4 * hidden)) as u64
        };
        let mut parts: Vec<u64> = (0..self.num_hidden_layers).map(layer).collect();
        let working = parts.iter().max().map_or(0, |largest| 2 * largest / 3);
        let last = parts.pop().unwrap_or(0);
        Activations {
            outside: (4 * tokens * hidden) as u64 + last,
            working,
            parts,
            part_input: (tokens * hidden) as u64,
        }
    }
}
