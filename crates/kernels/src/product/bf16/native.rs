//! Entries by the processor's own rounding to bf16.

use super::super::{Entries, Entry, SIDE};
use super::Bf16;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh,
    _mm512_loadu_ps, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_slli_epi32,
    _mm512_storeu_si512,
};
use std::mem::transmute;

/// As [`Bf16`], with the same bits.
///
/// Invariant: only functions that run where the processor has `avx512bf16` use this.
pub(in super::super) struct Native;

impl Entries for Native {
    const STEP: usize = 2;

    #[inline(always)]
    fn entry(first: f32, second: f32) -> Entry {
        Bf16::entry(first, second)
    }

    #[inline(always)]
    fn line(x: &[f32]) -> [Entry; SIDE] {
        let x: &[f32; 2 * SIDE] = x.try_into().expect("two elements for each entry");
        // SAFETY: the processor has the instructions, by this type's invariant.
        unsafe { line(x) }
    }

    #[inline(always)]
    fn side_by_side<const WIDTH: usize>(first: &[f32; WIDTH], second: &[f32; WIDTH]) -> [Entry; WIDTH] {
        let mut entries = [0; WIDTH];
        for start in (0..WIDTH).step_by(SIDE) {
            let count = SIDE.min(WIDTH - start);
            let (first, second, out) = (&first[start..], &second[start..], &mut entries[start..]);
            // SAFETY: the processor has the instructions, by this type's invariant; each has `count` elements from there.
            unsafe { side_by_side(count, first.as_ptr(), second.as_ptr(), out.as_mut_ptr()) };
        }
        entries
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn line(x: &[f32; 2 * SIDE]) -> [Entry; SIDE] {
    let mut line = [0; SIDE];
    // SAFETY: each half of `x` has 16 elements, and `line` as many entries.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(SIDE)));
        let pairs = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_storeu_si512(line.as_mut_ptr().cast::<__m512i>(), pairs);
    }
    line
}

/// # Safety
/// `first` and `second` are valid for reads of `count` elements, and `out` for writes of as many entries; `count` is from 1
/// to 16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn side_by_side(count: usize, first: *const f32, second: *const f32, out: *mut Entry) {
    let mask = u16::MAX >> (SIDE - count);
    // SAFETY: the mask leaves `count` elements and entries, by this function's contract.
    unsafe {
        let low = rounded(_mm512_maskz_loadu_ps(mask, first));
        let high = rounded(_mm512_maskz_loadu_ps(mask, second));
        let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
        _mm512_mask_storeu_epi32(out.cast::<i32>(), mask, pairs);
    }
}

/// Each element's bf16 in the low half of its lane.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn rounded(x: __m512) -> __m512i {
    // SAFETY: both are 32 bytes without structure.
    _mm512_cvtepu16_epi32(unsafe { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::random::{RandomKey, RandomStream};

    #[test]
    fn the_processor_rounds_as_plain_rust_does() {
        if Isa::detect() < Isa::Avx512Bf16 {
            return;
        }
        let mut stream = RandomStream::new(RandomKey {
            seed: 1,
            purpose: 0,
            step: 0,
        });
        let special = [
            0,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x3f80_8000,
        ];
        for round in 0..4096u32 {
            let x: [f32; 2 * SIDE] = std::array::from_fn(|i| {
                let chosen = special[(i * 7 + round as usize) % special.len()] | (round & 1) << 31;
                f32::from_bits(if i % 3 == 0 { chosen } else { stream.next_u32() })
            });
            assert_eq!(Native::line(&x), Bf16::line(&x));
            let (first, second) = (x.first_chunk::<8>().expect("more"), x.last_chunk::<8>().expect("more"));
            assert_eq!(Native::side_by_side(first, second), Bf16::side_by_side(first, second));
            assert_eq!(Native::side_by_side(&x, &x), Bf16::side_by_side(&x, &x));
        }
    }
}
