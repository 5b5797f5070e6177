//! The product of operands that are laid out: tasks of rows and columns, each tile by tile.
//!
//! While the inner dimension is cut, sums wait in the output as they are.

use super::laid_out::LaidOut;
use super::{Amx, Arithmetic, Blocks, COLUMNS, Entry, Lines, Output, Panels, ROWS, Threads, Tile};
use crate::matrix::Matrix;
use crate::storage::Shared;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Multiplications from which waking other threads pays.
const PARALLEL: usize = 1 << 19;

/// Who computes a product of so many multiplications, where `wanted` may.
pub(super) fn threads(multiplications: usize, wanted: Threads) -> Threads {
    if multiplications < PARALLEL {
        Threads::One
    } else {
        wanted
    }
}

/// Rows of a buffer that begin at `offset` and are `row_stride` apart.
pub(super) struct Place<'a> {
    pub(super) out: &'a Shared<'a, f32>,
    pub(super) offset: usize,
    pub(super) row_stride: usize,
}

impl Place<'_> {
    fn at(&self, row: usize, column: usize) -> *mut f32 {
        self.out.pointer(self.offset + row * self.row_stride + column)
    }
}

/// Entries of a left operand.
///
/// Invariant: for each of `rows` rows and each of `depth` places there is an entry that is not written while this lives: row
/// r's is `r / HEIGHT` tiles and `r % HEIGHT` rows from the start, or in a block that is. Rows are there up to a multiple of
/// `BLOCK`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    start: *const Entry,
    tile_stride: usize,
    row_stride: usize,
    place_stride: usize,
    rows: usize,
    depth: usize,
    lifetime: PhantomData<&'a [Entry]>,
}

// SAFETY: it is read only, like the slice that it stands for.
unsafe impl Send for Left<'_> {}
// SAFETY: as above.
unsafe impl Sync for Left<'_> {}

impl<'a> Left<'a> {
    /// The elements of a matrix where they are, as entries of [`super::f32`], for tiles of [`ROWS`].
    pub(super) fn of_matrix(matrix: Matrix<'a>) -> Self {
        let [row_stride, place_stride] = matrix.strides();
        Self {
            start: matrix.start().cast(),
            tile_stride: ROWS * row_stride,
            row_stride,
            place_stride,
            rows: matrix.rows(),
            depth: matrix.columns(),
            lifetime: PhantomData,
        }
    }

    /// Entries that stay as their rows lie, for tiles of [`ROWS`].
    pub(super) fn of_lines(Lines(lines): &'a Lines) -> Self {
        Self::laid_out(lines, ROWS, [lines.stride(), 1])
    }

    /// Blocks, for [`Amx`]. The strides are from block to block, divided by their rows and entries.
    pub(super) fn of_blocks(Blocks(blocks): &'a Blocks) -> Self {
        Self::laid_out(blocks, Amx::HEIGHT, [blocks.stride(), Amx::BLOCK])
    }

    /// Entries that have been laid out, for tiles of [`ROWS`].
    pub(super) fn of_panels(Panels(panels): &'a Panels<ROWS>) -> Self {
        Self::laid_out(panels, ROWS, [1, ROWS])
    }

    fn laid_out(rows: &'a LaidOut, height: usize, [row_stride, place_stride]: [usize; 2]) -> Self {
        Self {
            start: rows.entries().as_ptr(),
            tile_stride: height * rows.stride(),
            row_stride,
            place_stride,
            rows: rows.rows(),
            depth: rows.depth(),
            lifetime: PhantomData,
        }
    }
}

/// A product by the rules of `A`.
pub(super) struct Product<'a, A> {
    left: Left<'a>,
    right: &'a Panels<COLUMNS>,
    columns: usize,
    arithmetic: PhantomData<fn() -> A>,
}

impl<'a, A: Arithmetic> Product<'a, A> {
    /// Of all rows of `left` and the first `columns` columns of `right`, whose entries are those of `A`.
    ///
    /// # Panics
    /// If there are fewer columns, or the operands differ in the inner dimension.
    pub(super) fn new(left: Left<'a>, right: &'a Panels<COLUMNS>, columns: usize) -> Self {
        assert_eq!(left.depth, right.0.depth(), "the inner dimension of a product");
        assert!(columns <= right.0.rows(), "panels of a smaller product");
        Self {
            left,
            right,
            columns,
            arithmetic: PhantomData,
        }
    }

