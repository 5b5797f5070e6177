//! The models, one architecture a file, and what the rest of the crate may ask of any of them.

mod bert;
mod input;
mod lenet5;
mod mlp;
mod resnet8;

pub(crate) use bert::Shape as BertShape;
pub use bert::{BertConfig, PoolerAct};
pub use input::Input;
pub use lenet5::Lenet5Config;
pub use mlp::MlpConfig;
pub use resnet8::Resnet8Config;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::groups::Group;
use crate::parameters::Parameters;
use crate::pass::Pass;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The largest width, and the most pixels of an image, that a file may ask for.
const LARGEST: usize = 1 << 24;

/// The only activation of a BERT's feed-forward part: GELU in its exact form.
const HIDDEN_ACT: &str = "gelu";

/// A classifier that can be run.
pub trait Model: Send + Sync {
    /// Unnormalized class scores `[B, classes]`.
    ///
    /// # Errors
    /// If the batch is of the wrong kind or a tensor operation fails.
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor>;

    /// How many of its parts run through [`Parts`](crate::pass::Parts): all but the last of them gain by gradient checkpointing.
    fn parts(&self) -> usize {
        0
    }
}

/// Numbers that are held of one example while a model is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activations {
    /// Kept for the backward pass by what is no part in the sense of [`Parts`](crate::pass::Parts).
    pub outside: u64,
    /// Kept by each part.
    pub parts: Vec<u64>,
    /// What alone is kept of a part with gradient checkpointing.
    pub part_input: u64,
    /// For a moment, beside what is kept.
    pub working: u64,
}

/// An architecture with its real widths: the `config.json` of a model, in Hugging Face's keys where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum Architecture {
    /// BERT encoder with a pooler and a classifier (Devlin et al. 2019).
    Bert(BertConfig),
    /// Fully connected network (LeNet-300-100 by default; LeCun et al. 1998).
    Mlp(MlpConfig),
    /// LeNet-5 in Caffe's widths, as Han et al. 2015 prune it.
    Lenet5(Lenet5Config),
    /// Residual network of eight layers (He et al. 2016).
    Resnet8(Resnet8Config),
}

impl Architecture {
    /// Builds the model over `parameters`, for `classes` classes.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape, or left over.
    pub fn build(&self, parameters: &mut Parameters, classes: usize) -> Result<Box<dyn Model>> {
        let model: Box<dyn Model> = match self {
            Self::Bert(config) => Box::new(bert::Bert::new(config, parameters, classes)?),
            Self::Mlp(config) => Box::new(mlp::Mlp::new(config, parameters, classes)?),
            Self::Lenet5(config) => Box::new(lenet5::Lenet5::new(config, parameters, classes)?),
            Self::Resnet8(config) => Box::new(resnet8::Resnet8::new(config, parameters, classes)?),
        };
        parameters.finish()?;
        Ok(model)
    }

