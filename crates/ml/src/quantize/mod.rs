//! Quantization-aware training and what it ends in: calibrated ranges, and a model in integers.
//!
//! Weights are int8, symmetric, with a scale for each output channel, and where they have a codebook no more than a few of
//! these integers; activations are uint8 with a scale and zero point for each layer's input (Jacob et al. 2018, sections 2 and
//! 3). Simulation and integers share one rounding rule, that of the kernels, so that the two differ by the order of sums alone.

mod integers;
pub mod observer;
mod weights;

pub use integers::write_integers;
pub use observer::{Observer, ObserverKind};
pub(crate) use weights::PackedIndices;
pub use weights::{WeightScheme, fake_quantize};

use crate::artifact::LoadedModel;
use crate::batch::Rows;
use crate::error::{Error, Result};
use crate::pass::Pass;
use crate::progress::{Progress, Watch};
use orchestrate_kernels::{ActivationQuantizer, PackedInt8, ProductPrecision};
use std::collections::BTreeMap;

/// The most products of 8-bit integers that a layer may sum for one output: more could overflow.
pub const LONGEST_SUM: usize = PackedInt8::LONGEST;

/// Rows that are calibrated on at a time.
pub(crate) const CALIBRATION_BATCH: usize = 32;

/// Runs `model`, unquantized, on the first `count` of `rows`, its products in `precision`, so that its observers
/// see what inputs to expect.
///
/// # Errors
/// [`Error::Unsuited`] if there are no rows or the model has no observers.
pub fn calibrate(
    model: &LoadedModel,
    rows: &Rows,
    count: usize,
    precision: ProductPrecision,
    watch: Watch,
) -> Result<()> {
    if model.parameters.observers().is_empty() {
        return Err(Error::Unsuited("the model has no layer that can be quantized".into()));
    }
    let chosen: Vec<usize> = (0..rows.len().min(count)).collect();
    if chosen.is_empty() {
        return Err(Error::Unsuited("there are no rows to calibrate on".into()));
    }
    let batches = chosen.chunks(CALIBRATION_BATCH);
    let total = batches.len();
    for (done, batch) in batches.enumerate() {
        model
            .model
            .forward(&rows.batch(batch)?, &Pass::calibration().with_precision(precision))?;
        watch(&Progress {
            done: done + 1,
            total,
            loss: None,
            accuracy: None,
            rows_per_second: None,
        });
    }
    Ok(())
}

/// The input quantizer of every layer, as its observer has it now.
///
/// # Errors
/// [`Error::Unsuited`] if a layer never saw an input.
pub fn quantizers(model: &LoadedModel) -> Result<BTreeMap<String, ActivationQuantizer>> {
    let of_layer = |(path, observer): (&String, &std::sync::Arc<Observer>)| match observer.quantizer() {
        Some(quantizer) => Ok((path.clone(), quantizer)),
        None => Err(Error::Unsuited(format!(
            "layer {path} saw no input while it was calibrated"
        ))),
    };
    model.parameters.observers().iter().map(of_layer).collect()
}
