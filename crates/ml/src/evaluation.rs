//! Accuracy, loss and predictions of a model over a split, and its latency.

use crate::artifact::{Files, LoadedModel, ModelArtifact};
use crate::batch::{Batch, Rows};
use crate::distillation::read_logits;
use crate::error::{Error, Result};
use crate::models::Model;
use crate::pass::Pass;
use crate::progress::{Progress, Watch};
use orchestrate_kernels::ProductPrecision;
use std::time::{Duration, Instant};

/// The model's logits `[rows, classes]`, row-major, in the order of the rows, by matrix products in `precision`.
///
/// # Errors
/// If the model does not fit the data.
pub fn logits_of(
    model: &dyn Model,
    rows: &Rows,
    batch_size: usize,
    precision: ProductPrecision,
    watch: Watch,
) -> Result<Vec<f32>> {
    let batches = rows.in_order_of_length(batch_size);
    let mut logits = Vec::new();
    let (started, mut seen) = (Instant::now(), 0);
    for (done, indices) in batches.iter().enumerate() {
        let pass = Pass::inference().with_precision(precision);
        let output = model.forward(&rows.batch(indices)?, &pass)?;
        let classes = output.dim(1)?;
        logits.resize(rows.len() * classes, 0.0);
        for (values, row) in output.to_vec2::<f32>()?.iter().zip(indices) {
            logits[row * classes..][..classes].copy_from_slice(values);
        }
        seen += indices.len();
        let speed = seen as f64 / started.elapsed().as_secs_f64();
        watch(&Progress {
            done: done + 1,
            total: batches.len(),
            loss: None,
            accuracy: None,
            rows_per_second: Some(speed),
        });
    }
    Ok(logits)
}

/// How well a model does on a split.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Share of rows whose highest score is their class, 0..=1.
    pub accuracy: f64,
    /// Mean cross entropy in nats.
    pub loss: f64,
    /// `[rows, classes]`.
    pub logits: Vec<f32>,
}

/// Accuracy and loss of `model` on `rows`.
///
/// # Errors
/// If the model does not fit the data, or a score is not a number.
pub fn quality(model: &LoadedModel, rows: &Rows, batch_size: usize, watch: Watch) -> Result<Quality> {
    if rows.is_empty() {
        return Err(Error::Unsuited("there are no rows to evaluate on".into()));
    }
    let logits = logits_of(model.model.as_ref(), rows, batch_size, ProductPrecision::F32, watch)?;
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(Error::Unsuited("the model's scores are not finite".into()));
    }
    let classes = logits.len() / rows.len();
    let (mut correct, mut loss) = (0usize, 0f64);
    for (row, scores) in logits.chunks_exact(classes).enumerate() {
        let label = rows.label(row) as usize;
        correct += usize::from(highest(scores) == label);
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = scores.iter().map(|s| libm::exp(f64::from(s - top))).sum();
        loss += libm::log(sum) - f64::from(scores[label] - top);
    }
    let count = rows.len() as f64;
    Ok(Quality {
        accuracy: correct as f64 / count,
        loss: loss / count,
        logits,
    })
}

/// Index of the highest score, the first among equals.
pub fn highest(scores: &[f32]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).fold(0, better)
}

/// How a second set of logits differs from a first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Share of rows with the same prediction, 0..=1.
    pub same_predictions: f64,
    /// Rows whose prediction differs.
    pub different: usize,
    /// Largest difference of two logits.
    pub largest_difference: f64,
}

impl Agreement {
    /// Compares two `[rows, classes]` sets.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if they are of different size or empty.
    pub fn between(left: &[f32], right: &[f32], classes: usize) -> Result<Self> {
        if left.len() != right.len() || left.is_empty() {
            return Err(Error::Unsuited(
                "two sets of predictions on different rows cannot be compared".into(),
            ));
        }
        let pairs = left.chunks_exact(classes).zip(right.chunks_exact(classes));
        let different = pairs.filter(|(l, r)| highest(l) != highest(r)).count();
        let differences = left.iter().zip(right).map(|(l, r)| f64::from((l - r).abs()));
        let rows = left.len() / classes;
        Ok(Self {
            same_predictions: 1.0 - different as f64 / rows as f64,
            different,
            largest_difference: differences.fold(0.0, f64::max),
        })
    }

    /// Compares `logits` with those that an evaluation left in `files`.
    ///
    /// # Errors
    /// As [`Agreement::between`], or if the files cannot be read.
    pub fn with_files(logits: &[f32], files: &Files, rows: usize, classes: usize) -> Result<Self> {
        Self::between(&read_logits(files, rows, classes)?, logits, classes)
    }
}

/// Times of single predictions, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Predictions timed.
    pub runs: usize,
}

impl Latency {
    /// Times `model` on `batches`, taken in turn, for about `budget` after a warm-up of a fifth of it.
    ///
    /// # Errors
    /// [`Error::Unsuited`] if there is no batch or the model does not fit them.
    pub fn measure(model: &dyn Model, batches: &[Batch], budget: Duration) -> Result<Self> {
        if batches.is_empty() {
            return Err(Error::Unsuited("there are no rows to measure latency on".into()));
        }
        let mut turns = batches.iter().cycle();
        let mut once = || -> Result<Duration> {
            let batch = turns.next().expect("a cycle over a batch or more never ends");
            let started = Instant::now();
            model.forward(batch, &Pass::inference())?.to_vec2::<f32>()?;
            Ok(started.elapsed())
        };
        let warm = Instant::now();
        while warm.elapsed() < budget / 5 {
            once()?;
        }
        let (measuring, mut times) = (Instant::now(), Vec::new());
        while measuring.elapsed() < budget || times.len() < 20 {
            times.push(once()?.as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Ok(Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            runs: times.len(),
        })
    }
}

/// What a model is, apart from how well it does: taken from the file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of `model.safetensors`.
    pub file_bytes: u64,
    /// Parameters, without quantization's scales.
    pub parameters: usize,
    /// Of these, not zero.
    pub nonzero: usize,
    /// Multiply-accumulates of one forward pass over one example.
    pub macs: u64,
    /// Tokens of that example; 1 for an image.
    pub tokens: usize,
}

impl Size {
    /// The size of `model`, its work counted at the mean length of `rows`, rounded up.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of(artifact: &ModelArtifact, model: &LoadedModel, rows: &Rows) -> Result<Self> {
        let total: usize = (0..rows.len()).map(|r| rows.length(r)).sum();
        let tokens = total.div_ceil(rows.len().max(1));
        Ok(Self {
            file_bytes: artifact.weights_bytes()?,
            parameters: model.parameters.count(),
            nonzero: model.parameters.count_nonzero()?,
            macs: artifact.config.architecture.macs(tokens, artifact.config.classes()),
            tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_predictions_and_the_largest_difference() {
        let left = [0.0, 1.0, 3.0, 2.0];
        let right = [0.5, 1.0, 2.0, 2.5];
        let agreement = Agreement::between(&left, &right, 2).expect("equal sizes");
        assert_eq!(
            agreement,
            Agreement {
                same_predictions: 0.5,
                different: 1,
                largest_difference: 1.0
            }
        );
        assert!(Agreement::between(&left, &right[..2], 2).is_err());
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(highest(&[1.0, 2.0, 2.0]), 1);
    }
}
