//! What memory the actions of a recipe are expected to need, before anything runs.
//!
//! Files are looked at no further than their sizes and headers; where those do not tell, nothing is expected.

use crate::lower::EVALUATION_BATCH;
use crate::recipe::{Data, Recipe, StepKind};
use orchestrate_ml::data::spec::{Digits, IdxFiles, Reviews, TextFiles};
use orchestrate_ml::data::{DataSpec, digits, idx};
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::memory::{Load, preparation};
use orchestrate_ml::models::{Architecture, Input, ModelSpec};
use orchestrate_ml::training::Training;
use std::collections::HashMap;
use std::path::PathBuf;

/// Bytes of one entry of a vocab.txt and of a tokenizer.json: those of BERT's have more.
const VOCAB_ENTRY: u64 = 7;
const TOKENIZER_ENTRY: u64 = 15;
/// Bytes of one token id.
const ID: u64 = 4;
/// Bytes of text to a token: words have more.
const TOKEN_TEXT: u64 = 4;
/// More bytes are never made of one by unpacking a gzip file.
const MOST_COMPRESSION: u64 = 1032;
/// Where only the files know the classes: their number hardly matters.
const SOME_CLASSES: usize = 10;

/// What is expected of a recipe's data and models.
pub(crate) struct Estimates<'a> {
    /// Of each step's model, at its widest.
    models: HashMap<&'a str, Option<Architecture>>,
    rows: HashMap<&'a str, Option<Rows>>,
}

/// The rows of a data set.
struct Rows {
    input: Input,
    /// At most.
    train_rows: usize,
    /// In memory.
    train_bytes: u64,
    test_bytes: u64,
}

impl<'a> Estimates<'a> {
    /// Looks at the data of `recipe`. Of a device that is not the processor nothing is expected.
    pub fn new(recipe: &'a Recipe) -> Self {
        let is_on_processor = recipe.device.resolve() == DeviceChoice::Cpu;
        let data = recipe.data.iter().filter(|_| is_on_processor);
        let rows: HashMap<&str, Option<Rows>> = data.map(|(name, data)| (name.as_str(), rows_of(data))).collect();
        // Of each step: the architecture that its model began with, and the data set that says what that reads.
        let mut origins: HashMap<&str, (&ModelSpec, &str)> = HashMap::new();
        let mut models = HashMap::new();
        for step in &recipe.steps {
            let origin = match &step.kind {
                StepKind::Train(train) => (&train.settings.model, train.data.as_str()),
                StepKind::Distill(distill) => (&distill.settings.model, origins[distill.teacher.as_str()].1),
                StepKind::Prune(prune) => origins[prune.input.as_str()],
                StepKind::Quantize(quantize) => origins[quantize.input.as_str()],
                StepKind::Export(export) => origins[export.input.as_str()],
                StepKind::Evaluate(evaluate) => origins[evaluate.input.as_str()],
            };
            origins.insert(&step.name, origin);
            let (spec, data) = origin;
            let input = rows.get(data).and_then(|rows| Some(&rows.as_ref()?.input));
            models.insert(step.name.as_str(), input.and_then(|input| spec.resolve(input).ok()));
        }
        Self { models, rows }
    }

    /// Preparing the data set `data`.
    pub fn preparation(&self, data: &str) -> Option<u64> {
        let rows = self.rows(data)?;
        Some(preparation(rows.train_bytes + rows.test_bytes))
    }

    /// Training the model of `step` on `data`.
    pub fn training(&self, step: &str, data: &str, settings: &Training, is_simulated: bool) -> Option<u64> {
        let rows = self.rows(data)?;
        Some(
            self.load(step, rows, rows.train_bytes)?
                .training(settings, is_simulated),
        )
    }

    /// Calibrating the model of `step` on `data`, without training it.
    pub fn calibration(&self, step: &str, data: &str) -> Option<u64> {
        let rows = self.rows(data)?;
        Some(self.load(step, rows, rows.train_bytes)?.calibration())
    }

    /// Running the model of `step` over the training rows of `data`.
    pub fn inference(&self, step: &str, data: &str) -> Option<u64> {
        let rows = self.rows(data)?;
        Some(self.load(step, rows, rows.train_bytes)?.inference(EVALUATION_BATCH))
    }

    /// Running the model of `step` over the test rows of `data`, which are read with the others.
    pub fn evaluation(&self, step: &str, data: &str) -> Option<u64> {
        let rows = self.rows(data)?;
        let load = self.load(step, rows, rows.train_bytes + rows.test_bytes)?;
        Some(load.inference(EVALUATION_BATCH))
    }

    /// Pruning the model of `step`, which is trained on `data`.
    pub fn pruning(&self, step: &str, data: &str) -> Option<u64> {
        Some(self.load(step, self.rows(data)?, 0)?.pruning())
    }

