//! The f32 tile for AVX-512: two registers of sums a row.

use super::super::avx512::{LANES, REGISTERS, prefetch};
use super::super::{COLUMNS, Entry, Tile};
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

/// As [`super::super::Arithmetic::add_products`], for the first `HEIGHT` rows.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile<const HEIGHT: usize>(tile: Tile<'_>) {
    let mut sums = [[_mm512_setzero_ps(); REGISTERS]; HEIGHT];
    for (place, right) in tile.right.iter().enumerate() {
        prefetch(right);
        let right = columns(right);
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a row and a place of the tile.
            let left = _mm512_set1_ps(f32::from_bits(unsafe { tile.left(row, place) }));
            for (sums, right) in sums.iter_mut().zip(right) {
                *sums = _mm512_fmadd_ps(left, right, *sums);
            }
        }
    }
    let factor = _mm512_set1_ps(tile.factor);
    for (row, sums) in sums.into_iter().enumerate() {
        for (register, mut sums) in sums.into_iter().enumerate() {
            if let Some((start, stride)) = tile.start {
                // SAFETY: 16 elements of a row of the start.
                sums = _mm512_add_ps(sums, unsafe {
                    _mm512_loadu_ps(start.add(row * stride + register * LANES))
                });
            }
            let out = _mm512_mul_ps(sums, factor);
            // SAFETY: 16 elements of a row of the output.
            unsafe { _mm512_storeu_ps(tile.out.add(row * tile.out_stride + register * LANES), out) };
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn columns(right: &[Entry; COLUMNS]) -> [__m512; REGISTERS] {
    let mut columns = [_mm512_setzero_ps(); REGISTERS];
    for (columns, right) in columns.iter_mut().zip(right.as_chunks::<LANES>().0) {
        // SAFETY: `right` is an array of the bits of 16 floats.
        *columns = unsafe { _mm512_loadu_ps(right.as_ptr().cast::<f32>()) };
    }
    columns
}
