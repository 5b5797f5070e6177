//! The tensors of a pretrained BERT: under the names that its layers have here, whichever of the usual ways the file writes
//! them, and as f32, whichever floats the file has.

use super::family::Family;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of the number that tells how long the header is.
const LENGTH: u64 = 8;
/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// A file of weights, of which the header alone is read.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    path: PathBuf,
    /// By the names that layers have here.
    tensors: BTreeMap<String, Stored>,
}

/// A tensor as the file has it.
#[derive(Debug, Clone)]
struct Stored {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
}

impl Weights {
    /// Reads the header of the file at `path`, whose tensors are named as `family` does.
    pub fn open(path: &Path, family: Family) -> Result<Self> {
        let header = header_of(path)?;
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        // By name, so that of several faults the same is told each time.
        let infos: BTreeMap<String, _> = header.tensors().into_iter().collect();
        for (name, info) in infos {
            let Some(known) = family.known_as(&name) else { continue };
            let dtype = float(info.dtype).ok_or_else(|| {
                let detail = format!("tensor {name:?} is of {:?}: only floats can be read", info.dtype);
                corrupt(path, detail)
            })?;
            let shape = info.shape.clone();
            let stored = Stored { name, shape, dtype };
            if let Some(other) = tensors.insert(known.clone(), stored) {
                return Err(corrupt(
                    path,
                    format!("{known:?} is there twice, once as {:?}", other.name),
                ));
            }
        }
        let path = path.into();
        Ok(Self { path, tensors })
    }

    /// The rows of the tensor `name`, if it is there and a matrix of some elements: what its shape says is not trusted further.
    pub fn rows(&self, name: &str) -> Option<usize> {
        let shape = &self.tensors.get(name)?.shape;
        shape.first().copied().filter(|_| shape.iter().all(|side| *side > 0))
    }

    /// Whether there is a tensor whose name begins with `path`.
    pub fn has_any(&self, path: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(path))
    }

    /// Checks that every tensor is one of `expected` and of its shape, and that of these none is missing but those that `may_lack`
    /// allows.
    pub fn check(&self, expected: &BTreeMap<String, Vec<usize>>, may_lack: impl Fn(&str) -> bool) -> Result<()> {
        for (name, shape) in expected {
            match self.tensors.get(name).map(|stored| &stored.shape) {
                None if may_lack(name) => {}
                None => {
                    return Err(Error::MissingTensor {
                        name: name.clone(),
                        shape: shape.clone(),
                    });
                }
                Some(found) if found != shape => {
                    return Err(Error::WrongTensor {
                        name: name.clone(),
                        found: format!("{found:?}"),
                        expected: format!("{shape:?}"),
                    });
                }
                Some(_) => {}
            }
        }
        let unused = self.tensors.iter().filter(|(known, _)| !expected.contains_key(*known));
        let unused: Vec<String> = unused.map(|(_, stored)| stored.name.clone()).collect();
        if unused.is_empty() {
            return Ok(());
        }
        Err(Error::UnusedTensors(unused))
    }

    /// All tensors, as f32 on the CPU.
    pub fn read(&self) -> Result<BTreeMap<String, Tensor>> {
        let bytes = std::fs::read(&self.path).map_err(Error::io("read", &self.path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(&self.path, e.to_string()))?;
        let value = |stored: &Stored| -> Result<Tensor> {
            let view = file
                .tensor(&stored.name)
                .map_err(|e| corrupt(&self.path, e.to_string()))?;
            let tensor = Tensor::from_raw_buffer(view.data(), stored.dtype, view.shape(), &Device::Cpu)?;
            let tensor = tensor.to_dtype(DType::F32)?;
            if orchestrate_kernels::all_finite(&tensor)? {
                return Ok(tensor);
            }
            let detail = format!("tensor {:?} holds a value that is no finite f32", stored.name);
            Err(corrupt(&self.path, detail))
        };
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, stored)| Ok((name.clone(), value(stored)?)))
            .collect()
    }
}

fn corrupt(path: &Path, detail: String) -> Error {
    Error::Corrupt {
        path: path.into(),
        expected: "safetensors file",
        detail,
    }
}

/// The header of the file, if the file is as long as it says.
fn header_of(path: &Path) -> Result<Metadata> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let mut length = [0; LENGTH as usize];
    if bytes < LENGTH {
        return Err(corrupt(path, format!("it has {bytes} bytes")));
    }
    file.read_exact(&mut length).map_err(Error::io("read", path))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(bytes - LENGTH) {
        return Err(corrupt(path, format!("of {bytes} bytes its header claims {length}")));
    }
    let mut header = Vec::new();
    file.take(length)
        .read_to_end(&mut header)
        .map_err(Error::io("read", path))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| corrupt(path, e.to_string()))?;
    let expected = (header.data_len() as u64).saturating_add(LENGTH + length);
    if expected == bytes {
        return Ok(header);
    }
    let detail =
        format!("it has {bytes} bytes where its header promises {expected}: it is truncated, or is still written");
    Err(corrupt(path, detail))
}

fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
}
