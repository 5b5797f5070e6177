//! The bf16 tile in plain Rust: what the instruction does, in separate steps.

use super::super::{COLUMNS, ROWS, Tile};
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;

/// As [`super::super::Arithmetic::add_products`].
///
/// # Safety
/// As there.
pub(super) unsafe fn tile(tile: Tile<'_>) {
    #[cfg(target_arch = "x86_64")]
    if Isa::current() >= Isa::Avx2 {
        // SAFETY: this processor has AVX2 and FMA; the rest by this function's contract.
        return unsafe { fused(tile) };
    }
    // SAFETY: by this function's contract.
    unsafe { plain(tile) }
}

/// With a fused multiply-add for eight sums at a time; without it there is one call of the C library for each.
///
/// # Safety
/// As for [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn fused(tile: Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe { plain(tile) }
}

/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn plain(tile: Tile<'_>) {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    if let Some((start, stride)) = tile.start {
        for (row, sums) in sums[..tile.height].iter_mut().enumerate() {
            // SAFETY: a row of the start.
            unsafe {
                start
                    .add(row * stride)
                    .copy_to_nonoverlapping(sums.as_mut_ptr(), COLUMNS)
            };
        }
    }
    for (place, right) in tile.right.iter().enumerate() {
        for (row, sums) in sums[..tile.height].iter_mut().enumerate() {
            // SAFETY: a row and a place of the tile.
            let [first, second] = widen(unsafe { tile.left(row, place) });
            for (sum, right) in sums.iter_mut().zip(right) {
                let right = widen(*right);
                let after = add_product(second, right[1], flush(*sum));
                *sum = add_product(first, right[0], after);
            }
        }
    }
    for (row, sums) in sums[..tile.height].iter_mut().enumerate() {
        sums.iter_mut().for_each(|sum| *sum *= tile.factor);
        // SAFETY: a row of the output.
        unsafe {
            tile.out
                .add(row * tile.out_stride)
                .copy_from_nonoverlapping(sums.as_ptr(), COLUMNS)
        };
    }
}

/// Both elements of a pair.
#[inline(always)]
pub(in super::super) fn widen(pair: u32) -> [f32; 2] {
    [pair << 16, pair & 0xffff_0000].map(f32::from_bits)
}

/// sum + a · b, rounded once, or zero if that is below the smallest normal number. The processor looks at that after it has
/// rounded to 24 bits of any exponent; what is rounded as an f32 has lost bits by then, and may have become the smallest normal
/// number. It is seen at another scale, at which nothing overflows that comes so close.
#[inline(always)]
pub(in super::super) fn add_product(a: f32, b: f32, sum: f32) -> f32 {
    const SCALE: f32 = 18_446_744_073_709_551_616.0;
    let result = a.mul_add(b, sum);
    let scaled = (a * SCALE).mul_add(b, sum * SCALE);
    let is_rounded_up = result.abs() == f32::MIN_POSITIVE && scaled.abs() < f32::MIN_POSITIVE * SCALE;
    if is_rounded_up {
        return zero_like(result);
    }
    flush(result)
}

/// Zero of the same sign for what is below the smallest normal number.
#[inline(always)]
pub(in super::super) fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { zero_like(x) } else { x }
}

#[inline(always)]
fn zero_like(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0x8000_0000)
}
