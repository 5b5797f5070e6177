//! Rows and columns of a block exchanged in registers of AVX-512.

use super::{Block, SIDE};
use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// As [`super::turned_plainly`]: within groups of four rows and columns first, then the groups.
#[target_feature(enable = "avx512f")]
pub(super) fn turned(block: &Block) -> Block {
    let mut rows = [_mm512_set1_epi32(0); SIDE];
    for (register, row) in rows.iter_mut().zip(block) {
        // SAFETY: a row is 16 entries of four bytes.
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
    let mut turned = [[0; SIDE]; SIDE];
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
                // SAFETY: a row is 16 entries of four bytes.
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
            let block: Block = std::array::from_fn(|row| std::array::from_fn(|column| (row * SIDE + column) as u32));
            // SAFETY: this processor has AVX-512.
            assert_eq!(unsafe { turned(&block) }, super::super::turned_plainly(&block));
        }
    }
}
