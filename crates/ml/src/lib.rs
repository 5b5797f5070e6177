//! Data, models, training, distillation, pruning, quantization, evaluation and export. Knows nothing of scheduling or
//! caching: it turns files and settings into files and figures.
//!
//! From the outside in: [`steps`] has one function a step kind, each from folders to a folder; they are made of
//! [`training`], [`distillation`], [`prune`], [`quantize`] and [`evaluation`], which work on a [`models::Model`] over named
//! [`parameters`]; [`data`] prepares what they are trained on; [`predict`] runs an exported model on new input.

pub mod artifact;
pub mod batch;
pub mod checkpoint;
pub mod context;
mod course;
pub mod data;
pub mod device;
pub mod difference;
pub mod distillation;
pub mod error;
pub mod evaluation;
pub mod groups;
pub mod layers;
pub mod masks;
pub mod memory;
pub mod models;
mod numerics;
pub mod optimizer;
pub mod parameters;
pub mod pass;
pub mod predict;
pub mod pretrained;
pub mod progress;
pub mod prune;
pub mod quantize;
pub mod random;
pub mod schedule;
pub mod steps;
pub mod training;

pub use error::{Error, Result};
