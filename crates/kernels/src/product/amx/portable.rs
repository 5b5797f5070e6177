//! The tile in plain Rust: what the instruction does, in separate steps.

use super::super::bf16::{add_product, flush, widen};
use super::super::{Arithmetic, COLUMNS, Tile};
use super::{Amx, ROWS, STEP};
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;

/// As [`Arithmetic::add_products`].
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
    const { assert!(Amx::UNIT == STEP) }
    let [row_stride, place_stride] = tile.left_strides;
    for row in 0..tile.height {
        let mut sums = [0.0; COLUMNS];
        if let Some((start, stride)) = tile.start {
            // SAFETY: a row of the start.
            unsafe {
                start
                    .add(row * stride)
                    .copy_to_nonoverlapping(sums.as_mut_ptr(), COLUMNS)
            };
        }
        for (step, right) in tile.right.as_chunks::<STEP>().0.iter().enumerate() {
            let block = row / ROWS * ROWS * row_stride + step * STEP * place_stride;
            let [mut even, mut odd] = [[0.0; COLUMNS]; 2];
            for (place, right) in right.iter().enumerate() {
                // SAFETY: a place of a row of a block of the left operand.
                let [first, second] = widen(unsafe { *tile.left.add(block + row % ROWS * STEP + place) });
                for ((even, odd), right) in even.iter_mut().zip(&mut odd).zip(right) {
                    let right = widen(*right);
                    *even = add_product(first, right[0], *even);
                    *odd = add_product(second, right[1], *odd);
                }
            }
            for ((sum, even), odd) in sums.iter_mut().zip(even).zip(odd) {
                *sum = flush(flush(*sum) + flush(even + odd));
            }
        }
        sums.iter_mut().for_each(|sum| *sum *= tile.factor);
        // SAFETY: a row of the output.
        unsafe {
            tile.out
                .add(row * tile.out_stride)
                .copy_from_nonoverlapping(sums.as_ptr(), COLUMNS)
        };
    }
}
