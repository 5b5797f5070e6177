//! The tile kernel for AVX2. Bytes are widened to i16 first: `vpmaddwd` then adds pairs of products exactly, where the
//! shorter `vpmaddubsw` would saturate.

use super::packed::{GROUP, PANEL};
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtepu8_epi16, _mm_cvtsi32_si128, _mm_loadu_si128, _mm256_add_epi32, _mm256_broadcastq_epi64,
    _mm256_cvtepi8_epi16, _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_permute4x64_epi64, _mm256_setzero_si256,
    _mm256_storeu_si256,
};

/// Registers of partial sums that a panel takes: 4 lanes each, as two pairs.
const PARTS: usize = PANEL / 4;

/// As [`super::portable::tile`], for any number of rows and panels.
#[target_feature(enable = "avx2")]
pub(super) fn tile(a: &[u8], rows: usize, panels: &[i8], groups: usize, out: &mut [i32], stride: usize) {
    let panel_size = groups * PANEL * GROUP;
    for (index, panel) in panels.chunks_exact(panel_size).enumerate() {
        let out = &mut out[index * PANEL..];
        let mut row = 0;
        while row < rows {
            let (a, out) = (&a[row * groups * GROUP..], &mut out[row * stride..]);
            row += match rows - row {
                1 => block::<1>(a, panel, groups, out, stride),
                _ => block::<2>(a, panel, groups, out, stride),
            };
        }
    }
}

/// `R` rows of one panel; returns `R`.
#[target_feature(enable = "avx2")]
#[inline]
fn block<const R: usize>(a: &[u8], panel: &[i8], groups: usize, out: &mut [i32], stride: usize) -> usize {
    const LINE: usize = PANEL * GROUP;
    assert!(a.len() >= R * groups * GROUP && panel.len() >= groups * LINE);
    assert!(out.len() >= (R - 1) * stride + PANEL);
    let mut sums = [[_mm256_setzero_si256(); PARTS]; R];
    for group in 0..groups {
        let mut weights = [_mm256_setzero_si256(); PARTS];
        for (part, weights) in weights.iter_mut().enumerate() {
            // SAFETY: 16 bytes at `part` of the line of `group`, which ends at or before groups · 64, within the slice.
            let bytes = unsafe { _mm_loadu_si128(panel.as_ptr().add(group * LINE + part * 16).cast::<__m128i>()) };
            *weights = _mm256_cvtepi8_epi16(bytes);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the four bytes of `group` in row `r` end at or before (r + 1) · groups · 4, within the slice.
            let bytes = unsafe {
                a.as_ptr()
                    .add((r * groups + group) * GROUP)
                    .cast::<i32>()
                    .read_unaligned()
            };
            let bytes = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(bytes)));
            for (sum, weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(bytes, *weights));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for half in 0..2 {
            // Each register has lanes 0 1 | 2 3 as pairs; adding pairs leaves the 64-bit quarters in the order 0 2 1 3.
            let pairs = _mm256_hadd_epi32(sums[2 * half], sums[2 * half + 1]);
            let lanes = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
            // SAFETY: 8 lanes from r · stride + half · 8 end within the slice, as asserted.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(r * stride + half * 8).cast::<__m256i>(), lanes) };
        }
    }
    R
}
