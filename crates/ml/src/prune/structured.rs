//! Physical removal of the least important units of every group.

use super::PruneRound;
use super::importance::importance;
use crate::error::{Error, Result};
use crate::groups::{Group, Unit};
use crate::models::ModelConfig;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Shrinks a model: returns its new configuration and tensors. Every group keeps at least one unit (or `round_to`).
///
/// # Errors
/// [`Error::MissingTensor`], or if a tensor operation fails.
pub fn prune_units(
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    round: &PruneRound,
    seed: u64,
) -> Result<(ModelConfig, BTreeMap<String, Tensor>)> {
    let mut config = config.clone();
    let mut tensors = tensors.clone();
    for (index, group) in config.architecture.groups().into_iter().enumerate() {
        let dense = *config.dense_widths.entry(group.name.clone()).or_insert(group.size);
        let keep = units_to_keep(&group, dense, round);
        if keep == group.size {
            continue;
        }
        let kept = most_important(&importance(&group, &tensors, round.criterion, seed)?, keep);
        shrink(&group, &kept, &mut tensors)?;
        config.architecture = config.architecture.with_width(index, keep);
    }
    Ok((config, tensors))
}

fn units_to_keep(group: &Group, dense: usize, round: &PruneRound) -> usize {
    let fraction = match group.unit {
        Unit::Heads => round.heads,
        Unit::Neurons | Unit::Channels => round.neurons,
    };
    // Heads are few and already wide: a multiple is asked of neurons and channels only.
    let multiple = match group.unit {
        Unit::Heads => 1,
        Unit::Neurons | Unit::Channels => round.round_to.max(1),
    };
    let wanted = (dense as f64 * (1.0 - fraction)).round() as usize;
    wanted.max(1).next_multiple_of(multiple).min(group.size)
}

/// The indices of the `keep` highest values, ascending; of equal ones the first stay.
fn most_important(values: &[f64], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(keep);
    order.sort_unstable();
    order
}

/// Keeps only the units `kept` in every member tensor of `group`.
pub(crate) fn shrink(group: &Group, kept: &[usize], tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for member in &group.members {
        let tensor = tensors.get_mut(&member.parameter).ok_or_else(|| Error::MissingTensor {
            name: member.parameter.clone(),
            shape: vec![],
        })?;
        let indices: Vec<u32> = kept
            .iter()
            .flat_map(|unit| unit * member.block..(unit + 1) * member.block)
            .map(|i| i as u32)
            .collect();
        let indices = Tensor::from_vec(indices, kept.len() * member.block, tensor.device())?;
        *tensor = tensor.index_select(&indices, member.dim)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Criterion, Granularity};
    use super::*;

    #[test]
    fn the_highest_stay_in_their_order() {
        assert_eq!(most_important(&[1.0, 5.0, 3.0, 5.0], 2), [1, 3]);
        assert_eq!(most_important(&[2.0, 2.0, 2.0], 2), [0, 1]);
    }

    #[test]
    fn widths_follow_the_dense_model_and_never_reach_zero() {
        let round = |heads, neurons, round_to| PruneRound {
            granularity: Granularity::Structured,
            criterion: Criterion::Magnitude,
            heads,
            neurons,
            round_to,
        };
        let group = |unit, size| Group {
            name: "g".into(),
            unit,
            size,
            members: vec![],
        };
        assert_eq!(units_to_keep(&group(Unit::Neurons, 75), 100, &round(0.5, 0.5, 1)), 50);
        assert_eq!(units_to_keep(&group(Unit::Neurons, 75), 100, &round(0.5, 0.5, 8)), 56);
        assert_eq!(units_to_keep(&group(Unit::Neurons, 75), 100, &round(0.5, 0.1, 1)), 75);
        assert_eq!(units_to_keep(&group(Unit::Heads, 8), 8, &round(0.99, 0.5, 8)), 1);
    }
}