    /// Puts the product to `place`, whose elements need not be initialized unless `output` adds to them.
    ///
    /// # Safety
    /// No other task touches the rows there.
    ///
    /// # Panics
    /// If they end outside of the buffer, or a bias is of another length.
    pub(super) unsafe fn put(&self, place: &Place<'_>, output: Output<'_>, threads: Threads) {
        if self.left.rows == 0 || self.columns == 0 {
            return;
        }
        let _within = place.at(self.left.rows - 1, self.columns);
        if let Output::Biased(bias) = output {
            assert_eq!(bias.len(), self.columns, "the length of a bias");
        }
        let [down, across] = A::TASK;
        let (all_down, all_across) = (self.left.rows.div_ceil(A::HEIGHT), self.columns.div_ceil(COLUMNS));
        let tasks_across = all_across.div_ceil(across);
        let tasks = 0..all_down.div_ceil(down) * tasks_across;
        let panels = |task: usize, size: usize, all: usize| task * size..(task * size + size).min(all);
        let run = |task: usize| {
            let (rows, columns) = (task / tasks_across, task % tasks_across);
            let depth = self.left.depth;
            let visit = A::visit(depth).max(1);
            let session = A::begin();
            // An empty inner dimension is visited too, for what the product is added to.
            for first in (0..depth.max(1)).step_by(visit) {
                for right in panels(columns, across, all_across) {
                    for left in panels(rows, down, all_down) {
                        // SAFETY: `place` covers all rows by this function's contract, and each task has rows and columns
                        // of its own; an earlier visit wrote them if this is not the first.
                        unsafe {
                            self.visit(
                                &session,
                                place,
                                output,
                                [left, right],
                                first..(first + visit).min(depth),
                            )
                        };
                    }
                }
            }
        };
        match threads {
            Threads::One => tasks.for_each(run),
            Threads::All => tasks.into_par_iter().for_each(run),
        }
    }

    /// One visit of a tile.
    ///
    /// # Safety
    /// As for [`Self::put`], for this tile; its elements are initialized if `part` does not begin at 0.
    unsafe fn visit(
        &self,
        session: &A::Session,
        place: &Place<'_>,
        output: Output<'_>,
        [left, right]: [usize; 2],
        part: Range<usize>,
    ) {
        let (row, column) = (left * A::HEIGHT, right * COLUMNS);
        let height = A::HEIGHT.min(self.left.rows - row);
        let width = COLUMNS.min(self.columns - column);
        let out = place.at(row, column);
        let kept: (*const f32, usize) = (out, place.row_stride);
        let start = match output {
            _ if part.start > 0 => Some(kept),
            Output::Add => Some(kept),
            Output::Biased(bias) => Some((bias[column..].as_ptr(), 0)),
            Output::Replace { .. } => None,
        };
        let factor = match output {
            Output::Replace { factor } if part.end == self.left.depth => factor,
            Output::Replace { .. } | Output::Add | Output::Biased(_) => 1.0,
        };
        let tile = Tile {
            height,
            left: self
                .left
                .start
                .wrapping_add(left * self.left.tile_stride + part.start * self.left.place_stride),
            left_strides: [self.left.row_stride, self.left.place_stride],
            right: self.right.part(right, part),
            start,
            factor,
            out,
            out_stride: place.row_stride,
        };
        // SAFETY: a whole tile lies in the output, and so does its start, or in the bias; `left` has its rows and places.
        unsafe {
            if width == COLUMNS && height.is_multiple_of(A::BLOCK) {
                A::add_products(session, tile);
            } else {
                partial::<A>(session, tile, width);
            }
        }
    }
}

/// Most rows of any tile.
const HIGHEST: usize = 32;

/// A tile of which only `height` rows and `width` columns are in the output, and in its start: through a whole one.
///
/// # Safety
/// As for [`Arithmetic::add_products`], for `width` columns and any height.
unsafe fn partial<A: Arithmetic>(session: &A::Session, tile: Tile<'_>, width: usize) {
    const { assert!(A::HEIGHT <= HIGHEST && A::HEIGHT.is_multiple_of(A::BLOCK)) }
    let height = tile.height.next_multiple_of(A::BLOCK);
    let mut whole = [MaybeUninit::<[f32; COLUMNS]>::uninit(); HIGHEST];
    whole[..height].fill(MaybeUninit::new([0.0; COLUMNS]));
    let sums = whole.as_mut_ptr().cast::<f32>();
    if let Some((from, stride)) = tile.start {
        for row in 0..tile.height {
            // SAFETY: `width` elements of a row of the start.
            unsafe {
                from.add(row * stride)
                    .copy_to_nonoverlapping(sums.add(row * COLUMNS), width);
            }
        }
    }
    // SAFETY: `whole` has `height` rows and all columns, and the left operand has as many rows.
    unsafe {
        A::add_products(
            session,
            Tile {
                height,
                start: tile.start.map(|_| (sums.cast_const(), COLUMNS)),
                out: sums,
                out_stride: COLUMNS,
                ..tile
            },
        );
    }
    for row in 0..tile.height {
        // SAFETY: `width` elements of a row of the output.
        unsafe {
            sums.add(row * COLUMNS)
                .copy_to_nonoverlapping(tile.out.add(row * tile.out_stride), width);
        }
    }
}
