//! The importance of each unit of a group: a function of the group and its weights alone.

use super::Criterion;
use crate::error::{Error, Result};
use crate::groups::Group;
use crate::random::{Purpose, step_of_name};
use candle_core::Tensor;
use orchestrate_kernels::RandomStream;
use std::collections::BTreeMap;

/// One number a unit, higher is more important.
///
/// By magnitude it is the L2 norm over all weights, in all member tensors but statistics, that would go with the unit (the group norm of
/// Fang et al. 2023, section 3.3); summed in f64 in a fixed order.
///
/// # Errors
/// [`Error::MissingTensor`] if a member is absent.
pub fn importance(
    group: &Group,
    tensors: &BTreeMap<String, Tensor>,
    criterion: Criterion,
    seed: u64,
) -> Result<Vec<f64>> {
    match criterion {
        Criterion::Random => {
            let mut stream = RandomStream::new(Purpose::Prune.key(seed, step_of_name(&group.name)));
            Ok((0..group.size).map(|_| f64::from(stream.uniform())).collect())
        }
        Criterion::Magnitude => {
            let mut squares = vec![0f64; group.size];
            for member in group.members.iter().filter(|member| member.weighs) {
                let tensor = tensors.get(&member.parameter).ok_or_else(|| Error::MissingTensor {
                    name: member.parameter.clone(),
                    shape: vec![],
                })?;
                let rows = tensor.transpose(0, member.dim)?.contiguous()?;
                let values = rows.flatten_all()?.to_vec1::<f32>()?;
                let per_unit = values.len() / group.size;
                for (sum, unit) in squares.iter_mut().zip(values.chunks_exact(per_unit)) {
                    *sum += unit.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
            }
            Ok(squares.into_iter().map(f64::sqrt).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::{Member, Unit};
    use candle_core::Device;

    #[test]
    fn magnitude_is_the_norm_over_all_members() {
        let of =
            |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu).expect("tensor");
        let tensors = BTreeMap::from([
            ("a".to_owned(), of(&[3.0, 0.0, 1.0, 0.0], (2, 2))),
            ("b".to_owned(), of(&[4.0, 0.0, 0.0, 0.0, 0.0, 2.0], (3, 2))),
        ]);
        let group = Group {
            name: "g".into(),
            unit: Unit::Neurons,
            size: 2,
            members: vec![Member::new("a", 0, 1), Member::new("b", 1, 1)],
        };
        let by_norm = importance(&group, &tensors, Criterion::Magnitude, 0).expect("computed");
        assert_eq!(by_norm, [5.0, 5f64.sqrt()]);
        let chance = |seed| importance(&group, &tensors, Criterion::Random, seed).expect("computed");
        assert_eq!(chance(1), chance(1));
        assert_ne!(chance(1), chance(2));
    }
}
