//! The tile kernel for AVX-512 BF16: `vdpbf16ps` adds two products of bf16 to each f32 lane.

use super::{COLUMNS, Pair, ROWS, Sums};
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

/// Lanes of a register.
const LANES: usize = 16;

/// Registers side by side in a row of a tile.
const REGISTERS: usize = COLUMNS / LANES;

/// As [`super::portable::tile`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn tile(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    let mut lanes = [[_mm512_setzero_ps(); REGISTERS]; ROWS];
    for (lanes, sums) in lanes.iter_mut().zip(sums.iter()) {
        for (lanes, sums) in lanes.iter_mut().zip(sums.as_chunks::<LANES>().0) {
            // SAFETY: `sums` is an array of 16 floats.
            *lanes = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
        }
    }
    for (left, right) in left.iter().zip(right) {
        let mut columns = [bf16(_mm512_set1_epi32(0)); REGISTERS];
        for (columns, pairs) in columns.iter_mut().zip(right.as_chunks::<LANES>().0) {
            // SAFETY: `pairs` is an array of 16 pairs of four bytes.
            *columns = bf16(unsafe { _mm512_loadu_si512(pairs.as_ptr().cast::<__m512i>()) });
        }
        for (lanes, pair) in lanes.iter_mut().zip(left) {
            let [first, second] = pair.map(i32::from);
            let row = bf16(_mm512_set1_epi32(second << 16 | first));
            for (lanes, columns) in lanes.iter_mut().zip(columns) {
                *lanes = _mm512_dpbf16_ps(*lanes, row, columns);
            }
        }
    }
    for (lanes, sums) in lanes.iter().zip(sums) {
        for (lanes, sums) in lanes.iter().zip(sums.as_chunks_mut::<LANES>().0) {
            // SAFETY: `sums` is an array of 16 floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *lanes) };
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
