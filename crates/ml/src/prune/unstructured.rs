//! Masks over single weights.

use super::{Criterion, PruneRound};
use crate::error::Result;
use crate::masks::Masks;
use crate::random::{Purpose, step_of_name};
use candle_core::Tensor;
use orchestrate_kernels::RandomStream;
use std::collections::BTreeMap;

/// Masks the least important weights of every tensor in `names` (Han et al. 2015, section 3, with a fraction for the
/// threshold), and zeroes them in `tensors`. Weights that `earlier` masks stay masked.
///
/// # Errors
/// If a tensor cannot be read.
pub fn prune_weights(
    tensors: &mut BTreeMap<String, Tensor>,
    names: impl Fn(&str) -> bool,
    earlier: &Masks,
    round: &PruneRound,
    seed: u64,
) -> Result<Masks> {
    let mut masks = Masks::new();
    for (name, tensor) in tensors.iter_mut() {
        if !names(name) {
            continue;
        }
        let weights = tensor.flatten_all()?.to_vec1::<f32>()?;
        let masked = earlier
            .get(name)
            .map(|m| m.flatten_all()?.to_vec1::<f32>())
            .transpose()?;
        let mut stream = RandomStream::new(Purpose::Prune.key(seed, step_of_name(name)));
        let importance: Vec<f32> = weights
            .iter()
            .enumerate()
            .map(|(i, weight)| {
                let score = match round.criterion {
                    Criterion::Magnitude => weight.abs(),
                    Criterion::Random => stream.uniform(),
                };
                let gone = masked.as_ref().is_some_and(|m| m[i] == 0.0);
                if gone { -1.0 } else { score }
            })
            .collect();
        let remove = (weights.len() as f64 * round.neurons).round() as usize;
        let mut order: Vec<u32> = (0..weights.len() as u32).collect();
        order.sort_by(|&a, &b| {
            importance[a as usize]
                .total_cmp(&importance[b as usize])
                .then(a.cmp(&b))
        });
        let mut mask = vec![1f32; weights.len()];
        for &index in &order[..remove] {
            mask[index as usize] = 0.0;
        }
        for (kept, score) in mask.iter_mut().zip(&importance) {
            if *score < 0.0 {
                *kept = 0.0;
            }
        }
        let mask = Tensor::from_vec(mask, tensor.shape(), tensor.device())?;
        *tensor = (&*tensor * &mask)?;
        masks.insert(name.clone(), mask);
    }
    Ok(masks)
}

#[cfg(test)]
mod tests {
    use super::super::Granularity;
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_smallest_weights_go_and_the_masked_stay_gone() {
        let values = [0.1f32, -0.2, 3.0, -4.0, 0.0, 0.5];
        let tensor = Tensor::from_slice(&values, (2, 3), &Device::Cpu).expect("tensor");
        let mut tensors = BTreeMap::from([("w".to_owned(), tensor)]);
        let round = |neurons| PruneRound {
            granularity: Granularity::Unstructured,
            criterion: Criterion::Magnitude,
            heads: 0.0,
            neurons,
            round_to: 1,
        };
        let masks = prune_weights(&mut tensors, |n| n == "w", &Masks::new(), &round(0.5), 0).expect("pruned");
        assert_eq!(
            masks["w"].to_vec2::<f32>().expect("values"),
            [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
        );
        assert_eq!(
            tensors["w"].to_vec2::<f32>().expect("values"),
            [[0.0, 0.0, 3.0], [-4.0, 0.0, 0.5]]
        );
        let less = prune_weights(&mut tensors, |_| true, &masks, &round(0.0), 0).expect("pruned");
        assert_eq!(
            less["w"].sum_all().and_then(|s| s.to_scalar::<f32>()).expect("sum"),
            3.0
        );
    }
}
