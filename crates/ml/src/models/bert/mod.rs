//! BERT encoder for classification (Devlin et al. 2019), in Hugging Face's names.

mod config;

pub(crate) use config::Shape;
pub use config::{BertConfig, PoolerAct};

use super::Model;
use crate::batch::{Batch, BatchInput};
use crate::error::{Error, Result};
use crate::layers::{Embedding, FeedForward, LayerNorm, Linear, SelfAttention};
use crate::parameters::{Initial, Parameters};
use crate::pass::{Parts, Pass};
use candle_core::{DType, Tensor};
use orchestrate_kernels::{Queries, relu, tanh};

const INITIAL: Initial = Initial::Normal(0.02);

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
        let places = positions.broadcast_add(&segment)?;
        Ok(pass.dropout(self.norm.forward_embedding(&self.words, ids, &places)?)?)
    }
}

/// One encoder layer: attention, then the feed-forward part, each with its residual and norm behind it.
struct Layer {
    /// The positions that it gives.
    queries: Queries,
    attention: SelfAttention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
}

impl Layer {
    fn new(config: &BertConfig, p: &mut Parameters, layer: usize, queries: Queries) -> Result<Self> {
        let path = format!("bert.encoder.layer.{layer}");
        let (hidden, epsilon) = (config.hidden_size, config.layer_norm_eps);
        let heads = config.layer_heads[layer];
        let context = heads * config.head_dim();
        let neurons = config.layer_intermediate[layer];
        let mut linear =
            |name: &str, inputs, outputs| Linear::new(p, &format!("{path}.{name}"), inputs, outputs, INITIAL);
        Ok(Self {
            queries,
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

    /// `x: [B, S, hidden]` to `[B, queries, hidden]`; `mask: [B, S]`, 1 where a token is.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let attended = self.attention.forward(x, self.queries, mask, pass)?;
        let x = self
            .attention_norm
            .add_and_norm(&self.queries.of(x)?, &attended, pass)?;
        let output = self.feed_forward.forward(&x, pass)?;
        self.output_norm.add_and_norm(&x, &output, pass)
    }
}

/// The model.
pub(super) struct Bert {
    embeddings: Embeddings,
    /// All but the last.
    layers: Parts<Layer>,
    /// For the first position alone: the pooler reads no other.
    last: Layer,
    pooler: Linear,
    pooler_act: PoolerAct,
    classifier: Linear,
}

impl Bert {
    pub(super) fn new(config: &BertConfig, p: &mut Parameters, classes: usize) -> Result<Self> {
        let hidden = config.hidden_size;
        let last = config
            .num_hidden_layers
            .checked_sub(1)
            .ok_or_else(|| Error::Unsuited("a bert model has a layer at least".into()))?;
        Ok(Self {
            embeddings: Embeddings::new(config, p)?,
            layers: (0..last)
                .map(|i| Layer::new(config, p, i, Queries::All))
                .collect::<Result<_>>()?,
            last: Layer::new(config, p, last, Queries::First)?,
            pooler: Linear::new(p, "bert.pooler.dense", hidden, hidden, INITIAL)?,
            pooler_act: config.pooler_act,
            classifier: Linear::new(p, "classifier", hidden, classes, INITIAL)?,
        })
    }
}

impl Model for Bert {
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let BatchInput::Text { ids, mask } = &batch.input else {
            return Err(Error::Unsuited("a bert model reads text, but was given images".into()));
        };
        let x = self.embeddings.forward(ids, pass)?;
        let keys = mask.clone();
        let x = self
            .layers
            .forward(x, pass, move |layer, x, pass| layer.forward(x, keys.as_ref(), pass))?;
        let first = self.last.forward(&x, mask.as_ref(), pass)?.squeeze(1)?;
        let pooled = self.pooler.forward(&first, pass)?;
        let pooled = match self.pooler_act {
            PoolerAct::Tanh => tanh(&pooled)?,
            PoolerAct::Relu => relu(&pooled)?,
        };
        self.classifier.forward(&pass.dropout(pooled)?, pass)
    }

    fn parts(&self) -> usize {
        self.layers.count()
    }
}
