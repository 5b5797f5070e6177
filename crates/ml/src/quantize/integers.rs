//! The integer form of a model that was trained quantization-aware: what `orchestrate predict` runs.

use super::weights::{PackedIndices, integers_of};
use crate::artifact::{
    Files, ModelArtifact, RawTensor, WEIGHTS_FILE, quantizer_tensors, write_description, write_tensors,
};
use crate::error::{Error, Result};
use crate::masks::{MASKS_FILE, write_masks};
use crate::parameters::{INPUT_SCALE, Use, WEIGHT_CODEBOOK, WEIGHT_SCALE};
use candle_core::Device;
use orchestrate_kernels::Codebook;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the model in `files` into `folder` with every weight of a linear layer, convolution and embedding as int8, each
/// with its scales beside it; where it has a codebook, as the packed indices of its levels, with these beside it. Biases and
/// norms stay f32.
///
/// # Errors
/// [`Error::Unsuited`] if the model was not quantized; else as [`ModelArtifact::load`] and [`Error::Io`].
pub fn write_integers(files: &Files, folder: &Path) -> Result<()> {
    let artifact = ModelArtifact::open(files)?;
    let loaded = artifact.load(&Device::Cpu, Use::Infer)?;
    let quantizers = loaded.parameters.quantizers();
    if quantizers.is_empty() {
        return Err(Error::Unsuited(format!(
            "the model has no {INPUT_SCALE} of any layer, so there are no ranges to run it in integers with: put a step of \
             kind \"quantize\" before this one, or export it with precision = \"f32\""
        )));
    }
    let weights = loaded.parameters.weight_names();
    let mut tensors: BTreeMap<String, RawTensor> = quantizer_tensors(quantizers).collect();
    for (name, tensor) in loaded.parameters.floats() {
        if !weights.contains(&name) {
            tensors.insert(name, RawTensor::of_floats(&tensor)?);
            continue;
        }
        let (values, scales) = integers_of(&tensor)?;
        tensors.insert(format!("{name}{WEIGHT_SCALE}"), RawTensor::of_floats(&scales)?);
        let codebook = loaded.parameters.codebook(&name);
        if let Some(codebook) = &codebook {
            tensors.insert(format!("{name}{WEIGHT_CODEBOOK}"), RawTensor::of_levels(codebook));
        }
        tensors.insert(name, raw(&values, tensor.dims(), codebook.as_deref()));
    }
    write_tensors(tensors.into_iter(), &folder.join(WEIGHTS_FILE))?;
    if !loaded.masks.is_empty() {
        write_masks(&loaded.masks, &folder.join(MASKS_FILE))?;
    }
    write_description(&artifact.config, artifact.tokenizer.as_deref(), folder)
}

/// `[out, …]` as i8, or the indices of their levels as `[out, bytes]`.
fn raw(values: &[i8], shape: &[usize], codebook: Option<&Codebook>) -> RawTensor {
    let Some(codebook) = codebook else {
        return RawTensor {
            dtype: Dtype::I8,
            shape: shape.to_vec(),
            bytes: values.iter().map(|value| value.cast_unsigned()).collect(),
        };
    };
    let packed = PackedIndices::of(values, shape[1..].iter().product(), codebook);
    RawTensor {
        dtype: Dtype::U8,
        shape: vec![shape[0], packed.row_bytes],
        bytes: packed.bytes,
    }
}
