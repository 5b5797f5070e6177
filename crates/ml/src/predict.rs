//! Runs a model from a folder on new input: lines of text, PNG pictures, IDX files.

use crate::artifact::{LoadedModel, ModelArtifact, files_of_folder};
use crate::batch::Batch;
use crate::data::{Task, Tokenizer, idx, png};
use crate::error::{Error, Result};
use crate::evaluation::{Latency, highest};
use crate::models::Input;
use crate::parameters::Use;
use crate::pass::Pass;
pub use candle_core::Device;
use orchestrate_kernels::RandomStream;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const BATCH: usize = 32;

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable class.
    pub label: String,
    /// Probability of every class; they sum to 1.
    pub scores: BTreeMap<String, f64>,
}

/// A model ready to answer.
pub struct Predictor {
    artifact: ModelArtifact,
    model: LoadedModel,
    tokenizer: Option<Tokenizer>,
    device: Device,
}

impl Predictor {
    /// Opens the exported model in `folder`. A model in integers runs on the CPU whatever the `device`.
    ///
    /// # Errors
    /// If a file is missing or corrupt, or the files do not belong together.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let artifact = ModelArtifact::open(&files_of_folder(folder)?)?;
        let device = artifact.inference_device(device)?;
        let model = artifact.load(&device, Use::Infer)?;
        let tokenizer = match artifact.task()? {
            Task::Text { tokenizer, .. } => Some(tokenizer),
            Task::Image { .. } => None,
        };
        Ok(Self {
            artifact,
            model,
            tokenizer,
            device,
        })
    }

    /// Whether it reads text; else it reads images.
    pub fn reads_text(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The answers to `texts`, in order.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the model reads images.
    pub fn texts(&self, texts: &[String]) -> Result<Vec<Prediction>> {
        let (Some(tokenizer), Input::Text { max_length, .. }) = (&self.tokenizer, &self.artifact.config.input) else {
            return Err(Error::Unsuited(
                "this model reads images: give it PNG or IDX files".into(),
            ));
        };
        let encoded = tokenizer.encode_all(texts, *max_length)?;
        let rows: Vec<&[u32]> = encoded.iter().map(Vec::as_slice).collect();
        let batches = rows
            .chunks(BATCH)
            .map(|rows| Batch::of_tokens(rows, tokenizer.pad_id(), &self.device));
        self.answers(batches)
    }

    /// The answers to the images of `file`: one of a PNG, any number of an IDX file (gzipped or not).
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the model reads text or the images are of another size, [`Error::Data`] if the file cannot be
    /// read.
    pub fn images(&self, file: &Path) -> Result<Vec<Prediction>> {
        let input = &self.artifact.config.input;
        let &Input::Image {
            width,
            height,
            channels,
            ..
        } = input
        else {
            return Err(Error::Unsuited("this model reads text: give it one text a line".into()));
        };
        if channels != 1 {
            return Err(Error::Unsuited(format!(
                "the model reads images of {channels} channels, but only gray ones can be read"
            )));
        }
        let is_png = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        let pixels = if is_png {
            png::read_grayscale(file, width, height)?
        } else {
            let images = idx::read_images(file)?;
            if (images.width, images.height) != (width, height) {
                return Err(Error::Unsuited(format!(
                    "{}: images of {}×{} pixels, but the model reads {width}×{height}",
                    file.display(),
                    images.width,
                    images.height
                )));
            }
            images.pixels
        };
        let batches = pixels
            .chunks(BATCH * width * height)
            .map(|rows| Batch::of_pixels(rows, input, &self.device));
        self.answers(batches)
    }

    fn answers(&self, batches: impl Iterator<Item = Result<Batch>>) -> Result<Vec<Prediction>> {
        let labels = &self.artifact.config.id2label;
        let mut answers = Vec::new();
        for batch in batches {
            let logits = self
                .model
                .model
                .forward(&batch?, &Pass::inference())?
                .to_vec2::<f32>()?;
            answers.extend(logits.iter().map(|row| {
                let probabilities = softmax(row);
                let scores = labels.values().cloned().zip(probabilities).collect();
                Prediction {
                    label: labels[&highest(row)].clone(),
                    scores,
                }
            }));
        }
        Ok(answers)
    }

    /// Times single predictions of random input, of `tokens` tokens where the model reads text (its longest if `None`).
    ///
    /// # Errors
    /// [`Error::Unsuited`] if the model cannot read that many tokens.
    pub fn bench(&self, tokens: Option<usize>, budget: Duration) -> Result<Latency> {
        Latency::measure(self.model.model.as_ref(), &[self.random_input(tokens)?], budget)
    }

    fn random_input(&self, tokens: Option<usize>) -> Result<Batch> {
        let mut stream = RandomStream::new(crate::random::Purpose::Bench.key(0, 0));
        match &self.artifact.config.input {
            Input::Text { max_length, vocab_size } => {
                let tokens = tokens.unwrap_or(*max_length);
                if tokens == 0 || tokens > *max_length {
                    return Err(Error::Unsuited(format!(
                        "--tokens {tokens}: the model reads 1 to {max_length}"
                    )));
                }
                let ids: Vec<u32> = (0..tokens)
                    .map(|_| (stream.uniform() * *vocab_size as f32) as u32)
                    .collect();
                Batch::of_tokens(&[&ids], 0, &self.device)
            }
            input @ Input::Image {
                width,
                height,
                channels,
                ..
            } => {
                let pixels: Vec<u8> = (0..width * height * channels)
                    .map(|_| (stream.uniform() * 256.0) as u8)
                    .collect();
                Batch::of_pixels(&pixels, input, &self.device)
            }
        }
    }

    /// The opened files.
    pub fn artifact(&self) -> &ModelArtifact {
        &self.artifact
    }

    /// Parameters of the model, scales left out.
    pub fn parameters(&self) -> usize {
        self.model.parameters.count()
    }
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = scores.iter().map(|s| libm::exp(f64::from(s - top))).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}
