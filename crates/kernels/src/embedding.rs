//! Rows of a table by their number, and the gradient that is scattered back into it.
//!
//! The gradient of a row is the sum over its positions in their order, so that it does not depend on threads.

use crate::gradients::hand_over;
use crate::row_gradient::RowGradient;
use crate::storage::{build_chunks, cpu_slice, is_fused, on_cuda, rows_per_task, slice};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// `table: [rows, width]`, `ids: u32 [...]`, of any device, to `[..., width]`.
///
/// # Errors
/// If an id is not below `rows`.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    let positions = row_numbers(ids, rows)?;
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    on_cuda!(table, embedding(table, positions, shape.into()));
    if is_fused(table) {
        table.contiguous()?.apply_op1(Embedding {
            ids: positions,
            shape: shape.into(),
            rows,
            width,
        })
    } else {
        let ids = ids.to_device(table.device())?.flatten_all()?;
        table.index_select(&ids, 0)?.reshape(shape)
    }
}

/// `ids` in row-major order, each below `rows`.
pub(crate) fn row_numbers(ids: &Tensor, rows: usize) -> Result<Vec<u32>> {
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => bail!("id {id} is outside of an embedding of {rows} rows"),
        None => Ok(ids),
    }
}

struct Embedding {
    ids: Vec<u32>,
    shape: Shape,
    rows: usize,
    width: usize,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let table = cpu_slice(table, layout)?;
        let width = self.width;
        let values = build_chunks(
            self.ids.len() * width,
            rows_per_task(width) * width.max(1),
            |offset, piece| {
                for (target, &id) in piece.chunks_exact_mut(width).zip(&self.ids[offset / width..]) {
                    target.write_copy_of_slice(&table[id as usize * width..][..width]);
                }
                // SAFETY: a piece is a whole number of rows, and there is an id for each.
                unsafe { piece.assume_init_mut() }
            },
        );
        Ok((CpuStorage::F32(values), self.shape.clone()))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (g, layout) = gradient.storage_and_layout();
        let rows = RowGradient::scatter(&self.ids, slice(&g, layout)?, self.rows, self.width);
        hand_over(table, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};
    use candle_core::Device;

    #[test]
    fn gradients() -> Result<()> {
        for width in SIZES {
            let table = sample(&[9, width], 1);
            let ids = Tensor::new(&[[3u32, 0, 8], [3, 3, 1]], &Device::Cpu)?;
            check(
                &[&table],
                |t| embedding(t[0], &ids),
                |t| t[0].index_select(&ids.flatten_all()?, 0)?.reshape((2, 3, width)),
                Differences::Central,
                1e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let ids: Vec<u32> = (0..500u32).map(|i| i * i % 37).collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        same_bits_everywhere(&[&sample(&[37, 33], 2)], |t| embedding(t[0], &ids))
    }

    #[test]
    fn unknown_ids_and_empty_batches() -> Result<()> {
        let table = sample(&[4, 3], 1);
        let error = embedding(&table, &Tensor::new(&[1u32, 4], &Device::Cpu)?)
            .expect_err("4 is outside")
            .to_string();
        assert!(error.contains("id 4") && error.contains("4 rows"), "{error}");
        let none = Tensor::zeros((0, 7), candle_core::DType::U32, &Device::Cpu)?;
        assert_eq!(embedding(&table, &none)?.dims(), [0, 7, 3]);
        Ok(())
    }
}
