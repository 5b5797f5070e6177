//! A left operand in bf16 whose rows stay as they lie.

use super::bf16::Bf16;
use super::panels::{fill_lines_bf16, line_of};
use super::{Entries, Entry, SIDE, Threads};
use crate::aligned::Aligned;
use crate::matrix::Matrix;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows of a task.
const GROUP: usize = 16;

/// The rows of a matrix, entry after entry along the columns. A row ends in a block of zeros or more, so that rows of a power
/// of two elements do not all fall into the same lines of a cache.
#[derive(Debug)]
pub(super) struct Lines {
    entries: Aligned<Entry>,
    rows: usize,
    depth: usize,
}

impl Lines {
    /// The rows of `matrix`, which lie in one piece each.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        let depth = matrix.columns().div_ceil(Bf16::STEP);
        let len = matrix.rows() * stride(depth);
        // SAFETY: `fill_lines_bf16` is given all of them, and writes them.
        let entries = unsafe {
            Aligned::build(len, |entries| match threads {
                Threads::One => fill_lines_bf16(matrix, 0, depth, entries),
                Threads::All => entries
                    .par_chunks_mut(GROUP * stride(depth))
                    .enumerate()
                    .for_each(|(index, lines)| fill_lines_bf16(matrix, index * GROUP, depth, lines)),
            })
        };
        Self {
            entries,
            rows: matrix.rows(),
            depth,
        }
    }

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

    /// Entries from row to row.
    pub(super) fn stride(&self) -> usize {
        stride(self.depth)
    }
}

fn stride(depth: usize) -> usize {
    depth.next_multiple_of(SIDE) + SIDE
}

/// Writes every entry of the lines that begin with row `first`, of `depth` entries each.
#[inline(always)]
pub(super) fn fill<E: Entries>(matrix: Matrix<'_>, first: usize, depth: usize, out: &mut [MaybeUninit<Entry>]) {
    for (row, out) in (first..).zip(out.chunks_exact_mut(stride(depth))) {
        for (block, out) in out.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
            let start = block * SIDE * E::STEP;
            let entries = if start < matrix.columns() {
                let len = (matrix.columns() - start).min(SIDE * E::STEP);
                line_of::<E>(&matrix.at(row, start)[..len])
            } else {
                [0; SIDE]
            };
            out.write_copy_of_slice(&entries);
        }
    }
}
