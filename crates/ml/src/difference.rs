//! How two files of an artifact differ, in words: for sets of tensors the first that differs and by how much.

use crate::parameters::WEIGHT_CODEBOOK;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How the file at `new` differs from the one at `old`; `name` is what both are called. For files that do not.
pub fn describe_difference(name: &str, old: &Path, new: &Path) -> String {
    let (old, new) = match (fs::read(old), fs::read(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(error), _) | (_, Err(error)) => return format!("{name} differs, and cannot be read: {error}"),
    };
    let tensors = match (SafeTensors::deserialize(&old), SafeTensors::deserialize(&new)) {
        (Ok(old), Ok(new)) => tensor_difference(&old, &new),
        (Ok(_), Err(_)) | (Err(_), _) => None,
    };
    let difference = tensors.unwrap_or_else(|| byte_difference(&old, &new));
    format!("{name}: {difference}")
}

fn byte_difference(old: &[u8], new: &[u8]) -> String {
    let at = old.iter().zip(new).position(|(old, new)| old != new);
    match at {
        Some(at) => format!("byte {at} differs first"),
        None => format!("it has {} bytes and had {}", new.len(), old.len()),
    }
}

/// The first tensor, in the order of their names, that differs.
fn tensor_difference(old: &SafeTensors, new: &SafeTensors) -> Option<String> {
    let names: BTreeSet<&str> = old.names().into_iter().chain(new.names()).collect();
    // Indices are packed, so that their bytes are no values.
    let is_packed = |name: &str| names.contains(format!("{name}{WEIGHT_CODEBOOK}").as_str());
    names
        .iter()
        .find_map(|&name| match (old.tensor(name), new.tensor(name)) {
            (Ok(_), Err(_)) => Some(format!("tensor {name} is missing this time")),
            (Err(_), _) => Some(format!("tensor {name} is new this time")),
            (Ok(old), Ok(new)) if old.shape() != new.shape() || old.dtype() != new.dtype() => Some(format!(
                "tensor {name} was {:?} {:?} and is {:?} {:?}",
                old.dtype(),
                old.shape(),
                new.dtype(),
                new.shape()
            )),
            (Ok(old), Ok(new)) if old.data() == new.data() => None,
            (Ok(old), Ok(new)) if old.dtype() == Dtype::U8 && is_packed(name) => Some(format!(
                "tensor {name} {:?} of packed indices: {}",
                old.shape(),
                byte_difference(old.data(), new.data())
            )),
            (Ok(old), Ok(new)) => Some(value_difference(name, &old, &new)),
        })
}

/// How many values of two tensors of one shape and type differ, and by how much.
fn value_difference(name: &str, old: &TensorView, new: &TensorView) -> String {
    let shape = old.shape();
    let pairs = match (values(old), values(new)) {
        (Some(old), Some(new)) => old.into_iter().zip(new),
        (None, _) | (_, None) => return format!("tensor {name} {shape:?} differs"),
    };
    let differing: Vec<(usize, (f64, f64))> = pairs
        .enumerate()
        .filter(|(_, (old, new))| old.to_bits() != new.to_bits())
        .collect();
    let count = old.data().len() / old.dtype().bitsize().div_ceil(8).max(1);
    let Some((first, (was, is))) = differing.first() else {
        return format!("tensor {name} {shape:?} differs");
    };
    let most = differing
        .iter()
        .map(|(_, (old, new))| (old - new).abs())
        .fold(0.0, f64::max);
    format!(
        "tensor {name} {shape:?} differs in {} of {count} values, by at most {most:.3e}; first at {:?}, which was {was} and is {is}",
        differing.len(),
        position(*first, shape),
    )
}

/// Where the value number `index` stands in a tensor of `shape`.
fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|length| {
            let at = index % length;
            index /= length;
            at
        })
        .collect();
    position.reverse();
    position
}

/// The values of a tensor of a type that our files have.
fn values(tensor: &TensorView) -> Option<Vec<f64>> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Some(
            data.as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b).into())
                .collect(),
        ),
        Dtype::F64 => Some(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        Dtype::U32 => Some(
            data.as_chunks()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b).into())
                .collect(),
        ),
        Dtype::I8 => Some(data.iter().map(|b| b.cast_signed().into()).collect()),
        Dtype::U8 => Some(data.iter().map(|b| (*b).into()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{RawTensor, write_tensors};

    fn difference(old: &[(&'static str, &[f32], &[usize])], new: &[(&'static str, &[f32], &[usize])]) -> String {
        let raw = |tensors: &[(&'static str, &[f32], &[usize])]| -> Vec<(&str, RawTensor)> {
            let of =
                |(name, values, shape): &(&'static str, &[f32], &[usize])| (*name, RawTensor::of_slice(values, shape));
            tensors.iter().map(of).collect()
        };
        difference_of_raw(raw(old), raw(new))
    }

    fn difference_of_raw(old: Vec<(&str, RawTensor)>, new: Vec<(&str, RawTensor)>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, tensors: Vec<(&str, RawTensor)>| {
            let path = folder.path().join(name);
            write_tensors(tensors.into_iter(), &path).expect("written");
            path
        };
        describe_difference("model.safetensors", &write("old", old), &write("new", new))
    }

    #[test]
    fn the_first_tensor_that_differs_is_told_and_by_how_much() {
        let a: (&str, &[f32], &[usize]) = ("a", &[1.0, 2.0], &[2]);
        let b: (&str, &[f32], &[usize]) = ("b", &[0.0, 1.0, 2.0, 3.0], &[2, 2]);
        let other: (&str, &[f32], &[usize]) = ("b", &[0.0, 1.0, 2.5, 2.0], &[2, 2]);
        assert_eq!(
            difference(&[a, b], &[a, other]),
            "model.safetensors: tensor b [2, 2] differs in 2 of 4 values, by at most 1.000e0; first at [1, 0], which was 2 \
             and is 2.5"
        );
        assert_eq!(
            difference(&[a, b], &[a]),
            "model.safetensors: tensor b is missing this time"
        );
        assert_eq!(
            difference(&[b], &[a, b]),
            "model.safetensors: tensor a is new this time"
        );
        assert_eq!(
            difference(&[b], &[("b", &[0.0, 1.0, 2.0, 3.0], &[4])]),
            "model.safetensors: tensor b was F32 [2, 2] and is F32 [4]"
        );
    }

    #[test]
    fn packed_indices_differ_in_bytes() {
        let file = |indices: [u8; 4]| {
            let tensor = |dtype, shape: &[usize], bytes: &[u8]| RawTensor {
                dtype,
                shape: shape.to_vec(),
                bytes: bytes.to_vec(),
            };
            vec![
                ("a", tensor(Dtype::U8, &[2, 2], &indices)),
                ("a_codebook", tensor(Dtype::I8, &[4], &[0x81, 0, 1, 2])),
            ]
        };
        assert_eq!(
            difference_of_raw(file([1, 2, 3, 4]), file([1, 2, 7, 4])),
            "model.safetensors: tensor a [2, 2] of packed indices: byte 2 differs first"
        );
    }

    #[test]
    fn other_files_differ_in_bytes() {
        assert_eq!(byte_difference(b"abc", b"abd"), "byte 2 differs first");
        assert_eq!(byte_difference(b"abc", b"ab"), "it has 2 bytes and had 3");
    }
}
