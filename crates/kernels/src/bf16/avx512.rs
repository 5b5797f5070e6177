//! The kernels for AVX-512: `vdpbf16ps` of BF16 adds two products of bf16 to each f32 lane of a tile.

use super::{Block, COLUMNS, Pair, ROWS, SIDE, Sums};
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_shuffle_i32x4, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
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

/// As [`super::portable::turned`]: within groups of four rows and columns first, then the groups.
#[target_feature(enable = "avx512f")]
pub(super) fn turned(block: &Block) -> Block {
    let mut rows = [_mm512_set1_epi32(0); SIDE];
    for (register, row) in rows.iter_mut().zip(block) {
        // SAFETY: a row is 16 pairs of four bytes.
        *register = unsafe { _mm512_loadu_si512(row.as_ptr().cast::<__m512i>()) };
    }
    let mut groups = [_mm512_set1_epi32(0); SIDE];
    for (rows, groups) in rows.as_chunks::<4>().0.iter().zip(groups.as_chunks_mut::<4>().0) {
        let (low, high) = (
            _mm512_unpacklo_epi32(rows[0], rows[1]),
            _mm512_unpacklo_epi32(rows[2], rows[3]),
        );
        let (low_rest, high_rest) = (
            _mm512_unpackhi_epi32(rows[0], rows[1]),
            _mm512_unpackhi_epi32(rows[2], rows[3]),
        );
        *groups = [
            _mm512_unpacklo_epi64(low, high),
            _mm512_unpackhi_epi64(low, high),
            _mm512_unpacklo_epi64(low_rest, high_rest),
            _mm512_unpackhi_epi64(low_rest, high_rest),
        ];
    }
    // Of two registers, 0x88 takes the quarters 0 and 2 of each, 0xdd the quarters 1 and 3.
    let mut turned = [[[0; 2]; SIDE]; SIDE];
    for column in 0..4 {
        let mut halves = [[_mm512_set1_epi32(0); 2]; 2];
        for (i, half) in halves.iter_mut().enumerate() {
            let (a, b) = (groups[8 * i + column], groups[8 * i + 4 + column]);
            *half = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b)];
        }
        let [first, second] = halves;
        for half in 0..2 {
            let quarters = [
                _mm512_shuffle_i32x4::<0x88>(first[half], second[half]),
                _mm512_shuffle_i32x4::<0xdd>(first[half], second[half]),
            ];
            for (i, quarter) in quarters.into_iter().enumerate() {
                let row = &mut turned[8 * i + 4 * half + column];
                // SAFETY: a row is 16 pairs of four bytes.
                unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast::<__m512i>(), quarter) };
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn a_block_is_turned_as_in_plain_rust() {
        if Isa::detect() >= Isa::Avx512 {
            let block: Block = std::array::from_fn(|row| std::array::from_fn(|column| [row as u16, column as u16]));
            // SAFETY: this processor has AVX-512.
            assert_eq!(unsafe { turned(&block) }, super::super::portable::turned(&block));
        }
    }
}
