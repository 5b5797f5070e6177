//! A left operand in bf16 whose rows stay as they lie.

use super::bf16::Bf16;
use super::laid_out::{Form, LaidOut};
use super::panels::{fill_lines_bf16, line_of};
use super::{Arithmetic, Entries, Entry, SIDE, Threads};
use crate::matrix::Matrix;
use std::mem::MaybeUninit;

/// Rows of a task.
const GROUP: usize = 16;

/// The rows of a matrix, entry after entry along the columns. A row ends in a block of zeros or more, so that rows of a power
/// of two elements do not all fall into the same lines of a cache.
#[derive(Debug)]
pub(super) struct Lines(pub(super) LaidOut);

impl Lines {
    /// The rows of `matrix`, which lie in one piece each.
    pub(super) fn of_rows(matrix: Matrix<'_>, threads: Threads) -> Self {
        let depth = Bf16::depth(matrix.columns());
        let form = Form {
            depth,
            stride: stride(depth),
            unit: 1,
            task: GROUP,
            fill: fill_lines_bf16,
        };
        // SAFETY: it writes every entry.
        Self(unsafe { LaidOut::new(matrix, &form, threads) })
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
