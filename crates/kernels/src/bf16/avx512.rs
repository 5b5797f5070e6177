//! The kernels for AVX-512: `vdpbf16ps` of BF16 adds two products of bf16 to each f32 lane of a tile.

use super::{Block, COLUMNS, Pair, ROWS, SIDE, Sums};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_i32x4, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Lanes of a register.
const LANES: usize = 16;

/// Registers side by side in a row of a tile.
const REGISTERS: usize = COLUMNS / LANES;

/// The sums of a tile in registers.
type Lanes = [[__m512; REGISTERS]; ROWS];

/// As [`super::portable::tile`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn tile(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    let start = sums.as_mut_ptr().cast::<f32>();
    // SAFETY: the rows of `sums` are COLUMNS apart.
    unsafe { tile_in_place(start, COLUMNS, true, 1.0, left, right) }
}

/// As [`tile`], for sums whose rows are `stride` apart from `start` on: from zero if they are not `kept`, and multiplied by
/// `factor` in the end.
///
/// # Safety
/// All rows of [`COLUMNS`] elements are valid for writes, and for reads if they are kept; nobody else touches them.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile_in_place(
    start: *mut f32,
    stride: usize,
    kept: bool,
    factor: f32,
    left: &[[Pair; ROWS]],
    right: &[[Pair; COLUMNS]],
) {
    let mut lanes = [[_mm512_setzero_ps(); REGISTERS]; ROWS];
    if kept {
        for (row, lanes) in lanes.iter_mut().enumerate() {
            for (register, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: 16 elements of a row, valid for reads by this function's contract.
                *lanes = unsafe { _mm512_loadu_ps(start.add(row * stride + register * LANES)) };
            }
        }
    }
    let factor = _mm512_set1_ps(factor);
    for (row, lanes) in add_products(lanes, left, right).iter().enumerate() {
        for (register, lanes) in lanes.iter().enumerate() {
            let sums = _mm512_mul_ps(*lanes, factor);
            // SAFETY: 16 elements of a row, valid for writes by this function's contract.
            unsafe { _mm512_storeu_ps(start.add(row * stride + register * LANES), sums) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn add_products(mut lanes: Lanes, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) -> Lanes {
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
    lanes
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