    /// The shape of every parameter, by name, for `classes` classes.
    ///
    /// # Errors
    /// If the widths do not fit each other.
    pub fn shapes(&self, classes: usize) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut outline = Parameters::outline();
        self.build(&mut outline, classes)?;
        let shape = |(name, tensor): (String, Tensor)| (name, tensor.dims().to_vec());
        Ok(outline.floats().into_iter().map(shape).collect())
    }

    /// The prunable groups at the present widths, in a fixed order.
    pub fn groups(&self) -> Vec<Group> {
        match self {
            Self::Bert(config) => config.groups(),
            Self::Mlp(config) => config.groups(),
            Self::Lenet5(config) => config.groups(),
            Self::Resnet8(config) => config.groups(),
        }
    }

    /// The same architecture after group `index` (of [`Architecture::groups`]) was cut to `size` units.
    pub fn with_width(&self, index: usize, size: usize) -> Self {
        let mut changed = self.clone();
        match &mut changed {
            Self::Bert(config) => config.set_width(index, size),
            Self::Mlp(config) => config.set_width(index, size),
            Self::Lenet5(config) => config.set_width(index, size),
            Self::Resnet8(config) => config.set_width(index, size),
        }
        changed
    }

    /// Multiply-accumulates of one forward pass over one example; for text, of `tokens` tokens.
    ///
    /// Matrix products, convolutions and attention only: norms, activations and softmax are not counted.
    pub fn macs(&self, tokens: usize, classes: usize) -> u64 {
        match self {
            Self::Bert(config) => config.macs(tokens, classes),
            Self::Mlp(config) => config.macs(classes),
            Self::Lenet5(config) => config.macs(classes),
            Self::Resnet8(config) => config.macs(classes),
        }
    }

    /// How many numbers training moves: of weights, biases, embeddings and norms.
    pub fn parameters(&self, classes: usize) -> u64 {
        match self {
            Self::Bert(config) => config.parameters(classes),
            Self::Mlp(config) => config.parameters(classes),
            Self::Lenet5(config) => config.parameters(classes),
            Self::Resnet8(config) => config.parameters(classes),
        }
    }

    /// What training holds of one example; for text, of `tokens` tokens.
    pub fn activations(&self, tokens: usize) -> Activations {
        match self {
            Self::Bert(config) => config.activations(tokens),
            Self::Mlp(config) => config.activations(),
            Self::Lenet5(config) => config.activations(),
            Self::Resnet8(config) => config.activations(),
        }
    }

    /// Parts of the model that run in f32 even when its layers run on integers.
    pub fn float_operations(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(config) => match config.pooler_act {
                PoolerAct::Tanh => &[
                    "attention scores and context",
                    "softmax",
                    "layer_norm",
                    "gelu",
                    "tanh",
                    "residual sums",
                ],
                PoolerAct::Relu => &[
                    "attention scores and context",
                    "softmax",
                    "layer_norm",
                    "gelu",
                    "relu",
                    "residual sums",
                ],
            },
            Self::Mlp(_) => &["relu"],
            Self::Lenet5(_) => &["relu", "max_pool"],
            Self::Resnet8(_) => &["relu", "residual sums", "average_pool"],
        }
    }

    /// Checks widths read from a file, so that a hostile one cannot ask for absurd memory or divide by zero, and that the
    /// activation is the one there is.
    ///
    /// # Errors
    /// [`Error::Unsuited`], naming the key.
    pub fn validate(&self) -> Result<()> {
        let widths: Vec<(&str, usize)> = match self {
            Self::Bert(config) => config.widths(),
            Self::Mlp(config) => config.widths(),
            Self::Lenet5(config) => config.widths(),
            Self::Resnet8(config) => config.widths(),
        };
        if let Self::Bert(config) = self
            && config.hidden_act != HIDDEN_ACT
        {
            return Err(Error::Unsuited(format!(
                "hidden_act = {:?} in config.json: only {HIDDEN_ACT:?} can be run",
                config.hidden_act
            )));
        }
        match widths.iter().find(|(_, w)| *w == 0 || *w > LARGEST) {
            Some((key, width)) => Err(Error::Unsuited(format!(
                "{key} = {width} in config.json: from 1 to {LARGEST}"
            ))),
            None => Ok(()),
        }
    }
}

/// `[model.NAME]` of a recipe: an architecture without what only the data can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "lowercase")]
pub enum ModelSpec {
    /// See [`BertConfig`].
    Bert {
        /// Encoder layers.
        layers: usize,
        /// Width of the residual stream.
        hidden: usize,
        /// Attention heads a layer; they divide `hidden`.
        heads: usize,
        /// Neurons of each feed-forward layer; four times `hidden` if absent.
        intermediate: Option<usize>,
        /// Longest input in tokens.
        max_positions: usize,
    },
    /// See [`MlpConfig`].
    Mlp {
        /// Width of each hidden layer.
        hidden: Vec<usize>,
    },
    /// See [`Lenet5Config`].
    Lenet5 {
        /// Output channels of the two convolutions.
        channels: Vec<usize>,
        /// Width of the hidden fully connected layer.
        hidden: usize,
    },
    /// See [`Resnet8Config`].
    Resnet8 {
        /// Channels of the three stages.
        channels: Vec<usize>,
    },
}

