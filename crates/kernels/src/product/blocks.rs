//! A left operand in bf16 as AMX loads it: blocks of 16 rows and 16 entries, each in one piece.

use super::amx::Amx;
use super::panels::{entries, fill_blocks_bf16, line_of, side, turned};
use super::{Arithmetic, Entries, Entry, SIDE, Threads};
use crate::aligned::Aligned;
use crate::matrix::Matrix;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows of blocks in a task: of a matrix by columns, so many rows lie side by side and are read in one piece.
const GROUP: usize = 4;

/// Entries of a block.
const BLOCK: usize = SIDE * SIDE;

/// The rows of a matrix, 16 by 16; in those, 16 entries along the columns after the other, row by row. What is missing at the
/// ends is zero.
#[derive(Debug)]
pub(super) struct Blocks {
    entries: Aligned<Entry>,
    rows: usize,
    depth: usize,
}

impl Blocks {
    /// The rows of `matrix`.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        let depth = Amx::depth(matrix.columns());
        let len = matrix.rows().div_ceil(SIDE) * depth * SIDE;
        // SAFETY: `fill_blocks_bf16` is given all of them, and writes them.
        let entries = unsafe {
            Aligned::build(len, |entries| match threads {
                Threads::One => fill_blocks_bf16(matrix, 0, depth, entries),
                Threads::All => entries
                    .par_chunks_mut((GROUP * depth * SIDE).max(1))
                    .enumerate()
                    .for_each(|(index, blocks)| fill_blocks_bf16(matrix, index * GROUP * SIDE, depth, blocks)),
            })
        };
        Self {
            entries,
            rows: matrix.rows(),
            depth,
        }
    }

    /// Rows, without those that fill up the last block.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The first entry.
    pub(super) fn start(&self) -> *const Entry {
        self.entries.as_ptr()
    }

    /// Entries along the inner dimension.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

/// Writes every entry of the blocks that begin with row `first`, `depth` entries along the columns.
#[inline(always)]
pub(super) fn fill<E: Entries>(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
    const { assert!(Amx::BLOCK == SIDE && Amx::UNIT == SIDE) }
    if depth == 0 {
        return;
    }
    let by_rows = matrix.strides()[1] == 1;
    for start in (0..depth).step_by(SIDE) {
        for (part, out) in out.chunks_exact_mut(depth * SIDE).enumerate() {
            let row = first + part * SIDE;
            let count = SIDE.min(matrix.rows() - row);
            let block = if by_rows {
                block_of_rows::<E>(matrix, row, count, start)
            } else {
                block_of_columns::<E>(matrix, row, count, start)
            };
            out[start * SIDE..][..BLOCK].write_copy_of_slice(block.as_flattened());
        }
    }
}

#[inline(always)]
fn block_of_rows<E: Entries>(matrix: Matrix<'_>, row: usize, count: usize, start: usize) -> [[Entry; SIDE]; SIDE] {
    let column = start * E::STEP;
    let len = (matrix.columns() - column).min(SIDE * E::STEP);
    let mut block = [[0; SIDE]; SIDE];
    for (row, line) in (row..row + count).zip(&mut block) {
        *line = line_of::<E>(&matrix.at(row, column)[..len]);
    }
    block
}

/// Entries of rows side by side, turned.
#[inline(always)]
fn block_of_columns<E: Entries>(matrix: Matrix<'_>, row: usize, count: usize, start: usize) -> [[Entry; SIDE]; SIDE] {
    let mut block = [[0; SIDE]; SIDE];
    for (place, line) in (start..).zip(&mut block) {
        let column = place * E::STEP;
        let low = side(matrix, row, column, count);
        *line = entries::<E, SIDE>(low, side(matrix, row, column + 1, count));
    }
    turned(&block)
}
