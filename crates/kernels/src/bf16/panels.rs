//! An operand of a product, rounded to bf16 and laid out as the tile kernel reads it.

use super::Pair;
use crate::isa::multiversion;
use crate::matrix::Matrix;
use crate::product::Threads;
use rayon::prelude::*;

/// Pairs along the inner dimension that are laid out in one go: a panel's part of them stays in the first-level cache.
const CHUNK: usize = 64;

/// The rows of a matrix in panels of `WIDTH`; in a panel, pair after pair along the columns, and in those each row in turn.
/// What is missing at the ends is zero.
pub(super) struct Panels<const WIDTH: usize> {
    pairs: Vec<[Pair; WIDTH]>,
    depth: usize,
}

impl<const WIDTH: usize> Panels<WIDTH> {
    /// Rounds and lays out the rows of `matrix`, by `fill` for consecutive groups of panels.
    fn new(
        matrix: Matrix<'_>,
        threads: Threads,
        fill: impl Fn(Matrix<'_>, usize, &mut [[Pair; WIDTH]]) + Sync,
    ) -> Self {
        // Panels that one task lays out: so many that rows which lie side by side are read in long stretches.
        const GROUP: usize = 8;
        let depth = matrix.columns().div_ceil(2);
        let mut pairs = vec![[[0; 2]; WIDTH]; matrix.rows().div_ceil(WIDTH) * depth];
        let group = (GROUP * depth).max(1);
        match threads {
            Threads::One => fill(matrix, 0, &mut pairs),
            Threads::All => pairs
                .par_chunks_mut(group)
                .enumerate()
                .for_each(|(index, pairs)| fill(matrix, index * GROUP * WIDTH, pairs)),
        }
        Self { pairs, depth }
    }

    /// How many panels there are.
    pub(super) fn count(&self) -> usize {
        self.pairs.len().checked_div(self.depth).unwrap_or(0)
    }

    /// Pairs along the inner dimension.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The pairs `first` to `last` of a panel.
    pub(super) fn part(&self, panel: usize, first: usize, last: usize) -> &[[Pair; WIDTH]] {
        &self.pairs[panel * self.depth + first..panel * self.depth + last]
    }
}

impl Panels<{ super::ROWS }> {
    /// The rows of `matrix`, the left operand.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        Self::new(matrix, threads, fill_rows)
    }
}

impl Panels<{ super::COLUMNS }> {
    /// The columns of `matrix`, the right operand.
    pub(super) fn of_columns(matrix: Matrix<'_>, threads: Threads) -> Self {
        Self::new(matrix.transposed(), threads, fill_columns)
    }
}

multiversion! {
    fn fill_rows(matrix: Matrix<'_>, first: usize, out: &mut [[Pair; super::ROWS]]) {
        fill(matrix, first, out);
    }

    fn fill_columns(matrix: Matrix<'_>, first: usize, out: &mut [[Pair; super::COLUMNS]]) {
        fill(matrix, first, out);
    }
}

/// Fills panels with the rows from `first` on.
#[inline(always)]
fn fill<const WIDTH: usize>(matrix: Matrix<'_>, first: usize, out: &mut [[Pair; WIDTH]]) {
    let depth = matrix.columns().div_ceil(2);
    if depth == 0 {
        return;
    }
    let last = matrix.rows().min(first + out.len() / depth * WIDTH);
    if matrix.strides()[1] == 1 {
        for (panel, out) in out.chunks_exact_mut(depth).enumerate() {
            let first = first + panel * WIDTH;
            fill_from_lines(matrix, first, last.min(first + WIDTH), out);
        }
    } else {
        for pair in 0..depth {
            let low = &matrix.at(first, 2 * pair)[..last - first];
            if 2 * pair + 1 < matrix.columns() {
                let high = &matrix.at(first, 2 * pair + 1)[..last - first];
                interleave(low, high, &mut out[pair..], depth);
            } else {
                for (panel, low) in low.chunks(WIDTH).enumerate() {
                    for (pair, low) in out[panel * depth + pair].iter_mut().zip(low) {
                        *pair = [round(*low), 0];
                    }
                }
            }
        }
    }
}

/// One panel of rows that each lie in one piece.
#[inline(always)]
fn fill_from_lines<const WIDTH: usize>(matrix: Matrix<'_>, first: usize, last: usize, out: &mut [[Pair; WIDTH]]) {
    for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
        let start = 2 * CHUNK * chunk;
        let len = (matrix.columns() - start).min(2 * CHUNK);
        for row in first..last {
            let mut rounded = [[0; 2]; CHUNK];
            for (rounded, x) in rounded.as_flattened_mut().iter_mut().zip(&matrix.at(row, start)[..len]) {
                *rounded = round(*x);
            }
            for (out, pair) in out.iter_mut().zip(rounded) {
                out[row - first] = pair;
            }
        }
    }
}

/// The same pair of all rows, of panels that begin `depth` apart.
#[inline(always)]
fn interleave<const WIDTH: usize>(low: &[f32], high: &[f32], out: &mut [[Pair; WIDTH]], depth: usize) {
    let (lows, low_rest) = low.as_chunks::<WIDTH>();
    let (highs, high_rest) = high.as_chunks::<WIDTH>();
    for (panel, (low, high)) in lows.iter().zip(highs).enumerate() {
        let out = &mut out[panel * depth];
        for i in 0..WIDTH {
            out[i] = [round(low[i]), round(high[i])];
        }
    }
    if !low_rest.is_empty() {
        for (out, (low, high)) in out[lows.len() * depth].iter_mut().zip(low_rest.iter().zip(high_rest)) {
            *out = [round(*low), round(*high)];
        }
    }
}

/// The bits of the nearest bf16, ties to even. What is below the smallest normal number is zero, as it is for the
/// processor's own conversion.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let zero = bits >> 16 & 0x8000;
    let quiet = bits >> 16 | 0x40;
    let normal = if magnitude < 0x0080_0000 { zero } else { nearest };
    (if magnitude > 0x7f80_0000 { quiet } else { normal }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        for (x, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.001 / 256.0, 1.0 + 2.0 / 256.0),
            (-3.0, -3.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::MIN_POSITIVE * 0.999, 0.0),
        ] {
            assert_eq!(widen(round(x)), expected, "{x}");
        }
        assert_eq!(round(-1e-40), 0x8000);
        assert!(widen(round(f32::NAN)).is_nan());
        assert!(
            widen(round(f32::from_bits(0xff80_0001))).is_nan(),
            "a payload in the low bits alone"
        );
    }

    #[test]
    fn panels_of_rows_and_of_columns_agree() {
        for (rows, columns) in [(1, 1), (3, 7), (8, 130), (65, 2), (9, 513), (0, 3), (3, 0)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 251) as f32).collect();
            let mut turned = vec![0.0; rows * columns];
            for (i, value) in values.iter().enumerate() {
                turned[i % columns * rows + i / columns] = *value;
            }
            let by_rows = Panels::of_rows(Matrix::new(&values, rows, columns), Threads::All);
            let by_columns = Panels::of_rows(Matrix::new(&turned, columns, rows).transposed(), Threads::One);
            assert_eq!(by_rows.pairs, by_columns.pairs, "{rows}×{columns}");
            for (i, value) in values.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let pair = by_rows.part(row / 8, column / 2, column / 2 + 1)[0][row % 8];
                assert_eq!(pair[column % 2], round(*value));
            }
        }
    }
}
