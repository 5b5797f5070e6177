//! The f32 tile for AVX2 and FMA, in parts of four rows and half of the columns: there are sixteen registers.

use super::super::{COLUMNS, Tile};
use std::arch::x86_64::{
    _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

/// Lanes of a register.
const LANES: usize = 8;

/// Registers side by side in a row of a part.
const REGISTERS: usize = 2;

/// Columns of a part.
const WIDTH: usize = REGISTERS * LANES;

/// Rows of a part.
const HEIGHT: usize = 4;

/// As [`super::super::Arithmetic::add_products`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile(tile: Tile<'_>) {
    for row in (0..tile.height).step_by(HEIGHT) {
        for column in (0..COLUMNS).step_by(WIDTH) {
            // SAFETY: a part of the tile.
            unsafe {
                match (tile.height - row).min(HEIGHT) {
                    1 => part::<1>(tile, row, column),
                    2 => part::<2>(tile, row, column),
                    3 => part::<3>(tile, row, column),
                    _ => part::<HEIGHT>(tile, row, column),
                }
            }
        }
    }
}

/// The part of `R` rows from `row` on and of [`WIDTH`] columns from `column` on.
///
/// # Safety
/// As for [`tile`], which has these rows and columns.
#[target_feature(enable = "avx2,fma")]
unsafe fn part<const R: usize>(tile: Tile<'_>, row: usize, column: usize) {
    let mut sums = [[_mm256_setzero_ps(); REGISTERS]; R];
    for (place, right) in tile.right.iter().enumerate() {
        let mut columns = [_mm256_setzero_ps(); REGISTERS];
        for (columns, right) in columns.iter_mut().zip(right[column..].as_chunks::<LANES>().0) {
            // SAFETY: `right` is an array of the bits of 8 floats.
            *columns = unsafe { _mm256_loadu_ps(right.as_ptr().cast::<f32>()) };
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a row and a place of the tile.
            let left = _mm256_set1_ps(f32::from_bits(unsafe { tile.left(row + i, place) }));
            for (sums, columns) in sums.iter_mut().zip(columns) {
                *sums = _mm256_fmadd_ps(left, columns, *sums);
            }
        }
    }
    let factor = _mm256_set1_ps(tile.factor);
    for (i, sums) in sums.into_iter().enumerate() {
        for (register, mut sums) in sums.into_iter().enumerate() {
            let column = column + register * LANES;
            if let Some((start, stride)) = tile.start {
                // SAFETY: 8 elements of a row of the start.
                sums = _mm256_add_ps(sums, unsafe { _mm256_loadu_ps(start.add((row + i) * stride + column)) });
            }
            let out = _mm256_mul_ps(sums, factor);
            // SAFETY: 8 elements of a row of the output.
            unsafe { _mm256_storeu_ps(tile.out.add((row + i) * tile.out_stride + column), out) };
        }
    }
}
