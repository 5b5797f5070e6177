//! The sum of two embeddings with the layer normalization behind it as one op (Devlin et al. 2019, section 3, figure 2).
//!
//! On the CPU it keeps nothing but its inputs: the sums are added up again in the backward pass. A parameter's gradient is
//! summed up over rows in their order.

use crate::affine::{hand_over_all, holds};
use crate::embedding::{embedding, row_numbers};
use crate::layer_norm::{self, add_to, layer_norm, normalize_rows, sum_rows};
use crate::row_gradient::RowGradient;
use crate::storage::{build_chunks, cpu_slice, is_fused, on_cuda, rows_per_task, slice, tensor};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use std::borrow::Cow;
use std::ops::Range;

/// [`layer_norm`] of `table[id] + places[position]` for each id of `ids: u32 [..., length]`. `table: [rows, n]`, `places:
/// [length, n]`, `weight` and `bias: [n]`, to `[..., length, n]`.
///
/// The gradients of table, weight and bias come through [`crate::gradients`].
///
/// # Errors
/// If an id is not below `rows`, or the shapes do not fit.
pub fn embedding_norm(
    table: &Tensor,
    ids: &Tensor,
    places: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    let length = ids.dim(D::Minus1)?;
    if places.dims() != [length, width] {
        bail!(
            "embedding_norm of {:?} at {:?} with places {:?}",
            table.dims(),
            ids.dims(),
            places.dims()
        )
    }
    // The CPU's op alone can do without any id.
    let fits = weight.dims() == [width] && bias.dims() == [width] && (ids.elem_count() > 0 || is_fused(places));
    if !fits || !holds(places, [table, weight, bias]) {
        return layer_norm(&embedding(table, ids)?.broadcast_add(places)?, weight, bias, eps);
    }
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    let ids = row_numbers(ids, rows)?;
    on_cuda!(places, embedding_norm(places, table, ids, shape, weight, bias, eps));
    places.contiguous()?.apply_op1(EmbeddingNorm {
        ids,
        shape: shape.into(),
        eps: eps as f32,
        table: table.clone(),
        weight: weight.clone(),
        bias: bias.clone(),
    })
}

struct EmbeddingNorm {
    ids: Vec<u32>,
    shape: Shape,
    eps: f32,
    table: Tensor,
    weight: Tensor,
    bias: Tensor,
}

impl EmbeddingNorm {
    fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Adds the places to embeddings, which begin with row `first`.
    fn add_places(&self, first: usize, embeddings: &mut [f32], places: &[f32]) {
        let width = self.width();
        let length = places.len() / width;
        for (row, sum) in (first..).zip(embeddings.chunks_exact_mut(width)) {
            add_to(sum, &places[row % length * width..][..width]);
        }
    }
}

impl CustomOp1 for EmbeddingNorm {
    fn name(&self) -> &'static str {
        "embedding_norm"
    }

    fn cpu_fwd(&self, places: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = self.width();
        let places = cpu_slice(places, layout)?;
        let (table, table_layout) = self.table.storage_and_layout();
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        let table = slice(&table, table_layout)?;
        let (weight, bias) = (slice(&weight, weight_layout)?, slice(&bias, bias_layout)?);
        let values = build_chunks(self.ids.len() * width, rows_per_task(width) * width, |offset, piece| {
            let first = offset / width;
            for (row, &id) in piece.chunks_exact_mut(width).zip(&self.ids[first..]) {
                row.write_copy_of_slice(&table[id as usize * width..][..width]);
            }
            // SAFETY: a piece is a whole number of rows, and there is an id for each.
            let rows = unsafe { piece.assume_init_mut() };
            self.add_places(first, rows, places);
            normalize_rows(rows, weight, bias, self.eps);
            rows
        });
        Ok((CpuStorage::F32(values), self.shape.clone()))
    }

    fn bwd(&self, places: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let width = self.width();
        let gradient = gradient.contiguous()?;
        let (p_storage, p_layout) = places.storage_and_layout();
        let (t_storage, t_layout) = self.table.storage_and_layout();
        let (w_storage, w_layout) = self.weight.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (places_values, table) = (slice(&p_storage, p_layout)?, slice(&t_storage, t_layout)?);
        let sums = |range: Range<usize>| {
            let mut sums = Vec::with_capacity(range.len());
            for &id in &self.ids[range.start / width..range.end / width] {
                sums.extend_from_slice(&table[id as usize * width..][..width]);
            }
            self.add_places(range.start / width, &mut sums, places_values);
            Cow::Owned(sums)
        };
        let (values, parameters) = layer_norm::backward(
            slice(&g_storage, g_layout)?,
            sums,
            slice(&w_storage, w_layout)?,
            self.eps,
        );
        let (weight, bias) = parameters.split_at(width);
        for (parameter, gradient) in [(&self.weight, weight), (&self.bias, bias)] {
            if parameter.track_op() {
                hand_over_all(parameter, tensor(gradient.to_vec(), width)?)?;
            }
        }
        if self.table.track_op() {
            let rows = RowGradient::scatter(&self.ids, &values, self.table.dim(0)?, width);
            hand_over_all(&self.table, rows)?;
        }
        tensor(sum_rows(&values, places.elem_count()), places.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};
    use candle_core::{DType, Device};

    /// Table, places, gain and bias.
    fn samples(rows: usize, length: usize, width: usize) -> [Tensor; 4] {
        [
            sample(&[rows, width], 1),
            sample(&[length, width], 2),
            sample(&[width], 3),
            sample(&[width], 4),
        ]
    }

    fn ids(batch: usize, length: usize, rows: usize) -> Result<Tensor> {
        let ids = (0..batch * length).map(|i| (i * i % rows) as u32);
        Tensor::from_iter(ids, &Device::Cpu)?.reshape((batch, length))
    }

    fn fused(t: &[&Tensor], ids: &Tensor) -> Result<Tensor> {
        embedding_norm(t[0], ids, t[1], t[2], t[3], 0.1)
    }

    #[test]
    fn gradients() -> Result<()> {
        for (i, width) in SIZES.into_iter().enumerate() {
            let (batch, length) = ([1, 3, 2, 5][i % 4], [1, 2, 4, 3, 7][i % 5]);
            let (samples, ids) = (samples(9, length, width), ids(batch, length, 9)?);
            check(
                &samples.each_ref(),
                |t| fused(t, &ids),
                |t| {
                    let words = t[0].index_select(&ids.flatten_all()?, 0)?;
                    let sum = words.reshape((batch, length, width))?.broadcast_add(t[1])?;
                    layer_norm(&sum, t[2], t[3], 0.1)
                },
                Differences::Central,
                1e-5,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let ids = ids(40, 7, 37)?;
        same_bits_everywhere(&samples(37, 7, 129).each_ref(), |t| fused(t, &ids))
    }

    #[test]
    fn empty_batch_unknown_ids_and_wrong_shapes() -> Result<()> {
        let [table, places, weight, bias] = samples(4, 2, 3);
        let t = [&table, &places, &weight, &bias];
        let none = Tensor::zeros((0, 2), DType::U32, &Device::Cpu)?;
        assert_eq!(fused(&t, &none)?.dims(), [0, 2, 3]);
        let unknown = Tensor::new(&[[1u32, 4]], &Device::Cpu)?;
        assert!(fused(&t, &unknown).is_err_and(|e| e.to_string().contains("id 4")));
        assert!(fused(&t, &ids(2, 3, 4)?).is_err());
        assert!(fused(&[&table, &places, &bias, &table], &ids(1, 2, 4)?).is_err());
        Ok(())
    }
}
