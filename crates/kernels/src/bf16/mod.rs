//! Matrix products of f32 operands that are rounded to bf16, summed in f32.
//!
//! Invariant: an element of a product has the same bits on every instruction set, for any number of threads and wherever
//! the inner dimension is cut. It is what `vdpbf16ps` gives (Intel SDM, volume 2): the operands' elements, rounded to the
//! nearest bf16, ties to even, are taken two by two along the inner dimension, the last one with a zero if it is alone; of
//! each pair first the product of the second elements is added to the sum and then that of the first, each by a fused
//! multiply-add. Numbers below the smallest normal one count as zero, in operands and sums. Where a result is not a number,
//! that much is the same everywhere, its payload is not.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod panels;
mod portable;
mod product;

pub(crate) use product::product;

/// Two elements that follow each other along the inner dimension.
type Pair = [u16; 2];

/// Rows of a tile.
const ROWS: usize = 8;

/// Columns of a tile: two registers of AVX-512.
const COLUMNS: usize = 32;

/// The sums of a tile.
type Sums = [[f32; COLUMNS]; ROWS];

/// Rows and columns of a block whose rows and columns are exchanged in one go: lanes of a register of AVX-512.
const SIDE: usize = 16;

/// Such a block.
type Block = [[Pair; SIDE]; SIDE];
