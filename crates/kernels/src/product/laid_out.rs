//! Rows of a matrix as entries, laid out by one task or by many.

use super::{Entry, Threads};
use crate::aligned::Aligned;
use crate::matrix::Matrix;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Lays out every entry of the rows that begin with one of a matrix, so many along the columns, with zeros for what the matrix
/// lacks.
pub(super) type Fill = fn(Matrix<'_>, usize, usize, &mut [MaybeUninit<Entry>]);

/// How rows become entries.
pub(super) struct Form {
    /// Entries along the columns.
    pub(super) depth: usize,
    /// Entries that a row takes, with those between it and the next.
    pub(super) stride: usize,
    /// Rows are filled up to a multiple of this.
    pub(super) unit: usize,
    /// Rows of a task, a multiple of `unit`.
    pub(super) task: usize,
    pub(super) fill: Fill,
}

/// Rows that have been laid out.
#[derive(Debug)]
pub(super) struct LaidOut {
    entries: Aligned<Entry>,
    rows: usize,
    depth: usize,
    stride: usize,
}

impl LaidOut {
    /// # Safety
    /// `form.fill` writes every entry of as many rows of `form.stride` entries as it is given, where these are a multiple of
    /// `form.unit`, and so is `form.task`.
    pub(super) unsafe fn new(matrix: Matrix<'_>, form: &Form, threads: Threads) -> Self {
        let Form {
            depth,
            stride,
            unit,
            task,
            fill,
        } = *form;
        debug_assert!(task.is_multiple_of(unit), "tasks of whole units");
        let len = matrix.rows().next_multiple_of(unit) * stride;
        // SAFETY: `fill` is given all of them, and writes them by this function's contract.
        let entries = unsafe {
            Aligned::build(len, |entries| match threads {
                Threads::One => fill(matrix, 0, depth, entries),
                Threads::All => entries
                    .par_chunks_mut((task * stride).max(1))
                    .enumerate()
                    .for_each(|(index, entries)| fill(matrix, index * task, depth, entries)),
            })
        };
        Self {
            entries,
            rows: matrix.rows(),
            depth,
            stride,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Rows, without those that fill up the last ones.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Entries along the inner dimension.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Entries that a row takes.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}
