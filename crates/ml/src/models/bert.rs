//! BERT encoder for classification (Devlin et al. 2019), in Hugging Face's names.
//!
//! Heads and feed-forward neurons can be pruned layer by layer, so both are counted per layer here; the usual keys of
//! `config.json` keep the widths that the model was designed with.

use super::{Activations, Model};
use crate::batch::{Batch, BatchInput};
use crate::error::{Error, Result};
use crate::groups::{Group, Member, Unit};
use crate::layers::{Embedding, FeedForward, LayerNorm, Linear, SelfAttention};
use crate::parameters::{Initial, Parameters};
use crate::pass::Pass;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const INITIAL: Initial = Initial::Normal(0.02);

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
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Heads that each layer has now.
    pub layer_heads: Vec<usize>,
    /// Feed-forward neurons that each layer has now.
    pub layer_intermediate: Vec<usize>,
}

/// The four numbers that one usually gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
}

impl BertConfig {
    pub(super) fn new(shape: Shape, vocab_size: usize, max_positions: usize) -> Result<Self> {
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
            pad_token_id: 0,
            layer_heads: vec![heads; layers],
            layer_intermediate: vec![intermediate; layers],
        })
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    pub(super) fn widths(&self) -> Vec<(&'static str, usize)> {
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
    pub(super) fn groups(&self) -> Vec<Group> {
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

    pub(super) fn set_width(&mut self, group: usize, size: usize) {
        if group.is_multiple_of(2) {
            self.layer_heads[group / 2] = size;
        } else {
            self.layer_intermediate[group / 2] = size;
        }
    }

    pub(super) fn macs(&self, tokens: usize, classes: usize) -> u64 {
        let hidden = self.hidden_size;
        let layers: usize = (0..self.num_hidden_layers)
            .map(|layer| {
                let context = self.layer_heads[layer] * self.head_dim();
                let projections = 4 * tokens * hidden * context;
                let scores_and_context = 2 * tokens * tokens * context;
                projections + scores_and_context + 2 * tokens * hidden * self.layer_intermediate[layer]
            })
            .sum();
        (layers + hidden * hidden + hidden * classes) as u64
    }

    pub(super) fn parameters(&self, classes: usize) -> u64 {
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
    pub(super) fn activations(&self, tokens: usize) -> Activations {
        let hidden = self.hidden_size;
        let layer = |layer: usize| {
            let (context, neurons) = (
                self.layer_heads[layer] * self.head_dim(),
                self.layer_intermediate[layer],
            );
            (tokens * (4 * context + 2 * neurons + 4 * hidden)) as u64
        };
        let parts: Vec<u64> = (0..self.num_hidden_layers).map(layer).collect();
        Activations {
            outside: (4 * tokens * hidden) as u64,
            working: parts.iter().max().map_or(0, |largest| 2 * largest / 3),
            parts,
            part_input: (tokens * hidden) as u64,
        }
    }
}

struct Embeddings {
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: LayerNorm,
}

impl Embeddings {
    fn new(config: &BertConfig, p: &mut Parameters) -> Result<Self> {
        let path = "bert.embeddings";
        let width = config.hidden_size;
        let mut table = |name: &str, rows| Embedding::new(p, &format!("{path}.{name}"), rows, width, INITIAL);
        Ok(Self {
            words: table("word_embeddings", config.vocab_size)?,
            positions: table("position_embeddings", config.max_position_embeddings)?,
            segments: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::new(p, &format!("{path}.LayerNorm"), width, config.layer_norm_eps)?,
        })
    }

    fn forward(&self, ids: &Tensor, pass: &Pass) -> Result<Tensor> {
        let length = ids.dim(1)?;
        let positions = self
            .positions
            .forward(&Tensor::arange(0u32, length as u32, ids.device())?)?;
        let segment = self.segments.forward(&Tensor::zeros(1, DType::U32, ids.device())?)?;
        let place = positions.broadcast_add(&segment)?;
        let sum = self.words.forward(ids)?.broadcast_add(&place)?;
        Ok(pass.dropout(self.norm.forward(&sum)?)?)
    }
}

/// One encoder layer: attention, then the feed-forward part, each with its residual and norm behind it.
struct Block {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
}

impl Block {
    fn new(config: &BertConfig, p: &mut Parameters, layer: usize) -> Result<Self> {
        let path = format!("bert.encoder.layer.{layer}");
        let (hidden, epsilon) = (config.hidden_size, config.layer_norm_eps);
        let heads = config.layer_heads[layer];
        let context = heads * config.head_dim();
        let neurons = config.layer_intermediate[layer];
        let mut linear =
            |name: &str, inputs, outputs| Linear::new(p, &format!("{path}.{name}"), inputs, outputs, INITIAL);
        Ok(Self {
            attention: SelfAttention {
                heads,
                query: linear("attention.self.query", hidden, context)?,
                key: linear("attention.self.key", hidden, context)?,
                value: linear("attention.self.value", hidden, context)?,
                output: linear("attention.output.dense", context, hidden)?,
            },
            feed_forward: FeedForward {
                inner: linear("intermediate.dense", hidden, neurons)?,
                outer: linear("output.dense", neurons, hidden)?,
            },
            attention_norm: LayerNorm::new(p, &format!("{path}.attention.output.LayerNorm"), hidden, epsilon)?,
            output_norm: LayerNorm::new(p, &format!("{path}.output.LayerNorm"), hidden, epsilon)?,
        })
    }

    /// `x: [B, S, hidden]`; `mask: [B, S]`, 1 where a token is.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let attended = self.attention.forward(x, mask, pass)?;
        let x = self.attention_norm.forward_sum(x, &attended, pass)?;
        let output = self.feed_forward.forward(&x, pass)?;
        self.output_norm.forward_sum(&x, &output, pass)
    }
}

/// The model.
pub(super) struct Bert {
    embeddings: Embeddings,
    blocks: Vec<Arc<Block>>,
    pooler: Linear,
    classifier: Linear,
}

impl Bert {
    pub(super) fn new(config: &BertConfig, p: &mut Parameters, classes: usize) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            embeddings: Embeddings::new(config, p)?,
            blocks: (0..config.num_hidden_layers)
                .map(|i| Block::new(config, p, i).map(Arc::new))
                .collect::<Result<_>>()?,
            pooler: Linear::new(p, "bert.pooler.dense", hidden, hidden, INITIAL)?,
            classifier: Linear::new(p, "classifier", hidden, classes, INITIAL)?,
        })
    }
}

impl Model for Bert {
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let BatchInput::Text { ids, mask } = &batch.input else {
            return Err(Error::Unsuited("a bert model reads text, but was given images".into()));
        };
        let mut x = self.embeddings.forward(ids, pass)?;
        for block in &self.blocks {
            let (block, mask) = (Arc::clone(block), mask.clone());
            x = pass.part(&x, move |x, pass| block.forward(x, mask.as_ref(), pass))?;
        }
        let first = x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let pooled = pass.dropout(self.pooler.forward(&first, pass)?.tanh()?)?;
        self.classifier.forward(&pooled, pass)
    }

    fn parts(&self) -> usize {
        self.blocks.len()
    }
}
