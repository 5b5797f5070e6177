//! An operand of a product, laid out as the tile kernels read it.

use super::amx::Amx;
use super::bf16::Bf16;
#[cfg(target_arch = "x86_64")]
use super::bf16::Native;
use super::f32::F32;
use super::laid_out::{Fill, Form, LaidOut};
use super::{Arithmetic, COLUMNS, Entries, Entry, ROWS, SIDE, Threads, blocks, lines};
use crate::isa::{Isa, multiversion};
use crate::matrix::Matrix;
use std::mem::MaybeUninit;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Panels that one task lays out: so many that rows which lie side by side are read in long stretches.
const GROUP: usize = 8;

/// A block whose rows and columns are exchanged in one go.
type Block = [[Entry; SIDE]; SIDE];

/// An arithmetic with its loops for each instruction set.
pub(super) trait Layout: Arithmetic {
    /// [`fill`] for panels of rows.
    const FILL_ROWS: Fill;

    /// [`fill`] for panels of columns.
    const FILL_COLUMNS: Fill;
}

impl Layout for F32 {
    const FILL_ROWS: Fill = fill_rows_f32;
    const FILL_COLUMNS: Fill = fill_columns_f32;
}

impl Layout for Bf16 {
    const FILL_ROWS: Fill = fill_rows_bf16;
    const FILL_COLUMNS: Fill = fill_columns_bf16;
}

impl Layout for Amx {
    const FILL_ROWS: Fill = fill_rows_bf16;
    const FILL_COLUMNS: Fill = fill_columns_bf16;
}

multiversion! {
    fn fill_rows_f32(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        fill::<F32, ROWS>(matrix, first, depth, out);
    }

    fn fill_columns_f32(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        fill::<F32, COLUMNS>(matrix, first, depth, out);
    }

    fn rows_bf16(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        fill::<Bf16, ROWS>(matrix, first, depth, out);
    }

    fn columns_bf16(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        fill::<Bf16, COLUMNS>(matrix, first, depth, out);
    }

    fn blocks_bf16(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        blocks::fill::<Bf16>(matrix, first, depth, out);
    }

    fn lines_bf16(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
        lines::fill::<Bf16>(matrix, first, depth, out);
    }
}

/// Loops that let the processor round where it can.
macro_rules! natively {
    ($($name:ident, $plain:ident, $loop:expr;)+) => {$(
        pub(super) fn $name(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
            #[cfg(target_arch = "x86_64")]
            if Isa::current() >= Isa::Avx512Bf16 {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
                fn native(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
                    $loop(matrix, first, depth, out);
                }
                // SAFETY: `Isa::current` names only sets that this processor has.
                return unsafe { native(matrix, first, depth, out) };
            }
            $plain(matrix, first, depth, out);
        }
    )+};
}

natively! {
    fill_rows_bf16, rows_bf16, fill::<Native, ROWS>;
    fill_columns_bf16, columns_bf16, fill::<Native, COLUMNS>;
    fill_blocks_bf16, blocks_bf16, blocks::fill::<Native>;
    fill_lines_bf16, lines_bf16, lines::fill::<Native>;
}

/// The rows of a matrix in panels of `WIDTH`; in a panel, entry after entry along the columns, and in those each row in
/// turn. What is missing at the ends is zero.
#[derive(Debug)]
pub(super) struct Panels<const WIDTH: usize>(pub(super) LaidOut);

impl<const WIDTH: usize> Panels<WIDTH> {
    /// # Safety
    /// `fill` writes every entry of the panels that it is given.
    unsafe fn new<A: Layout>(matrix: Matrix<'_>, threads: Threads, fill: Fill) -> Self {
        let depth = A::depth(matrix.columns());
        let form = Form {
            depth,
            stride: depth,
            unit: WIDTH,
            task: GROUP * WIDTH,
            fill,
        };
        // SAFETY: by this function's contract.
        Self(unsafe { LaidOut::new(matrix, &form, threads) })
    }

    /// Some entries of a panel.
    pub(super) fn part(&self, panel: usize, part: Range<usize>) -> &[[Entry; WIDTH]] {
        let start = panel * self.0.depth();
        let entries = &self.0.entries()[(start + part.start) * WIDTH..(start + part.end) * WIDTH];
        entries.as_chunks().0
    }
}

impl Panels<ROWS> {
    /// The rows of `matrix`, the left operand.
    pub(super) fn of_rows<A: Layout>(matrix: Matrix<'_>, threads: Threads) -> Self {
        // SAFETY: it writes every entry.
        unsafe { Self::new::<A>(matrix, threads, A::FILL_ROWS) }
    }
}

impl Panels<COLUMNS> {
    /// The columns of `matrix`, the right operand.
    pub(super) fn of_columns<A: Layout>(matrix: Matrix<'_>, threads: Threads) -> Self {
        // SAFETY: it writes every entry.
        unsafe { Self::new::<A>(matrix.transposed(), threads, A::FILL_COLUMNS) }
    }
}

