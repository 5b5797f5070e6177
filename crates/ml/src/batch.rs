//! Rows of a data set as the tensors of one batch, and the order in which training sees them.

use crate::data::{EncodedSplit, Prepared, Task};
use crate::error::{Error, Result};
use crate::models::Input;
use crate::random::Purpose;
use candle_core::{Device, Tensor};
use orchestrate_kernels::RandomStream;

/// What a model is run on.
#[derive(Debug)]
pub enum BatchInput {
    /// Token ids `u32 [B, S]`, padded to the longest, on the CPU, where ops read them; `mask: f32 [B, S]` is 1 where a token
    /// is, absent if all are.
    Text {
        /// Token ids.
        ids: Tensor,
        /// Where tokens are.
        mask: Option<Tensor>,
    },
    /// Normalized pixels `f32 [B, C, H, W]`.
    Images(Tensor),
}

/// Some rows of a split.
#[derive(Debug)]
pub struct Batch {
    /// The rows' content.
    pub input: BatchInput,
    /// Number of rows.
    pub len: usize,
}

impl Batch {
    /// A batch of token sequences.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if there is none, or all are empty.
    pub fn of_tokens(rows: &[&[u32]], pad_id: u32, device: &Device) -> Result<Self> {
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        if longest == 0 {
            return Err(Error::Unsuited("a batch without any token".into()));
        }
        let mut ids = vec![pad_id; rows.len() * longest];
        let mut mask = vec![0f32; rows.len() * longest];
        for (i, row) in rows.iter().enumerate() {
            ids[i * longest..][..row.len()].copy_from_slice(row);
            mask[i * longest..][..row.len()].fill(1.0);
        }
        let shape = (rows.len(), longest);
        let padded = rows.iter().any(|r| r.len() < longest);
        let mask = padded.then(|| Tensor::from_vec(mask, shape, device)).transpose()?;
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        Ok(Self {
            input: BatchInput::Text { ids, mask },
            len: rows.len(),
        })
    }

    /// A batch of images, `pixels: [B, C, H, W]` of 0..=255, normalized as `input` says.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the model does not read images or the pixels are of another size.
    pub fn of_pixels(pixels: &[u8], input: &Input, device: &Device) -> Result<Self> {
        let &Input::Image {
            width,
            height,
            channels,
            mean,
            std,
        } = input
        else {
            return Err(Error::Unsuited("the model reads text, but was given images".into()));
        };
        let size = width * height * channels;
        if size == 0 || pixels.is_empty() || !pixels.len().is_multiple_of(size) {
            return Err(Error::Unsuited(format!(
                "{} pixels are not whole {channels}×{height}×{width} images",
                pixels.len()
            )));
        }
        let (scale, shift) = (1.0 / (255.0 * std), mean / std);
        let values: Vec<f32> = pixels.iter().map(|&p| f32::from(p) * scale - shift).collect();
        let len = pixels.len() / size;
        let images = Tensor::from_vec(values, (len, channels, height, width), device)?;
        Ok(Self {
            input: BatchInput::Images(images),
            len,
        })
    }
}

/// One split of a prepared data set, ready to be cut into batches.
pub struct Rows<'a> {
    split: &'a EncodedSplit,
    input: Input,
    pad_id: u32,
    device: Device,
}

impl<'a> Rows<'a> {
    /// The training rows of `data`.
    pub fn train(data: &'a Prepared, device: &Device) -> Self {
        Self::new(data, &data.train, device)
    }

    /// The test rows of `data`.
    pub fn test(data: &'a Prepared, device: &Device) -> Self {
        Self::new(data, &data.test, device)
    }

    fn new(data: &'a Prepared, split: &'a EncodedSplit, device: &Device) -> Self {
        Self {
            split,
            input: input_of(data),
            pad_id: data.pad_id(),
            device: device.clone(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.split.labels().len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of `row`; 1 for an image.
    pub fn length(&self, row: usize) -> usize {
        self.split.tokens(row).map_or(1, <[u32]>::len)
    }

    /// The class of `row`.
    pub fn label(&self, row: usize) -> u32 {
        self.split.labels()[row]
    }

    /// The classes of `rows` as a tensor `u32 [B]` on the CPU, where losses read them.
    ///
    /// # Errors
    /// If there is no room.
    pub fn labels(&self, rows: &[usize]) -> Result<Tensor> {
        let labels: Vec<u32> = rows.iter().map(|&r| self.label(r)).collect();
        Ok(Tensor::from_vec(labels, rows.len(), &Device::Cpu)?)
    }

    /// The batch of `rows`, in this order.
    ///
    /// # Errors
    /// As [`Batch::of_tokens`] and [`Batch::of_pixels`].
    pub fn batch(&self, rows: &[usize]) -> Result<Batch> {
        if matches!(self.input, Input::Text { .. }) {
            let tokens: Vec<&[u32]> = rows.iter().filter_map(|&r| self.split.tokens(r)).collect();
            return Batch::of_tokens(&tokens, self.pad_id, &self.device);
        }
        let pixels: Vec<u8> = rows
            .iter()
            .filter_map(|&r| self.split.image(r))
            .flatten()
            .copied()
            .collect();
        Batch::of_pixels(&pixels, &self.input, &self.device)
    }

    /// The first `count` rows, each as a batch of its own.
    ///
    /// # Errors
    /// As [`Rows::batch`].
    pub fn singles(&self, count: usize) -> Result<Vec<Batch>> {
        (0..self.len().min(count)).map(|row| self.batch(&[row])).collect()
    }

    /// All rows in batches of like length, longest first: for evaluation, where the order does not matter.
    pub fn in_order_of_length(&self, batch_size: usize) -> Vec<Vec<usize>> {
        let mut rows: Vec<usize> = (0..self.len()).collect();
        rows.sort_by_key(|&r| (std::cmp::Reverse(self.length(r)), r));
        rows.chunks(batch_size).map(<[usize]>::to_vec).collect()
    }

    /// The batches of training epoch `epoch`: shuffled; with `by_length`, rows are first sorted by length within chunks of
    /// fifty batches, so that little is padding, and then the batches are shuffled.
    pub fn epoch(&self, order: &EpochOrder, epoch: usize) -> Vec<Vec<usize>> {
        let mut stream = RandomStream::new(Purpose::Shuffle.key(order.seed, epoch as u64));
        let mut rows: Vec<usize> = (0..self.len()).collect();
        stream.shuffle(&mut rows);
        if order.by_length {
            for chunk in rows.chunks_mut(order.batch_size * 50) {
                chunk.sort_by_key(|&r| self.length(r));
            }
        }
        let mut batches: Vec<Vec<usize>> = rows.chunks(order.batch_size).map(<[usize]>::to_vec).collect();
        if order.by_length {
            stream.shuffle(&mut batches);
        }
        batches
    }
}

/// How the rows of an epoch are ordered.
#[derive(Debug, Clone, Copy)]
pub struct EpochOrder {
    /// Rows a batch; the last of an epoch may be smaller.
    pub batch_size: usize,
    /// Whether rows of like length go together.
    pub by_length: bool,
    /// Of the recipe.
    pub seed: u64,
}

/// What a model on `data` reads.
pub fn input_of(data: &Prepared) -> Input {
    match &data.task {
        Task::Text {
            tokenizer, max_length, ..
        } => Input::Text {
            max_length: *max_length,
            vocab_size: tokenizer.vocab_size(),
        },
        &Task::Image {
            width,
            height,
            channels,
            mean,
            std,
            ..
        } => Input::Image {
            width,
            height,
            channels,
            mean,
            std,
        },
    }
}
