//! Table of vectors. Quantized, each row has a scale of its own, so that quantizing the gathered rows equals gathering
//! quantized rows.

use crate::error::{Error, Result};
use crate::parameters::{Initial, IntegerWeight, Parameters, Weight};
use crate::quantize::fake_quantize;
use candle_core::{Device, Tensor};
use orchestrate_kernels::{Codebook, embedding};
use std::sync::Arc;

/// A `[rows, width]` table in the precision that it was found in.
pub struct Embedding {
    width: usize,
    table: Table,
}

enum Table {
    Float {
        weight: Tensor,
    },
    Simulated {
        weight: Tensor,
        codebook: Option<Arc<Codebook>>,
    },
    Integer(IntegerWeight),
}

impl Embedding {
    /// Builds the layer from `path.weight`.
    ///
    /// # Errors
    /// If the tensor is missing or of another shape.
    pub fn new(p: &mut Parameters, path: &str, rows: usize, width: usize, initial: Initial) -> Result<Self> {
        let table = match p.weight(&format!("{path}.weight"), &[rows, width], initial)? {
            Weight::Float(weight) if p.simulates_quantization() => Table::Simulated {
                weight,
                codebook: p.codebook(&format!("{path}.weight")),
            },
            Weight::Float(weight) => Table::Float { weight },
            Weight::Integer(weight) => Table::Integer(weight),
        };
        Ok(Self { width, table })
    }

    /// The table, where its rows are taken as they are.
    pub(super) fn plain_table(&self) -> Option<&Tensor> {
        match &self.table {
            Table::Float { weight } => Some(weight),
            Table::Simulated { .. } | Table::Integer(_) => None,
        }
    }

    /// `ids: u32 [...]` to `[..., width]`.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.table {
            Table::Float { weight } => Ok(embedding(weight, ids)?),
            Table::Simulated { weight, codebook } => {
                let gathered = embedding(weight, ids)?;
                let rows = gathered.reshape(((), self.width))?;
                Ok(fake_quantize(&rows, codebook.as_deref())?.reshape(gathered.shape())?)
            }
            Table::Integer(weight) => self.gather_integers(weight, ids),
        }
    }

    fn gather_integers(&self, weight: &IntegerWeight, ids: &Tensor) -> Result<Tensor> {
        let mut out = Vec::with_capacity(ids.elem_count() * self.width);
        for id in ids.flatten_all()?.to_vec1::<u32>()? {
            let id = id as usize;
            let Some(scale) = weight.scales.get(id) else {
                return Err(Error::Unsuited(format!(
                    "token id {id} is outside the vocabulary of {} rows: the tokenizer and the model do not belong together",
                    weight.scales.len()
                )));
            };
            let row = &weight.values[id * self.width..(id + 1) * self.width];
            out.extend(row.iter().map(|&v| f32::from(v) * scale));
        }
        let mut shape = ids.dims().to_vec();
        shape.push(self.width);
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }
}