/// Writes every entry of the panels that begin with row `first`.
#[inline(always)]
fn fill<E: Entries, const WIDTH: usize>(
    matrix: Matrix<'_>,
    first: usize,
    depth: usize,
    out: &mut [MaybeUninit<Entry>],
) {
    if depth == 0 {
        return;
    }
    let panels = out.chunks_exact_mut(depth * WIDTH);
    if matrix.strides()[1] == 1 {
        for (panel, out) in panels.enumerate() {
            fill_from_lines::<E, WIDTH>(matrix, first + panel * WIDTH, out);
        }
        return;
    }
    let count = (matrix.rows() - first).min(panels.len() * WIDTH);
    for place in 0..depth {
        let column = place * E::STEP;
        let low = side(matrix, first, column, count);
        let high = if E::STEP == 2 {
            side(matrix, first, column + 1, count)
        } else {
            &[]
        };
        for panel in 0..count.div_ceil(WIDTH) {
            let start = panel * WIDTH;
            let entries = entries::<E, WIDTH>(
                low.get(start..).unwrap_or_default(),
                high.get(start..).unwrap_or_default(),
            );
            out[(panel * depth + place) * WIDTH..][..WIDTH].write_copy_of_slice(&entries);
        }
    }
}

/// The elements of `count` rows in one column, side by side; none if there is no such column.
#[inline(always)]
pub(super) fn side<'a>(matrix: Matrix<'a>, first: usize, column: usize, count: usize) -> &'a [f32] {
    if column < matrix.columns() {
        &matrix.at(first, column)[..count]
    } else {
        &[]
    }
}

/// One panel of rows that each lie in one piece, block by block.
#[inline(always)]
fn fill_from_lines<E: Entries, const WIDTH: usize>(matrix: Matrix<'_>, first: usize, out: &mut [MaybeUninit<Entry>]) {
    let width = WIDTH.min(SIDE);
    for (block, out) in out.chunks_mut(SIDE * WIDTH).enumerate() {
        let start = E::STEP * SIDE * block;
        let len = (matrix.columns() - start).min(E::STEP * SIDE);
        for part in (0..WIDTH).step_by(SIDE) {
            let mut lines = [[0; SIDE]; SIDE];
            for (row, line) in (first + part..matrix.rows()).zip(&mut lines[..width]) {
                *line = line_of::<E>(&matrix.at(row, start)[..len]);
            }
            for (line, out) in turned(&lines).iter().zip(out.chunks_exact_mut(WIDTH)) {
                let out = &mut out[part..part + width];
                if let Some(out) = out.first_chunk_mut::<SIDE>() {
                    out.write_copy_of_slice(line);
                } else {
                    out.write_copy_of_slice(&line[..width]);
                }
            }
        }
    }
}

/// The entries of elements that follow each other along the inner dimension, then zeros.
#[inline(always)]
pub(super) fn line_of<E: Entries>(x: &[f32]) -> [Entry; SIDE] {
    if x.len() == E::STEP * SIDE {
        return E::line(x);
    }
    let mut line = [0; SIDE];
    for (entry, x) in line.iter_mut().zip(x.chunks(E::STEP)) {
        *entry = E::entry(x[0], x.get(1).copied().unwrap_or(0.0));
    }
    line
}

/// Rows and columns exchanged.
#[inline(always)]
pub(super) fn turned(lines: &Block) -> Block {
    match Isa::current() {
        // SAFETY: `Isa::current` names only sets that this processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => unsafe { avx512::turned(lines) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => turned_plainly(lines),
        Isa::Avx2 | Isa::Portable => turned_plainly(lines),
    }
}

#[inline(always)]
fn turned_plainly(block: &Block) -> Block {
    std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]))
}

/// The entries of the first elements of both; zeros where there are none.
#[inline(always)]
pub(super) fn entries<E: Entries, const WIDTH: usize>(low: &[f32], high: &[f32]) -> [Entry; WIDTH] {
    match (low.first_chunk::<WIDTH>(), high.first_chunk::<WIDTH>()) {
        (Some(low), _) if E::STEP == 1 => E::side_by_side(low, low),
        (Some(low), Some(high)) => E::side_by_side(low, high),
        _ => {
            let mut entries = [0; WIDTH];
            for (i, (entry, low)) in entries.iter_mut().zip(low).enumerate() {
                *entry = E::entry(*low, high.get(i).copied().unwrap_or(0.0));
            }
            entries
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_of_rows_and_of_columns_agree() {
        for (rows, columns) in [(1, 1), (3, 7), (8, 130), (65, 2), (9, 513), (0, 3), (3, 0)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 251) as f32).collect();
            let mut turned = vec![0.0; rows * columns];
            for (i, value) in values.iter().enumerate() {
                turned[i % columns * rows + i / columns] = *value;
            }
            let by_rows = Panels::of_rows::<Bf16>(Matrix::new(&values, rows, columns), Threads::All);
            let singles = Panels::of_columns::<F32>(Matrix::new(&values, rows, columns).transposed(), Threads::All);
            let by_columns = Panels::of_rows::<Bf16>(Matrix::new(&turned, columns, rows).transposed(), Threads::One);
            assert_eq!(by_rows.0.entries(), by_columns.0.entries(), "{rows}×{columns}");
            for (i, value) in values.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let pair = by_rows.0.entries()[(row / 8 * by_rows.0.depth() + column / 2) * 8 + row % 8];
                assert_eq!(pair >> (16 * (column % 2)) & 0xffff, Bf16::entry(*value, 0.0));
                let single = singles.part(row / 32, column..column + 1)[0][row % 32];
                assert_eq!(single, value.to_bits());
            }
        }
    }
}
