//! ResNet-8: the residual network for small images of He et al. 2016, section 4.2, at n = 1 block a stage (6n + 2 = 8
//! layers with weights), in the form of MLPerf Tiny (Banbury et al. 2021) and in torchvision's names.
//!
//! A 3×3 convolution, three stages of one basic block each, global average pooling and a classifier. Stages 2 and 3 halve
//! the image, and their shortcuts are 1×1 convolutions (option B of the paper). Every convolution has a batch norm behind
//! it, which a quantized or exported model has folded.
//!
//! What a stage's block gives, its shortcut gives too, and the next stage reads: these channels go together or stay. The
//! channels inside a block are free.

use super::{Activations, Model};
use crate::batch::{Batch, BatchInput};
use crate::error::{Error, Result};
use crate::groups::{Group, Member, Unit};
use crate::layers::{ConvNorm, ConvShape, Linear};
use crate::parameters::{Initial, Parameters};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{add_relu, global_average_pool};
use serde::{Deserialize, Serialize};

const STAGES: usize = 3;
const KERNEL: usize = 3;
const LEAST_SIDE: usize = 8;

/// Widths of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resnet8Config {
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// Channels that each stage gives; the first convolution gives as many as stage 1.
    pub stage_channels: [usize; STAGES],
    /// Channels between the two convolutions of each stage's block.
    pub inner_channels: [usize; STAGES],
}

/// Of the widest convolution.
pub(super) fn longest_sum(channels: &[usize]) -> usize {
    channels.iter().max().map_or(0, |widest| widest * KERNEL * KERNEL)
}

impl Resnet8Config {
    pub(super) fn new(image: [usize; 3], stage_channels: [usize; STAGES]) -> Result<Self> {
        let [_, height, width] = image;
        if height.min(width) < LEAST_SIDE {
            return Err(Error::Unsuited(format!(
                "resnet8 needs images of at least {LEAST_SIDE}×{LEAST_SIDE} pixels, not {height}×{width}"
            )));
        }
        Ok(Self {
            image,
            stage_channels,
            inner_channels: stage_channels,
        })
    }

    pub(super) fn widths(&self) -> Vec<(&'static str, usize)> {
        let image = self.image.iter().map(|w| ("image", *w));
        let stages = self.stage_channels.iter().map(|w| ("stage_channels", *w));
        let inner = self.inner_channels.iter().map(|w| ("inner_channels", *w));
        image.chain(stages).chain(inner).collect()
    }

    fn stages(&self) -> [Stage; STAGES] {
        std::array::from_fn(|i| Stage {
            path: format!("layer{}.0", i + 1),
            inputs: self.stage_channels[i.saturating_sub(1)],
            inner: self.inner_channels[i],
            outputs: self.stage_channels[i],
            stride: if i == 0 { 1 } else { 2 },
        })
    }

    /// Two groups a stage: first what it gives, then what is inside its block.
    pub(super) fn groups(&self) -> Vec<Group> {
        let stages = self.stages();
        let of_stage = |(i, stage): (usize, &Stage)| {
            let path = &stage.path;
            let mut stream = made_by(&format!("{path}.conv2"), &format!("{path}.bn2"));
            stream.extend(match stage.shortcut() {
                Some((conv, norm)) => made_by(&conv, &norm),
                None => made_by("conv1", "bn1"),
            });
            if stage.shortcut().is_none() {
                stream.push(read_by(&format!("{path}.conv1")));
            }
            match stages.get(i + 1) {
                Some(next) => {
                    stream.push(read_by(&format!("{}.conv1", next.path)));
                    stream.extend(next.shortcut().map(|(conv, _)| read_by(&conv)));
                }
                None => stream.push(read_by("fc")),
            }
            let mut inner = made_by(&format!("{path}.conv1"), &format!("{path}.bn1"));
            inner.push(read_by(&format!("{path}.conv2")));
            let group = |name: String, size, members| Group {
                name,
                unit: Unit::Channels,
                size,
                members,
            };
            [
                group(format!("layer{}", i + 1), stage.outputs, stream),
                group(format!("{path}.conv1"), stage.inner, inner),
            ]
        };
        stages.iter().enumerate().flat_map(of_stage).collect()
    }

    pub(super) fn set_width(&mut self, group: usize, size: usize) {
        if group.is_multiple_of(2) {
            self.stage_channels[group / 2] = size;
        } else {
            self.inner_channels[group / 2] = size;
        }
    }

    pub(super) fn macs(&self, classes: usize) -> u64 {
        let [channels, mut height, mut width] = self.image;
        let window = KERNEL * KERNEL;
        let mut sum = height * width * window * channels * self.stage_channels[0];
        for stage in self.stages() {
            (height, width) = (height.div_ceil(stage.stride), width.div_ceil(stage.stride));
            let shortcut = stage.shortcut().map_or(0, |_| stage.inputs * stage.outputs);
            let block = window * (stage.inputs * stage.inner + stage.inner * stage.outputs);
            sum += height * width * (block + shortcut);
        }
        (sum + self.stage_channels[STAGES - 1] * classes) as u64
    }

