//! The bf16 tile in plain Rust: what the instruction does, in separate steps.

use super::super::{COLUMNS, ROWS, Tile};
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
                let after = flush(second.mul_add(right[1], flush(*sum)));
                *sum = flush(first.mul_add(right[0], after));
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

#[inline(always)]
fn widen(pair: u32) -> [f32; 2] {
    [pair << 16, pair & 0xffff_0000].map(f32::from_bits)
}

/// Zero of the same sign for what is below the smallest normal number.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        f32::from_bits(x.to_bits() & 0x8000_0000)
    } else {
        x
    }
}
