//! What a model reads, and whether that is what its architecture was built for.

use super::{Architecture, LARGEST};
use crate::data::{LARGEST_LENGTH, LARGEST_SIDE};
use serde::{Deserialize, Serialize};

/// What a model reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Input {
    /// Token sequences.
    Text {
        /// Longest sequence, special tokens included.
        max_length: usize,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// Images of one size, normalized as `(pixel / 255 - mean) / std`.
    Image {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// 1 for grayscale.
        channels: usize,
        /// Of the training pixels, scaled to 0..1.
        mean: f32,
        /// Of the training pixels, scaled to 0..1.
        std: f32,
    },
}

impl Input {
    /// Checks an input read from a file: sizes from 1 to what data may have, and those that `architecture`, which is valid,
    /// can read.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check(&self, architecture: &Architecture) -> Result<(), String> {
        match self {
            Self::Text { max_length, vocab_size } => {
                let Architecture::Bert(bert) = architecture else {
                    return Err("input is text, but the model reads images".into());
                };
                let longest = bert.max_position_embeddings.min(LARGEST_LENGTH);
                if !(1..=longest).contains(max_length) {
                    return Err(format!("input.max_length = {max_length}: from 1 to {longest}"));
                }
                if *vocab_size != bert.vocab_size {
                    return Err(format!(
                        "input.vocab_size = {vocab_size}, but the model has vocab_size = {}",
                        bert.vocab_size
                    ));
                }
                Ok(())
            }
            Self::Image {
                width,
                height,
                channels,
                mean,
                std,
            } => {
                for (key, size) in [("width", width), ("height", height), ("channels", channels)] {
                    if !(1..=LARGEST_SIDE).contains(size) {
                        return Err(format!("input.{key} = {size}: from 1 to {LARGEST_SIDE}"));
                    }
                }
                if !mean.is_finite() || !std.is_finite() || *std <= 0.0 {
                    return Err(format!(
                        "input.mean = {mean} and input.std = {std}: both finite, and std above 0"
                    ));
                }
                let pixels = channels * height * width;
                let is_read = match architecture {
                    Architecture::Bert(_) => return Err("input is an image, but the model reads text".into()),
                    Architecture::Mlp(mlp) => mlp.inputs == pixels,
                    Architecture::Lenet5(lenet5) => lenet5.image == [*channels, *height, *width],
                    Architecture::Resnet8(resnet8) => resnet8.image == [*channels, *height, *width],
                };
                if !is_read || pixels > LARGEST {
                    return Err(format!(
                        "input is an image of {channels}×{height}×{width}, which is not what the model reads"
                    ));
                }
                Ok(())
            }
        }
    }
}
