//! A left operand in bf16 as AMX loads it: blocks of 16 rows and 16 entries, each in one piece.

use super::amx::Amx;
use super::laid_out::{Form, LaidOut};
use super::panels::{entries, fill_blocks_bf16, line_of, side, turned};
use super::{Arithmetic, Entries, Entry, SIDE, Threads};
use crate::matrix::Matrix;
use std::mem::MaybeUninit;

/// Rows of blocks in a task: of a matrix by columns, so many rows lie side by side and are read in one piece.
const GROUP: usize = 4;

/// Entries of a block.
const BLOCK: usize = SIDE * SIDE;

/// The rows of a matrix, 16 by 16; in those, 16 entries along the columns after the other, row by row. What is missing at the
/// ends is zero.
#[derive(Debug)]
pub(super) struct Blocks(pub(super) LaidOut);

impl Blocks {
    /// The rows of `matrix`.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        let depth = Amx::depth(matrix.columns());
        let form = Form {
            depth,
            stride: depth,
            unit: SIDE,
            task: GROUP * SIDE,
            fill: fill_blocks_bf16,
        };
        // SAFETY: it writes every entry.
        Self(unsafe { LaidOut::new(matrix, &form, threads) })
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
