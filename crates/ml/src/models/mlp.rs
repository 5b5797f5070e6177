//! Fully connected network with rectifiers. With hidden widths 300 and 100 it is LeNet-300-100 (LeCun et al. 1998).

use super::{Activations, Model};
use crate::batch::{Batch, BatchInput};
use crate::error::{Error, Result};
use crate::groups::{Group, Member, Unit};
use crate::layers::Linear;
use crate::parameters::{Initial, Parameters};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::relu;
use serde::{Deserialize, Serialize};

/// Widths of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Pixels times channels.
    pub inputs: usize,
    /// Width of each hidden layer.
    pub hidden_sizes: Vec<usize>,
}

impl MlpConfig {
    pub(super) fn widths(&self) -> Vec<(&'static str, usize)> {
        let hidden = self.hidden_sizes.iter().map(|w| ("hidden_sizes", *w));
        hidden
            .chain([
                ("inputs", self.inputs),
                ("hidden_sizes (their number)", self.hidden_sizes.len()),
            ])
            .collect()
    }

    /// One group a hidden layer.
    pub(super) fn groups(&self) -> Vec<Group> {
        let group = |(layer, size): (usize, &usize)| Group {
            name: format!("layers.{layer}"),
            unit: Unit::Neurons,
            size: *size,
            members: vec![
                Member::new(format!("layers.{layer}.weight"), 0, 1),
                Member::new(format!("layers.{layer}.bias"), 0, 1),
                Member::new(format!("layers.{}.weight", layer + 1), 1, 1),
            ],
        };
        self.hidden_sizes.iter().enumerate().map(group).collect()
    }

    pub(super) fn set_width(&mut self, group: usize, size: usize) {
        self.hidden_sizes[group] = size;
    }

    pub(super) fn macs(&self, classes: usize) -> u64 {
        self.layer_shapes(classes)
            .map(|(inputs, outputs)| (inputs * outputs) as u64)
            .sum()
    }

    pub(super) fn parameters(&self, classes: usize) -> u64 {
        self.layer_shapes(classes)
            .map(|(inputs, outputs)| ((inputs + 1) * outputs) as u64)
            .sum()
    }

    /// The image, and each layer's neurons before and after their rectifier.
    pub(super) fn activations(&self) -> Activations {
        let neurons: usize = self.hidden_sizes.iter().sum();
        Activations {
            outside: (self.inputs + 2 * neurons) as u64,
            parts: Vec::new(),
            part_input: 0,
            working: neurons as u64,
        }
    }

    fn layer_shapes(&self, classes: usize) -> impl Iterator<Item = (usize, usize)> {
        let inputs = std::iter::once(self.inputs).chain(self.hidden_sizes.iter().copied());
        let outputs = self.hidden_sizes.iter().copied().chain([classes]);
        inputs.zip(outputs)
    }
}

/// The model.
pub(super) struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    pub(super) fn new(config: &MlpConfig, p: &mut Parameters, classes: usize) -> Result<Self> {
        let layer = |(i, (inputs, outputs))| {
            Linear::new(
                p,
                &format!("layers.{i}"),
                inputs,
                outputs,
                Initial::HeUniform { fan_in: inputs },
            )
        };
        Ok(Self {
            layers: config
                .layer_shapes(classes)
                .enumerate()
                .map(layer)
                .collect::<Result<_>>()?,
        })
    }
}

impl Model for Mlp {
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let BatchInput::Images(images) = &batch.input else {
            return Err(Error::Unsuited("an mlp model reads images, but was given text".into()));
        };
        let mut x = images.flatten_from(1)?;
        let last = self.layers.len() - 1;
        for layer in &self.layers[..last] {
            x = pass.dropout(relu(&layer.forward(&x, pass)?)?)?;
        }
        self.layers[last].forward(&x, pass)
    }
}
