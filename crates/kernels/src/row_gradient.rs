//! The gradient of a table of which a step reads few rows, such as that of word vectors: those rows alone.
//!
//! Invariants: rows ascend and each is there once; whatever is computed from them has the bits that it would have from the
//! whole table, in which all other rows are zero.

use crate::layer_norm::add_to;
use crate::storage::{tensor, zeros};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Rows of a gradient `[rows, width]`; the others are zero.
#[derive(Debug)]
pub struct RowGradient {
    rows: usize,
    width: usize,
    /// Which rows these are.
    numbers: Vec<u32>,
    /// They themselves, one after the other.
    values: Vec<f32>,
}

impl RowGradient {
    /// The sum of the rows of `gradient` at their `ids`, each below `rows`; those of one id are added up in their order.
    pub(crate) fn scatter(ids: &[u32], gradient: &[f32], rows: usize, width: usize) -> Self {
        let mut order: Vec<(u32, u32)> = ids.iter().zip(0u32..).map(|(&id, position)| (id, position)).collect();
        order.sort_unstable();
        let of_each_id: Vec<&[(u32, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
        let mut values = vec![0.0; of_each_id.len() * width];
        let sums = values.par_chunks_exact_mut(width.max(1)).zip(&of_each_id);
        sums.with_min_len(8).for_each(|(sum, positions)| {
            for &(_, position) in *positions {
                add_to(sum, &gradient[position as usize * width..][..width]);
            }
        });
        Self {
            rows,
            width,
            numbers: of_each_id.iter().map(|positions| positions[0].0).collect(),
            values,
        }
    }

    /// Rows and width of the table.
    pub(crate) fn dims(&self) -> [usize; 2] {
        [self.rows, self.width]
    }

    /// The numbers of the rows that are there.
    pub(crate) fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// The row at `index` among those that are there.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// The gradient of the sum of two scalars, of which these are gradients.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let numbers = [self.numbers.as_slice(), &other.numbers].concat();
        let values = [self.values.as_slice(), &other.values].concat();
        Self::scatter(&numbers, &values, self.rows, self.width)
    }

    /// The whole table.
    pub(crate) fn to_dense(&self) -> Result<Tensor> {
        let mut table = zeros(self.rows * self.width);
        for (index, &number) in self.numbers.iter().enumerate() {
            table[number as usize * self.width..][..self.width].copy_from_slice(self.row(index));
        }
        tensor(table, (self.rows, self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_id_are_added_up_and_the_others_are_zero() -> Result<()> {
        let gradient: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let rows = RowGradient::scatter(&[3, 1, 3, 0], &gradient, 5, 2);
        assert_eq!(rows.numbers(), [0, 1, 3]);
        let expected = [[6.0, 7.0], [2.0, 3.0], [0.0, 0.0], [4.0, 6.0], [0.0, 0.0]];
        assert_eq!(rows.to_dense()?.to_vec2::<f32>()?, expected);
        let sum = rows.plus(&RowGradient::scatter(&[4, 1], &gradient, 5, 2));
        let expected = [[6.0, 7.0], [4.0, 6.0], [0.0, 0.0], [4.0, 6.0], [0.0, 1.0]];
        assert_eq!(sum.to_dense()?.to_vec2::<f32>()?, expected);
        Ok(())
    }

    #[test]
    fn nothing_is_read_and_nothing_is_wide() -> Result<()> {
        assert_eq!(
            RowGradient::scatter(&[], &[], 3, 2).to_dense()?.to_vec2::<f32>()?,
            [[0.0; 2]; 3]
        );
        assert_eq!(RowGradient::scatter(&[1, 1], &[], 3, 0).to_dense()?.dims(), [3, 0]);
        Ok(())
    }
}
