//! The pieces of work that are timed: which model, on how many rows of what, and what is done with them.
//!
//! A case says nothing of a peer: the driver in `benches/peers` pairs cases with peers and sets the targets.

use orchestrate_ml::models::{Input, ModelSpec};

/// What is done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Steps of training towards labels.
    Train,
    /// The forward pass of a teacher and a step of its student towards it.
    Distil,
    /// Forward passes.
    Infer,
}

impl Work {
    /// The name that the peers read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Distil => "distil",
            Self::Infer => "infer",
        }
    }
}

/// A piece of work.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is done.
    pub work: Work,
    /// The model that learns or answers.
    pub model: ModelSpec,
    /// What it reads; texts fill the whole length.
    pub input: Input,
    /// Rows of a batch.
    pub rows: usize,
    /// Batches that take turns. With one alone, the same few rows of the table of words would move at every step.
    pub batches: usize,
    /// Number of classes.
    pub classes: usize,
}

/// BERT's vocabulary.
const VOCABULARY: usize = 30_522;

/// Tokens of all batches together: as they are drawn, nearly a quarter of the vocabulary.
const TRAINING_TOKENS: usize = 8192;

impl Case {
    /// The case that the driver calls `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, String> {
        let case = match name {
            "train-bert-small" => bert(Work::Train, bert_small(), 32, 64),
            "train-bert-tiny" => bert(Work::Train, bert_tiny(), 32, 32),
            "train-bert-deep" => bert(Work::Train, bert_deep(), 256, 32),
            "distil-bert" => bert(Work::Distil, bert_tiny(), 32, 64),
            "infer-b1-s64" => bert(Work::Infer, bert_small(), 1, 64),
            "infer-b1-s128" => bert(Work::Infer, bert_small(), 1, 128),
            "infer-b8-s128" => bert(Work::Infer, bert_small(), 8, 128),
            "train-lenet5" => images(lenet5(), [1, 28, 28]),
            "train-lenet300" => images(lenet300(), [1, 28, 28]),
            "train-resnet8" => images(resnet8(), [3, 32, 32]),
            unknown => return Err(format!("there is no case {unknown:?}")),
        };
        Ok(case)
    }

    /// The teacher of [`Work::Distil`].
    pub fn teacher(&self) -> Option<ModelSpec> {
        match self.work {
            Work::Distil => Some(bert_small()),
            Work::Train | Work::Infer => None,
        }
    }

    /// Tokens of a row; 1 for an image.
    pub fn tokens(&self) -> usize {
        match self.input {
            Input::Text { max_length, .. } => max_length,
            Input::Image { .. } => 1,
        }
    }
}

fn bert(work: Work, model: ModelSpec, rows: usize, tokens: usize) -> Case {
    let input = Input::Text {
        max_length: tokens,
        vocab_size: VOCABULARY,
    };
    let batches = match work {
        Work::Train | Work::Distil => (TRAINING_TOKENS / (rows * tokens)).max(1),
        Work::Infer => 1,
    };
    Case {
        work,
        model,
        input,
        rows,
        batches,
        classes: 2,
    }
}

fn images(model: ModelSpec, [channels, height, width]: [usize; 3]) -> Case {
    let input = Input::Image {
        width,
        height,
        channels,
        mean: 0.5,
        std: 0.25,
    };
    Case {
        work: Work::Train,
        model,
        input,
        rows: 64,
        batches: 1,
        classes: 10,
    }
}

/// BERT-small of Turc et al. 2019.
fn bert_small() -> ModelSpec {
    ModelSpec::Bert {
        layers: 4,
        hidden: 512,
        heads: 8,
        intermediate: None,
        max_positions: 128,
    }
}

/// BERT-tiny of Turc et al. 2019.
fn bert_tiny() -> ModelSpec {
    ModelSpec::Bert {
        layers: 2,
        hidden: 128,
        heads: 2,
        intermediate: None,
        max_positions: 128,
    }
}

/// Deep enough that its activations are most of what training holds.
fn bert_deep() -> ModelSpec {
    ModelSpec::Bert {
        layers: 12,
        hidden: 256,
        heads: 4,
        intermediate: None,
        max_positions: 128,
    }
}

fn resnet8() -> ModelSpec {
    ModelSpec::Resnet8 {
        channels: vec![16, 32, 64],
    }
}

fn lenet5() -> ModelSpec {
    ModelSpec::Lenet5 {
        channels: vec![20, 50],
        hidden: 500,
    }
}

fn lenet300() -> ModelSpec {
    ModelSpec::Mlp { hidden: vec![300, 100] }
}