    /// A batch norm's gain and shift among them, its running statistics not.
    pub(super) fn parameters(&self, classes: usize) -> u64 {
        let window = KERNEL * KERNEL;
        let stem = (window * self.image[0] + 2) * self.stage_channels[0];
        let blocks = self.stages().map(|stage| {
            let Stage {
                inputs, inner, outputs, ..
            } = stage;
            let shortcut = stage.shortcut().map_or(0, |_| (inputs + 2) * outputs);
            (window * inputs + 2) * inner + (window * inner + 2) * outputs + shortcut
        });
        (stem + blocks.iter().sum::<usize>() + (self.stage_channels[STAGES - 1] + 1) * classes) as u64
    }

    /// The image, and each convolution's result, its norm's and the sum with the shortcut's. The windows that a convolution
    /// of stride 2 sees are written out for its products, and two gradients of the first stage are there at a time.
    pub(super) fn activations(&self) -> Activations {
        let [channels, mut height, mut width] = self.image;
        let mut kept = height * width * (channels + 2 * self.stage_channels[0]);
        let mut working = 2 * height * width * self.stage_channels[0];
        for stage in self.stages() {
            (height, width) = (height.div_ceil(stage.stride), width.div_ceil(stage.stride));
            let (shortcut, windows) = match stage.shortcut() {
                Some(_) => (2 * stage.outputs, KERNEL * KERNEL * stage.inputs),
                None => (0, 0),
            };
            kept += height * width * (2 * stage.inner + 3 * stage.outputs + shortcut);
            working += height * width * windows;
        }
        Activations {
            outside: kept as u64,
            parts: Vec::new(),
            part_input: 0,
            working: working as u64,
        }
    }
}

/// The tensors that have a unit each along their first dimension: a convolution's and its norm's.
fn made_by(conv: &str, norm: &str) -> Vec<Member> {
    vec![
        Member::new(format!("{conv}.weight"), 0, 1),
        Member::new(format!("{norm}.weight"), 0, 1),
        Member::new(format!("{norm}.bias"), 0, 1),
        Member::statistic(format!("{norm}.running_mean")),
        Member::statistic(format!("{norm}.running_var")),
    ]
}

/// The weight that takes a unit in.
fn read_by(layer: &str) -> Member {
    Member::new(format!("{layer}.weight"), 1, 1)
}

/// Widths of one stage.
struct Stage {
    path: String,
    inputs: usize,
    inner: usize,
    outputs: usize,
    stride: usize,
}

impl Stage {
    /// Where the convolution and the norm of the shortcut are, if it is not the identity.
    fn shortcut(&self) -> Option<(String, String)> {
        let path = &self.path;
        (self.stride > 1).then(|| (format!("{path}.downsample.0"), format!("{path}.downsample.1")))
    }
}

/// A kernel of 3×3 that keeps the image's size, or halves it.
fn conv3x3(inputs: usize, outputs: usize, stride: usize) -> ConvShape {
    ConvShape {
        inputs,
        outputs,
        kernel: KERNEL,
        stride,
        padding: KERNEL / 2,
    }
}

/// Two convolutions, whose result is added to their input or to a convolution of it.
struct Block {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(stage: &Stage, p: &mut Parameters) -> Result<Self> {
        let Stage {
            path,
            inputs,
            inner,
            outputs,
            stride,
        } = stage;
        let mut conv = |i, shape| ConvNorm::new(p, &format!("{path}.conv{i}"), &format!("{path}.bn{i}"), shape);
        let first = conv(1, conv3x3(*inputs, *inner, *stride))?;
        let second = conv(2, conv3x3(*inner, *outputs, 1))?;
        let projection = ConvShape {
            inputs: *inputs,
            outputs: *outputs,
            kernel: 1,
            stride: *stride,
            padding: 0,
        };
        let shortcut = stage
            .shortcut()
            .map(|(conv, norm)| ConvNorm::new(p, &conv, &norm, projection));
        Ok(Self {
            first,
            second,
            shortcut: shortcut.transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.first.forward_relu(x, pass)?;
        let y = self.second.forward(&y, pass)?;
        match &self.shortcut {
            Some(shortcut) => Ok(add_relu(&y, &shortcut.forward(x, pass)?)?),
            None => Ok(add_relu(&y, x)?),
        }
    }
}

/// The model.
pub(super) struct Resnet8 {
    stem: ConvNorm,
    blocks: Vec<Block>,
    classifier: Linear,
}

impl Resnet8 {
    pub(super) fn new(config: &Resnet8Config, p: &mut Parameters, classes: usize) -> Result<Self> {
        let [first, _, features] = config.stage_channels;
        Ok(Self {
            stem: ConvNorm::new(p, "conv1", "bn1", conv3x3(config.image[0], first, 1))?,
            blocks: config
                .stages()
                .iter()
                .map(|stage| Block::new(stage, p))
                .collect::<Result<_>>()?,
            classifier: Linear::new(p, "fc", features, classes, Initial::HeUniform { fan_in: features })?,
        })
    }
}

impl Model for Resnet8 {
    fn forward(&self, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let BatchInput::Images(images) = &batch.input else {
            return Err(Error::Unsuited(
                "a resnet8 model reads images, but was given text".into(),
            ));
        };
        let mut x = self.stem.forward_relu(images, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        let features = pass.dropout(global_average_pool(&x)?)?;
        self.classifier.forward(&features, pass)
    }
}
