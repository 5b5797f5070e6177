//! The kernels in plain Rust: of a tile what the instruction does, in separate steps.

use super::{Block, COLUMNS, Pair, ROWS, Sums};
use crate::isa::Isa;

/// Adds the products of all pairs to `sums`: `left` is a panel of rows, `right` one of columns.
pub(super) fn tile(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    #[cfg(target_arch = "x86_64")]
    if Isa::current() >= Isa::Avx2 && is_x86_feature_detected!("fma") {
        // SAFETY: this processor has AVX2 and FMA.
        return unsafe { fused(sums, left, right) };
    }
    plain(sums, left, right);
}

/// With a fused multiply-add for eight sums at a time; without it there is one call of the C library for each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fused(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    plain(sums, left, right);
}

#[inline(always)]
fn plain(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    for (left, right) in left.iter().zip(right) {
        for (sums, a) in sums.iter_mut().zip(left) {
            let [first, second] = a.map(widen);
            for (sum, b) in sums.iter_mut().zip(right) {
                let after = flush(second.mul_add(widen(b[1]), flush(*sum)));
                *sum = flush(first.mul_add(widen(b[0]), after));
            }
        }
    }
}

#[inline(always)]
fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
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

/// Rows and columns exchanged.
pub(super) fn turned(block: &Block) -> Block {
    std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]))
}