impl ModelSpec {
    /// The most products that one output of a layer sums, as far as that does not depend on the data.
    pub fn longest_sum(&self) -> usize {
        match self {
            Self::Bert {
                hidden, intermediate, ..
            } => *hidden.max(&intermediate.unwrap_or(4 * hidden)),
            Self::Mlp { hidden } => hidden.iter().copied().max().unwrap_or(0),
            Self::Lenet5 { channels, hidden } => lenet5::longest_sum(channels).max(*hidden),
            Self::Resnet8 { channels } => resnet8::longest_sum(channels),
        }
    }

    /// Completes the architecture with the shape of `input`.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the model cannot read such data.
    pub fn resolve(&self, input: &Input) -> Result<Architecture> {
        match (self, input) {
            (
                Self::Bert {
                    layers,
                    hidden,
                    heads,
                    intermediate,
                    max_positions,
                },
                Input::Text { max_length, vocab_size },
            ) => {
                if max_length > max_positions {
                    return Err(Error::Unsuited(format!(
                        "the data's max_length is {max_length} tokens, but the model has max_positions = {max_positions}: \
                         raise max_positions or lower max_length"
                    )));
                }
                let intermediate = intermediate.unwrap_or(4 * hidden);
                let shape = bert::Shape {
                    layers: *layers,
                    hidden: *hidden,
                    heads: *heads,
                    intermediate,
                };
                Ok(Architecture::Bert(BertConfig::new(shape, *vocab_size, *max_positions)?))
            }
            (
                Self::Mlp { hidden },
                Input::Image {
                    width,
                    height,
                    channels,
                    ..
                },
            ) => {
                let inputs = width * height * channels;
                Ok(Architecture::Mlp(MlpConfig {
                    inputs,
                    hidden_sizes: hidden.clone(),
                }))
            }
            (
                Self::Lenet5 { channels, hidden },
                Input::Image {
                    width,
                    height,
                    channels: inputs,
                    ..
                },
            ) => {
                let convolutions: [usize; 2] = channels.as_slice().try_into().map_err(|_| {
                    Error::Unsuited(format!("lenet5 has two convolutions, but channels = {channels:?}"))
                })?;
                Ok(Architecture::Lenet5(Lenet5Config::new(
                    [*inputs, *height, *width],
                    convolutions,
                    *hidden,
                )?))
            }
            (
                Self::Resnet8 { channels },
                Input::Image {
                    width,
                    height,
                    channels: inputs,
                    ..
                },
            ) => {
                let stages: [usize; 3] = channels
                    .as_slice()
                    .try_into()
                    .map_err(|_| Error::Unsuited(format!("resnet8 has three stages, but channels = {channels:?}")))?;
                Ok(Architecture::Resnet8(Resnet8Config::new(
                    [*inputs, *height, *width],
                    stages,
                )?))
            }
            (Self::Bert { .. }, Input::Image { .. }) => Err(Error::Unsuited(
                "a bert model reads text, but the data are images".into(),
            )),
            (Self::Mlp { .. } | Self::Lenet5 { .. } | Self::Resnet8 { .. }, Input::Text { .. }) => Err(
                Error::Unsuited("this model reads images, but the data are text: use architecture = \"bert\"".into()),
            ),
        }
    }
}

/// `config.json`: everything but the weights that is needed to run a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Its shape.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// Class names by index, as Hugging Face writes them.
    pub id2label: BTreeMap<usize, String>,
    /// What it reads.
    pub input: Input,
    /// Widths of the prunable groups before any pruning, by group name: pruning targets are relative to these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dense_widths: BTreeMap<String, usize>,
}

impl ModelConfig {
    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.id2label.len()
    }

    /// Checks the input read from a file: see [`Input::check`].
    pub(crate) fn check_input(&self) -> std::result::Result<(), String> {
        self.input.check(&self.architecture)
    }

    /// Checks labels read from a file: numbered from 0 without gaps, and all different.
    pub(crate) fn check_labels(&self) -> std::result::Result<(), String> {
        let distinct: BTreeSet<&String> = self.id2label.values().collect();
        if self.id2label.keys().copied().eq(0..self.classes()) && distinct.len() == self.classes() && self.classes() > 1
        {
            return Ok(());
        }
        Err(format!(
            "id2label must number two or more different labels from 0 on: {:?}",
            self.id2label
        ))
    }
}

#[cfg(test)]
mod tests;
