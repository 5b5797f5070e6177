//! Everything that can go wrong in this crate, in one enum: what, where and what to do about it.

use crate::data::DataError;
use std::path::PathBuf;

/// This crate's result type.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of a compression step, a model file or a prediction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed; the message names the operation and the shapes.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The data could not be read or does not fit its description.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of a model artifact is absent.
    #[error("the model has no file {name:?}; it holds {present:?}")]
    MissingFile {
        /// The file that was looked for.
        name: &'static str,
        /// The files that are there.
        present: Vec<String>,
    },
    /// A model file exists but is truncated, hostile or of another kind.
    #[error("{} is not a valid {expected}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A weight file lacks a tensor that the model's configuration asks for.
    #[error(
        "the weights lack the tensor {name:?} of shape {shape:?}: the file and its config.json do not belong together"
    )]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// The shape the configuration asks for.
        shape: Vec<usize>,
    },
    /// A tensor has another shape or type than the model's configuration asks for.
    #[error("tensor {name:?} is {found}, but the configuration asks for {expected}")]
    WrongTensor {
        /// Name of the tensor.
        name: String,
        /// Shape or type in the file.
        found: String,
        /// Shape or type asked for.
        expected: String,
    },
    /// Tensors that no layer of the model reads.
    #[error("the weights hold tensors that no layer reads: {0:?}")]
    UnusedTensors(Vec<String>),
    /// The model cannot be built on this data, or a request makes no sense for it.
    #[error("{0}")]
    Unsuited(String),
    /// A loss, gradient or weight is NaN or infinite.
    #[error(
        "{what} is not finite at step {step}: lower learning_rate (now {learning_rate:e}), lengthen warmup, \
         or set gradient_clip"
    )]
    NotFinite {
        /// `the loss`, `the gradient`, or the parameter's name.
        what: String,
        /// Optimizer step, from 0.
        step: usize,
        /// The rate at that step.
        learning_rate: f64,
    },
    /// Trainable parameters that the loss does not reach.
    #[error("no gradient reached {0:?}: the model's forward pass does not use these parameters")]
    NoGradient(Vec<String>),
    /// A training was asked to stop, and kept a checkpoint.
    #[error("stopped after step {done} of {total}, from which the next build goes on")]
    Stopped {
        /// Optimizer steps done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// A pruned weight came back to life.
    #[error("the pruning mask of {name:?} was lost: {regrown} masked weights are not zero")]
    MaskLost {
        /// The masked parameter.
        name: String,
        /// Weights that should be zero and are not.
        regrown: usize,
    },
    /// The asked-for device is not there or not compiled in.
    #[error("device {device:?} cannot be used: {reason}")]
    Device {
        /// As the recipe names it.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
