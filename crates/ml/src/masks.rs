//! Pruning masks: which weights of a parameter are to stay zero. They are part of the artifact, are enforced by the
//! optimizer after every update, and checked before anything is published.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// By parameter name, a tensor of the parameter's shape, 1 where a weight is kept and 0 where it is pruned.
pub type Masks = BTreeMap<String, Tensor>;

/// The file of an artifact that holds the masks.
pub const MASKS_FILE: &str = "masks.safetensors";

/// Writes `masks` as u8 tensors.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn write_masks(masks: &Masks, path: &Path) -> Result<()> {
    let mut bytes = Vec::with_capacity(masks.len());
    for (name, mask) in masks {
        let kept: Vec<u8> = mask
            .flatten_all()?
            .to_vec1::<f32>()?
            .into_iter()
            .map(|v| u8::from(v != 0.0))
            .collect();
        bytes.push((name, mask.dims().to_vec(), kept));
    }
    let view = |(name, shape, kept)| {
        (
            name,
            crate::artifact::RawTensor {
                dtype: Dtype::U8,
                shape,
                bytes: kept,
            },
        )
    };
    crate::artifact::write_tensors(bytes.into_iter().map(view), path)
}

/// Reads what [`write_masks`] wrote.
///
/// # Errors
/// [`Error::Io`], [`Error::Corrupt`].
pub fn read_masks(path: &Path, device: &Device) -> Result<Masks> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let corrupt = |detail: String| Error::Corrupt {
        path: path.into(),
        expected: "file of masks",
        detail,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let mut masks = Masks::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::U8 || view.data().iter().any(|b| *b > 1) {
            return Err(corrupt(format!("{name:?} is not a mask of zeros and ones")));
        }
        let values: Vec<f32> = view.data().iter().map(|&b| f32::from(b)).collect();
        masks.insert(name.to_owned(), Tensor::from_vec(values, view.shape(), device)?);
    }
    Ok(masks)
}

/// Checks that every masked weight of `parameters` is zero.
///
/// # Errors
/// [`Error::MaskLost`], [`Error::MissingTensor`] for a mask without its parameter.
pub fn check_masks(masks: &Masks, parameters: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, mask) in masks {
        let Some(parameter) = parameters.get(name) else {
            return Err(Error::MissingTensor {
                name: name.clone(),
                shape: mask.dims().to_vec(),
            });
        };
        let weights = parameter.flatten_all()?.to_vec1::<f32>()?;
        let kept = mask.flatten_all()?.to_vec1::<f32>()?;
        let regrown = weights
            .iter()
            .zip(&kept)
            .filter(|(w, k)| **k == 0.0 && **w != 0.0)
            .count();
        if regrown > 0 || weights.len() != kept.len() {
            return Err(Error::MaskLost {
                name: name.clone(),
                regrown,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (2, values.len() / 2), &Device::Cpu).expect("a small tensor")
    }

    #[test]
    fn masks_survive_the_file_and_notice_regrowth() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(MASKS_FILE);
        let masks = Masks::from([("w".to_owned(), tensor(&[1.0, 0.0, 0.0, 1.0]))]);
        write_masks(&masks, &path).expect("written");
        let read = read_masks(&path, &Device::Cpu).expect("read");
        assert_eq!(read["w"].to_vec2::<f32>().expect("values"), [[1.0, 0.0], [0.0, 1.0]]);

        let good = BTreeMap::from([("w".to_owned(), tensor(&[3.0, 0.0, 0.0, -1.0]))]);
        check_masks(&read, &good).expect("masks hold");
        let bad = BTreeMap::from([("w".to_owned(), tensor(&[3.0, 0.5, 0.0, -1.0]))]);
        assert!(matches!(
            check_masks(&read, &bad),
            Err(Error::MaskLost { regrown: 1, .. })
        ));
    }
}
