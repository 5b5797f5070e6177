//! One round of pruning.

use super::Figures;
use crate::artifact::{Files, ModelArtifact, NewModel};
use crate::error::{Error, Result};
use crate::groups::Unit;
use crate::masks::Masks;
use crate::models::ModelConfig;
use crate::parameters::Use;
use crate::prune::{Granularity, PruneRound, prune_units, prune_weights};
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::Path;

/// Removes what is least important, without any training.
///
/// # Errors
/// If the model cannot be read, or has been quantized.
pub fn prune(model: &Files, round: &PruneRound, seed: u64, out: &Path) -> Result<Figures> {
    let artifact = ModelArtifact::open(model)?;
    let loaded = artifact.load(&Device::Cpu, Use::Infer)?;
    if !loaded.parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "a quantized model is not pruned: put the prune step before the quantize step".into(),
        ));
    }
    let tensors = loaded.parameters.floats();
    let (config, tensors, masks) = match round.granularity {
        Granularity::Structured => {
            if !loaded.masks.is_empty() {
                return Err(Error::Unsuited(
                    "the model has masks of an unstructured pruning, which whole units cannot be removed under: \
                     prune structured first"
                        .into(),
                ));
            }
            let (config, tensors) = prune_units(&artifact.config, &tensors, round, seed)?;
            (config, tensors, Masks::new())
        }
        Granularity::Unstructured => {
            let mut tensors = tensors;
            let weights = loaded.parameters.weight_names();
            let prunable = |name: &str| weights.contains(name) && !name.contains("embeddings");
            let masks = prune_weights(&mut tensors, prunable, &loaded.masks, round, seed)?;
            (artifact.config.clone(), tensors, masks)
        }
    };
    let new = NewModel {
        config: &config,
        tokenizer: artifact.tokenizer.as_deref(),
        floats: &tensors,
        quantizers: &BTreeMap::new(),
        codebooks: &BTreeMap::new(),
        masks: &masks,
    };
    new.write(out)?;
    let parameters = tensors.iter().filter(|(name, _)| !loaded.parameters.is_state(name));
    let kept: usize = parameters.map(|(_, tensor)| tensor.elem_count()).sum();
    warn_if_little_was_removed(&config, round);
    Ok(Figures::of_metrics([
        ("parameters_before", loaded.parameters.count() as f64),
        ("parameters", kept as f64),
        ("weight_sparsity", masked_share(&masks)?),
    ]))
}

/// Tells where `round_to` kept much more than was asked for.
fn warn_if_little_was_removed(config: &ModelConfig, round: &PruneRound) {
    for group in config.architecture.groups() {
        let Some(dense) = config.dense_widths.get(&group.name) else {
            continue;
        };
        let what = match group.unit {
            // Heads are few, and not rounded.
            Unit::Heads => continue,
            Unit::Neurons => "neurons",
            Unit::Channels => "channels",
        };
        let missed = round.neurons - (1.0 - group.size as f64 / *dense as f64);
        if missed > 0.1 && missed > 1.0 / *dense as f64 {
            tracing::warn!(
                "{}: {:.0} % of {dense} {what} were to go, {:.0} % are gone: lower round_to (now {}), or ask for less",
                group.name,
                100.0 * round.neurons,
                100.0 * (round.neurons - missed),
                round.round_to
            );
        }
    }
}

/// Share of the maskable weights that are masked, 0..=1.
fn masked_share(masks: &Masks) -> Result<f64> {
    let (mut masked, mut all) = (0, 0);
    for mask in masks.values() {
        masked += mask
            .flatten_all()?
            .to_vec1::<f32>()?
            .iter()
            .filter(|kept| **kept == 0.0)
            .count();
        all += mask.elem_count();
    }
    Ok(if all > 0 { masked as f64 / all as f64 } else { 0.0 })
}
