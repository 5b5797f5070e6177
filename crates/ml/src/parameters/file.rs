//! A store out of a `model.safetensors`, whose names and types say which precision each tensor is of.

use super::{INPUT_SCALE, INPUT_ZERO_POINT, IntegerWeight, Parameters, Use, WEIGHT_CODEBOOK, WEIGHT_SCALE};
use crate::error::{Error, Result};
use crate::quantize::PackedIndices;
use candle_core::{Device, Tensor};
use orchestrate_kernels::{ActivationQuantizer, Codebook};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

impl Parameters {
    /// Reads a `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`] for anything that is not a well-formed safetensors file of f32, i8 and u8.
    pub fn read(path: &Path, device: &Device, purpose: Use) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let corrupt = |detail: String| Error::Corrupt {
            path: path.into(),
            expected: "safetensors file",
            detail,
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let mut store = Self::empty(device, purpose);
        let mut zero_points = BTreeMap::new();
        for (name, view) in file.iter() {
            match view.dtype() {
                Dtype::F32 => {
                    let tensor = Tensor::from_vec(floats_of(view.data()), view.shape(), device)?;
                    store.floats.insert(name.to_owned(), tensor);
                }
                Dtype::I8 if view.shape().len() == 1 && name.ends_with(WEIGHT_CODEBOOK) => {
                    let levels = view.data().iter().map(|&b| b.cast_signed()).collect();
                    let codebook = Codebook::new(levels).map_err(|e| corrupt(format!("{name}: {e}")))?;
                    let weight = name.strip_suffix(WEIGHT_CODEBOOK).unwrap_or(name).to_owned();
                    store.codebooks.insert(weight, Arc::new(codebook));
                }
                Dtype::I8 => {
                    let values = view.data().iter().map(|&b| b.cast_signed()).collect();
                    let weight = IntegerWeight {
                        values,
                        scales: Vec::new(),
                    };
                    store.integers.insert(name.to_owned(), (view.shape().to_vec(), weight));
                }
                Dtype::U8 if name.ends_with(INPUT_ZERO_POINT) && view.data().len() == 1 => {
                    zero_points.insert(name.trim_end_matches(INPUT_ZERO_POINT).to_owned(), view.data()[0]);
                }
                Dtype::U8 if view.shape().len() == 2 => {
                    let indices = PackedIndices {
                        bytes: view.data().to_vec(),
                        row_bytes: view.shape()[1],
                    };
                    store.packed.insert(name.to_owned(), (indices, Vec::new()));
                }
                other => return Err(corrupt(format!("tensor {name:?} has the unsupported type {other:?}"))),
            }
        }
        store.attach_scales(zero_points).map_err(corrupt)?;
        Ok(store)
    }

    /// Moves scales and zero points from the tensors to what they belong to.
    fn attach_scales(&mut self, zero_points: BTreeMap<String, u8>) -> std::result::Result<(), String> {
        for (layer, zero_point) in zero_points {
            let scale = self
                .floats
                .remove(&format!("{layer}{INPUT_SCALE}"))
                .and_then(|t| t.to_scalar::<f32>().ok());
            match scale {
                Some(scale) if scale.is_finite() && scale > 0.0 => {
                    self.quantizers.insert(layer, ActivationQuantizer { scale, zero_point });
                }
                Some(scale) => return Err(format!("{layer}{INPUT_SCALE} is {scale}")),
                None => return Err(format!("{layer} has a zero point but no {INPUT_SCALE}")),
            }
        }
        let mut scales_of = |name: &str, channels: usize| {
            let scales = self.floats.remove(&format!("{name}{WEIGHT_SCALE}"));
            let scales = scales.ok_or_else(|| format!("{name} is in integers but {name}{WEIGHT_SCALE} is absent"))?;
            let scales: Vec<f32> = scales.to_vec1().map_err(|e| e.to_string())?;
            if scales.len() == channels {
                Ok(scales)
            } else {
                Err(format!("{name} has {channels} channels but {} scales", scales.len()))
            }
        };
        for (name, (shape, weight)) in &mut self.integers {
            weight.scales = scales_of(name, shape.first().copied().unwrap_or(0))?;
        }
        for (name, (indices, scales)) in &mut self.packed {
            *scales = scales_of(name, indices.bytes.len().checked_div(indices.row_bytes).unwrap_or(0))?;
            if !self.codebooks.contains_key(name) {
                return Err(format!("{name} is u8 but {name}{WEIGHT_CODEBOOK} is absent"));
            }
        }
        Ok(())
    }
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect()
}