    /// Taking the pretrained model of `step`, with the rows of `data`, which are read for their classes and vocabulary.
    pub fn taking(&self, step: &str, data: &str) -> Option<u64> {
        let rows = self.rows(data)?;
        Some(self.load(step, rows, rows.train_bytes)?.pruning())
    }

    /// Exporting the model of `step`, which is trained on `data`.
    pub fn export(&self, step: &str, data: &str) -> Option<u64> {
        Some(self.load(step, self.rows(data)?, 0)?.conversion())
    }

    fn rows(&self, data: &str) -> Option<&Rows> {
        self.rows.get(data)?.as_ref()
    }

    fn load(&self, step: &str, rows: &Rows, data_bytes: u64) -> Option<Load<'_>> {
        Some(Load {
            architecture: self.models.get(step)?.as_ref()?,
            classes: SOME_CLASSES,
            tokens: match &rows.input {
                Input::Text { max_length, .. } => *max_length,
                Input::Image { .. } => 1,
            },
            rows: rows.train_rows,
            data_bytes,
        })
    }
}

fn rows_of(data: &Data) -> Option<Rows> {
    let size = |role: &str| Some(std::fs::metadata(data.files.get(role)?).ok()?.len());
    match &data.spec {
        DataSpec::Reviews(Reviews {
            train_rows,
            test_rows,
            vocab_size,
            max_length,
            ..
        }) => Some(Rows {
            input: text(data, *vocab_size, *max_length),
            train_rows: *train_rows,
            train_bytes: ids(*train_rows, *max_length),
            test_bytes: ids(*test_rows, *max_length),
        }),
        DataSpec::TextFiles(TextFiles {
            vocab_size,
            max_length,
            max_train_rows,
            max_test_rows,
            ..
        }) => {
            let bytes = |role, most_rows: &Option<usize>| {
                let all = size(role)? / TOKEN_TEXT * ID;
                Some(most_rows.map_or(all, |rows| all.min(ids(rows, *max_length))))
            };
            // A row has a character and the end of its line.
            let lines = usize::try_from(size("train")? / 2).ok()?;
            Some(Rows {
                input: text(data, *vocab_size, *max_length),
                train_rows: max_train_rows.map_or(lines, |most| most.min(lines)),
                train_bytes: bytes("train", max_train_rows)?,
                test_bytes: bytes("test", max_test_rows)?,
            })
        }
        DataSpec::Digits(Digits {
            train_rows, test_rows, ..
        }) => {
            let pixels = |rows: usize| (rows * digits::SIDE * digits::SIDE) as u64;
            Some(Rows {
                input: image([digits::SIDE; 2]),
                train_rows: *train_rows,
                train_bytes: pixels(*train_rows),
                test_bytes: pixels(*test_rows),
            })
        }
        DataSpec::IdxFiles(IdxFiles {
            max_train_rows,
            max_test_rows,
        }) => {
            let shape = |role: &str| idx::shape_of_images(data.files.get(role)?).ok();
            let ([train, height, width], [test, ..]) = (shape("train_images")?, shape("test_images")?);
            let bytes = |rows: usize, most: &Option<usize>| {
                let rows = rows.min(most.unwrap_or(rows)) as u64;
                // 32 bits of rows and 12 of each side, as the reader has them at most.
                rows * (height * width) as u64
            };
            // A header that promises what no compression gives is left to those who read the whole file.
            let is_credible = |role: &str, rows: usize| Some(bytes(rows, &None) / MOST_COMPRESSION <= size(role)?);
            if !is_credible("train_images", train)? || !is_credible("test_images", test)? {
                return None;
            }
            Some(Rows {
                input: image([height, width]),
                train_rows: max_train_rows.map_or(train, |most| most.min(train)),
                train_bytes: bytes(train, max_train_rows),
                test_bytes: bytes(test, max_test_rows),
            })
        }
    }
}

fn ids(rows: usize, max_length: usize) -> u64 {
    (rows * max_length) as u64 * ID
}

/// Of `vocab_size` tokens at most, or as many as the vocabulary's file can have.
fn text(data: &Data, vocab_size: usize, max_length: usize) -> Input {
    let given = |(role, entry): (&str, u64)| {
        let path: &PathBuf = data.files.get(role)?;
        usize::try_from(std::fs::metadata(path).ok()?.len() / entry).ok()
    };
    let files = [("vocab", VOCAB_ENTRY), ("tokenizer", TOKENIZER_ENTRY)];
    Input::Text {
        max_length,
        vocab_size: files.into_iter().find_map(given).unwrap_or(vocab_size),
    }
}

fn image([height, width]: [usize; 2]) -> Input {
    Input::Image {
        width,
        height,
        channels: 1,
        mean: 0.0,
        std: 1.0,
    }
}
