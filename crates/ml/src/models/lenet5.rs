//! LeNet-5 (LeCun et al. 1998) as Caffe draws it and Han et al. 2015 prune it: two 5×5 convolutions with max pooling and
//! two fully connected layers; 431,080 parameters at its usual widths on 28×28 images.

use super::{Activations, Model};
use crate::batch::{Batch, BatchInput};
use crate::error::{Error, Result};
use crate::groups::{Group, Member, Unit};
use crate::layers::{Conv2d, ConvShape, Linear};
use crate::parameters::{Initial, Parameters};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{max_pool2d, relu};
use serde::{Deserialize, Serialize};

const KERNEL: usize = 5;
const POOL: usize = 2;

/// Widths of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lenet5Config {
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// Output channels of the two convolutions.
    pub conv_channels: [usize; 2],
    /// Neurons of the hidden fully connected layer.
    pub hidden_size: usize,
}

/// Of the second convolution.
pub(super) fn longest_sum(channels: &[usize]) -> usize {
    channels.first().map_or(0, |first| first * KERNEL * KERNEL)
}

impl Lenet5Config {
    pub(super) fn new(image: [usize; 3], conv_channels: [usize; 2], hidden_size: usize) -> Result<Self> {
        let config = Self {
            image,
            conv_channels,
            hidden_size,
        };
        if config.pooled_sides().is_none() {
            let [_, height, width] = image;
            return Err(Error::Unsuited(format!(
                "lenet5 needs images of at least 16×16 pixels, not {height}×{width}"
            )));
        }
        Ok(config)
    }

    pub(super) fn widths(&self) -> Vec<(&'static str, usize)> {
        let sides = self
            .pooled_sides()
            .map_or(0, |sides| sides[1].0.saturating_mul(sides[1].1));
        let image = self.image.iter().map(|w| ("image", *w));
        let channels = self.conv_channels.iter().map(|w| ("conv_channels", *w));
        image
            .chain(channels)
            .chain([
                ("hidden_size", self.hidden_size),
                ("image (pixels left after pooling)", sides),
            ])
            .collect()
    }

    /// Height and width behind each pooling.
    fn pooled_sides(&self) -> Option<[(usize, usize); 2]> {
        let after = |side: usize| side.checked_sub(KERNEL - 1).map(|s| s / POOL).filter(|s| *s > 0);
        let [_, height, width] = self.image;
        let first = (after(height)?, after(width)?);
        Some([first, (after(first.0)?, after(first.1)?)])
    }

    /// Pixels of one channel where the fully connected part begins.
    fn features_per_channel(&self) -> usize {
        self.pooled_sides().map_or(0, |sides| sides[1].0 * sides[1].1)
    }

    /// Three groups: the channels of each convolution, then the hidden neurons.
    pub(super) fn groups(&self) -> Vec<Group> {
        let group = |name: &str, unit, size, next: &str, block| Group {
            name: name.into(),
            unit,
            size,
            members: vec![
                Member::new(format!("{name}.weight"), 0, 1),
                Member::new(format!("{name}.bias"), 0, 1),
                Member::new(format!("{next}.weight"), 1, block),
            ],
        };
        vec![
            group("conv1", Unit::Channels, self.conv_channels[0], "conv2", 1),
            group(
                "conv2",
                Unit::Channels,
                self.conv_channels[1],
                "fc1",
                self.features_per_channel(),
            ),
            group("fc1", Unit::Neurons, self.hidden_size, "fc2", 1),
        ]
    }

    pub(super) fn set_width(&mut self, group: usize, size: usize) {
        match group {
            0 | 1 => self.conv_channels[group] = size,
            index => {
                debug_assert_eq!(index, 2, "lenet5 declares three groups");
                self.hidden_size = size;
            }
        }
    }

    pub(super) fn macs(&self, classes: usize) -> u64 {
        let [inputs, height, width] = self.image;
        let [first, second] = self.conv_channels;
        let Some([(h, w), _]) = self.pooled_sides() else {
            return 0;
        };
        let window = KERNEL * KERNEL;
        let conv1 = (height - KERNEL + 1) * (width - KERNEL + 1) * first * inputs * window;
        let conv2 = (h - KERNEL + 1) * (w - KERNEL + 1) * second * first * window;
        let features = second * self.features_per_channel();
        (conv1 + conv2 + features * self.hidden_size + self.hidden_size * classes) as u64
    }

    pub(super) fn parameters(&self, classes: usize) -> u64 {
        let [first, second] = self.conv_channels;
        let window = KERNEL * KERNEL;
        let features = second * self.features_per_channel();
        let convolutions = (self.image[0] * window + 1) * first + (first * window + 1) * second;
        (convolutions + (features + 1) * self.hidden_size + (self.hidden_size + 1) * classes) as u64
    }

    /// The image, each convolution's result before and after its rectifier and what is left of it, and the neurons. The
    /// windows that a convolution sees are written out for its products.
    pub(super) fn activations(&self) -> Activations {
        let [inputs, height, width] = self.image;
        let [first, second] = self.conv_channels;
        let Some([(h, w), _]) = self.pooled_sides() else {
            return Activations {
                outside: 0,
                parts: Vec::new(),
                part_input: 0,
                working: 0,
            };
        };
        let (places1, places2) = (
            (height - KERNEL + 1) * (width - KERNEL + 1),
            (h - KERNEL + 1) * (w - KERNEL + 1),
        );
        let convolutions = places1 * first + places2 * second;
        let pooled = h * w * first + second * self.features_per_channel();
        Activations {
            outside: (inputs * height * width + 2 * convolutions + pooled + 2 * self.hidden_size) as u64,
            parts: Vec::new(),
            part_input: 0,
            working: (KERNEL * KERNEL * (places1 * inputs + places2 * first)) as u64,
        }
    }
}

/// The model.
pub(super) struct Lenet5 {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
}

impl Lenet5 {
    pub(super) fn new(config: &Lenet5Config, p: &mut Parameters, classes: usize) -> Result<Self> {
        let [first, second] = config.conv_channels;
        let conv = |inputs, outputs| ConvShape {
            inputs,
            outputs,
            kernel: KERNEL,
            stride: 1,
            padding: 0,
        };
        let features = second * config.features_per_channel();
        let hidden = config.hidden_size;
        Ok(Self {
            conv1: Conv2d::new(p, "conv1", conv(config.image[0], first))?,
            conv2: Conv2d::new(p, "conv2", conv(first, second))?,
            fc1: Linear::new(p, "fc1", features, hidden, Initial::HeUniform { fan_in: features })?,
            fc2: Linear::new(p, "fc2", hidden, classes, Initial::HeUniform { fan_in: hidden })?,
        })
    }
}

impl Model for Lenet5 {
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let BatchInput::Images(images) = &batch.input else {
            return Err(Error::Unsuited(
                "a lenet5 model reads images, but was given text".into(),
            ));
        };
        let x = max_pool2d(&relu(&self.conv1.forward(images, pass)?)?, POOL, POOL)?;
        let x = max_pool2d(&relu(&self.conv2.forward(&x, pass)?)?, POOL, POOL)?;
        let x = pass.dropout(relu(&self.fc1.forward(&x.flatten_from(1)?, pass)?)?)?;
        self.fc2.forward(&x, pass)
    }
}
