//! An operand of a product, rounded to bf16 and laid out as the tile kernel reads it.

use super::{Block, COLUMNS, Pair, ROWS, SIDE};
use crate::isa::{Isa, multiversion};
use crate::matrix::Matrix;
use crate::product::Threads;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Panels that one task lays out: so many that rows which lie side by side are read in long stretches.
const GROUP: usize = 8;

/// The rows of a matrix in panels of `WIDTH`; in a panel, pair after pair along the columns, and in those each row in turn.
/// What is missing at the ends is zero.
pub(super) struct Panels<const WIDTH: usize> {
    pairs: Vec<Pair>,
    depth: usize,
}

impl<const WIDTH: usize> Panels<WIDTH> {
    /// Rounds and lays out the rows of `matrix`.
    ///
    /// # Safety
    /// `fill` writes every pair of the panels that it is given, which begin at a row.
    unsafe fn new(
        matrix: Matrix<'_>,
        threads: Threads,
        fill: impl Fn(Matrix<'_>, usize, &mut [MaybeUninit<Pair>]) + Sync,
    ) -> Self {
        let depth = matrix.columns().div_ceil(2);
        let len = matrix.rows().div_ceil(WIDTH) * depth * WIDTH;
        let mut pairs = Vec::with_capacity(len);
        let spare = &mut pairs.spare_capacity_mut()[..len];
        match threads {
            Threads::One => fill(matrix, 0, spare),
            Threads::All => spare
                .par_chunks_mut((GROUP * depth * WIDTH).max(1))
                .enumerate()
                .for_each(|(index, panels)| fill(matrix, index * GROUP * WIDTH, panels)),
        }
        // SAFETY: `fill` was given all of them, and has written them by this function's contract.
        unsafe { pairs.set_len(len) };
        Self { pairs, depth }
    }

    /// How many panels there are.
    pub(super) fn count(&self) -> usize {
        self.pairs.len().checked_div(self.depth * WIDTH).unwrap_or(0)
    }

    /// Pairs along the inner dimension.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The pairs `first` to `last` of a panel.
    pub(super) fn part(&self, panel: usize, first: usize, last: usize) -> &[[Pair; WIDTH]] {
        let start = panel * self.depth;
        let pairs = &self.pairs[(start + first) * WIDTH..(start + last) * WIDTH];
        pairs.as_chunks().0
    }
}

impl Panels<ROWS> {
    /// The rows of `matrix`, the left operand.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        // SAFETY: `fill` writes every pair.
        unsafe { Self::new(matrix, threads, fill_rows) }
    }
}

impl Panels<COLUMNS> {
    /// The columns of `matrix`, the right operand.
    pub(super) fn of_columns(matrix: Matrix<'_>, threads: Threads) -> Self {
        // SAFETY: `fill` writes every pair.
        unsafe { Self::new(matrix.transposed(), threads, fill_columns) }
    }
}

multiversion! {
    fn fill_rows(matrix: Matrix<'_>, first: usize, out: &mut [MaybeUninit<Pair>]) {
        fill::<ROWS>(matrix, first, out);
    }

    fn fill_columns(matrix: Matrix<'_>, first: usize, out: &mut [MaybeUninit<Pair>]) {
        fill::<COLUMNS>(matrix, first, out);
    }
}

/// Writes every pair of the panels that begin with row `first`.
#[inline(always)]
fn fill<const WIDTH: usize>(matrix: Matrix<'_>, first: usize, out: &mut [MaybeUninit<Pair>]) {
    let depth = matrix.columns().div_ceil(2);
    if depth == 0 {
        return;
    }
    let panels = out.chunks_exact_mut(depth * WIDTH);
    if matrix.strides()[1] == 1 {
        for (panel, out) in panels.enumerate() {
            fill_from_lines::<WIDTH>(matrix, first + panel * WIDTH, out);
        }
        return;
    }
    let count = (matrix.rows() - first).min(panels.len() * WIDTH);
    for pair in 0..depth {
        let low = &matrix.at(first, 2 * pair)[..count];
        let high = if 2 * pair + 1 < matrix.columns() {
            &matrix.at(first, 2 * pair + 1)[..count]
        } else {
            &[]
        };
        for panel in 0..count.div_ceil(WIDTH) {
            let start = panel * WIDTH;
            let pairs = interleave::<WIDTH>(&low[start..], high.get(start..).unwrap_or_default());
            out[(panel * depth + pair) * WIDTH..][..WIDTH].write_copy_of_slice(&pairs);
        }
    }
}

/// One panel of rows that each lie in one piece, block by block.
#[inline(always)]
fn fill_from_lines<const WIDTH: usize>(matrix: Matrix<'_>, first: usize, out: &mut [MaybeUninit<Pair>]) {
    let width = WIDTH.min(SIDE);
    for (block, out) in out.chunks_mut(SIDE * WIDTH).enumerate() {
        let start = 2 * SIDE * block;
        let len = (matrix.columns() - start).min(2 * SIDE);
        for part in (0..WIDTH).step_by(SIDE) {
            let mut lines = [[[0; 2]; SIDE]; SIDE];
            for (row, line) in (first + part..matrix.rows()).zip(&mut lines[..width]) {
                let x = &matrix.at(row, start)[..len];
                let line = line.as_flattened_mut();
                if let Some(x) = x.first_chunk::<{ 2 * SIDE }>() {
                    for i in 0..2 * SIDE {
                        line[i] = round(x[i]);
                    }
                } else {
                    line.iter_mut().zip(x).for_each(|(y, x)| *y = round(*x));
                }
            }
            for (line, out) in turned(&lines).iter().zip(out.chunks_exact_mut(WIDTH)) {
                out[part..part + width].write_copy_of_slice(&line[..width]);
            }
        }
    }
}

/// Rows and columns exchanged.
#[inline(always)]
fn turned(lines: &Block) -> Block {
    match Isa::current() {
        // SAFETY: `Isa::current` names only sets that this processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => unsafe { super::avx512::turned(lines) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => super::portable::turned(lines),
        Isa::Avx2 | Isa::Portable => super::portable::turned(lines),
    }
}

/// The first elements of both, rounded, as pairs; zeros where there are none.
#[inline(always)]
fn interleave<const WIDTH: usize>(low: &[f32], high: &[f32]) -> [Pair; WIDTH] {
    let mut pairs = [[0; 2]; WIDTH];
    if let (Some(low), Some(high)) = (low.first_chunk::<WIDTH>(), high.first_chunk::<WIDTH>()) {
        for i in 0..WIDTH {
            pairs[i] = [round(low[i]), round(high[i])];
        }
    } else {
        pairs.iter_mut().zip(low).for_each(|(pair, x)| pair[0] = round(*x));
        pairs.iter_mut().zip(high).for_each(|(pair, x)| pair[1] = round(*x));
    }
    pairs
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
