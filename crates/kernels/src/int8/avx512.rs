//! The tile kernel for AVX-512 VNNI: `vpdpbusd` adds four products of u8 and i8 to each i32 lane, without saturation.

use super::packed::{GROUP, PANEL};
use std::arch::x86_64::_mm512_storeu_si512;
use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512};

/// As [`super::portable::tile`], for any number of rows and panels.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn tile(a: &[u8], rows: usize, panels: &[i8], groups: usize, out: &mut [i32], stride: usize) {
    add_groups(a, rows, panels, [groups, 0], out, stride);
}

/// The same from group `done` on, added to what is in `out` if that is not 0.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_groups(
    a: &[u8],
    rows: usize,
    panels: &[i8],
    [groups, done]: [usize; 2],
    out: &mut [i32],
    stride: usize,
) {
    let panel_size = groups * PANEL * GROUP;
    let mut panel = 0;
    let count = panels.len() / panel_size;
    while panel < count {
        let (rest, out) = (&panels[panel * panel_size..], &mut out[panel * PANEL..]);
        panel += match (rows, count - panel) {
            (0..8, 4..) => columns::<4>(a, rows, rest, [groups, done], out, stride),
            (_, 2..) => columns::<2>(a, rows, rest, [groups, done], out, stride),
            (_, _) => columns::<1>(a, rows, rest, [groups, done], out, stride),
        };
    }
}

/// All rows of `P` panels, in blocks; returns `P`.
#[target_feature(enable = "avx512f,avx512vnni")]
fn columns<const P: usize>(
    a: &[u8],
    rows: usize,
    panels: &[i8],
    [groups, done]: [usize; 2],
    out: &mut [i32],
    stride: usize,
) -> usize {
    let mut row = 0;
    while row < rows {
        let (a, out) = (&a[row * groups * GROUP..], &mut out[row * stride..]);
        row += match rows - row {
            1 => block::<1, P>(a, panels, [groups, done], out, stride),
            2..4 => block::<2, P>(a, panels, [groups, done], out, stride),
            4..8 => block::<4, P>(a, panels, [groups, done], out, stride),
            _ => block::<8, P>(a, panels, [groups, done], out, stride),
        };
    }
    P
}

/// `R` rows of `P` panels in R · P registers; returns `R`.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn block<const R: usize, const P: usize>(
    a: &[u8],
    panels: &[i8],
    [groups, done]: [usize; 2],
    out: &mut [i32],
    stride: usize,
) -> usize {
    const LINE: usize = PANEL * GROUP;
    assert!(a.len() >= R * groups * GROUP && panels.len() >= P * groups * LINE);
    assert!(out.len() >= (R - 1) * stride + P * PANEL);
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    if done > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 16 lanes from r · stride + p · 16 end within the slice, as asserted.
                *sum = unsafe { _mm512_loadu_si512(out.as_ptr().add(r * stride + p * PANEL).cast::<__m512i>()) };
            }
        }
    }
    for group in done..groups {
        let mut weights = [_mm512_setzero_si512(); P];
        for (p, weights) in weights.iter_mut().enumerate() {
            // SAFETY: the line of `group` in panel `p` ends at or before (p + 1) · groups · 64, within the slice.
            *weights =
                unsafe { _mm512_loadu_si512(panels.as_ptr().add((p * groups + group) * LINE).cast::<__m512i>()) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the four bytes of `group` in row `r` end at or before (r + 1) · groups · 4, within the slice.
            let bytes = unsafe {
                a.as_ptr()
                    .add((r * groups + group) * GROUP)
                    .cast::<i32>()
                    .read_unaligned()
            };
            let bytes = _mm512_set1_epi32(bytes);
            for (sum, weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm512_dpbusd_epi32(*sum, bytes, *weights);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (p, sum) in sums.iter().enumerate() {
            // SAFETY: 16 lanes from r · stride + p · 16 end within the slice, as asserted.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(r * stride + p * PANEL).cast::<__m512i>(), *sum) };
        }
    }
    R
}
