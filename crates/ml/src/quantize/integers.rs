//! The integer form of a model that was trained quantization-aware: what `orchestrate predict` runs.

use crate::artifact::{
    Files, ModelArtifact, RawTensor, WEIGHTS_FILE, quantizer_tensors, write_description, write_tensors,
};
use crate::error::{Error, Result};
use crate::layers::WEIGHT_BITS;
use crate::masks::{MASKS_FILE, write_masks};
use crate::parameters::{INPUT_SCALE, Use, WEIGHT_SCALE};
use candle_core::{Device, Tensor};
use orchestrate_kernels::{quantize_per_channel, symmetric_scales};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the model in `files` into `folder` with every weight of a linear layer, convolution and embedding as int8, each
/// with its scales beside it. Biases and norms stay f32.
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
        if weights.contains(&name) {
            let (values, scales) = integers_of(&tensor)?;
            tensors.insert(format!("{name}{WEIGHT_SCALE}"), scales);
            tensors.insert(name, values);
        } else {
            tensors.insert(name, RawTensor::of_floats(&tensor)?);
        }
    }
    write_tensors(tensors.into_iter(), &folder.join(WEIGHTS_FILE))?;
    if !loaded.masks.is_empty() {
        write_masks(&loaded.masks, &folder.join(MASKS_FILE))?;
    }
    write_description(&artifact.config, artifact.tokenizer.as_deref(), folder)
}

/// `[out, …]` as i8 and `[out]` scales.
fn integers_of(weight: &Tensor) -> Result<(RawTensor, RawTensor)> {
    let scales = symmetric_scales(weight, WEIGHT_BITS)?;
    let values = quantize_per_channel(weight, &scales, WEIGHT_BITS)?;
    let bytes = values.into_iter().map(i8::cast_unsigned).collect();
    Ok((
        RawTensor {
            dtype: Dtype::I8,
            shape: weight.dims().to_vec(),
            bytes,
        },
        RawTensor::of_floats(&scales)?,
    ))
}
