//! The bf16 tile for AVX-512: `vdpbf16ps` of BF16 adds two products of bf16 to each f32 lane.

use super::super::Tile;
use super::super::avx512::{LANES, REGISTERS, prefetch};
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

/// As [`super::super::Arithmetic::add_products`], for the first `HEIGHT` rows.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile<const HEIGHT: usize>(tile: Tile<'_>) {
    let mut sums = [[_mm512_setzero_ps(); REGISTERS]; HEIGHT];
    if let Some((start, stride)) = tile.start {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (register, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 16 elements of a row of the start.
                *sums = unsafe { _mm512_loadu_ps(start.add(row * stride + register * LANES)) };
            }
        }
    }
    for (place, right) in tile.right.iter().enumerate() {
        prefetch(right);
        let mut columns = [bf16(_mm512_set1_epi32(0)); REGISTERS];
        for (columns, pairs) in columns.iter_mut().zip(right.as_chunks::<LANES>().0) {
            // SAFETY: `pairs` is an array of 16 entries of four bytes.
            *columns = bf16(unsafe { _mm512_loadu_si512(pairs.as_ptr().cast::<__m512i>()) });
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a row and a place of the tile.
            let pair = bf16(_mm512_set1_epi32(unsafe { tile.left(row, place) }.cast_signed()));
            for (sums, columns) in sums.iter_mut().zip(columns) {
                *sums = _mm512_dpbf16_ps(*sums, pair, columns);
            }
        }
    }
    let factor = _mm512_set1_ps(tile.factor);
    for (row, sums) in sums.iter().enumerate() {
        for (register, sums) in sums.iter().enumerate() {
            let out = _mm512_mul_ps(*sums, factor);
            // SAFETY: 16 elements of a row of the output.
            unsafe { _mm512_storeu_ps(tile.out.add(row * tile.out_stride + register * LANES), out) };
        }
    }
}

/// The bits of a register as pairs of bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without structure.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}
