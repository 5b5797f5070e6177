//! What the tiles for AVX-512 share.

use super::{COLUMNS, Entry};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Lanes of a register.
pub(super) const LANES: usize = 16;

/// Registers side by side in a row of a tile.
pub(super) const REGISTERS: usize = COLUMNS / LANES;

/// Places from one that is multiplied to one that is fetched: about the time that the second cache takes.
const AHEAD: usize = 8;

/// Asks for what is some places ahead of `right` in its panel, which is more than the first cache holds.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn prefetch(right: &[Entry; COLUMNS]) {
    for register in 0..REGISTERS {
        let ahead = right.as_ptr().wrapping_add(AHEAD * COLUMNS + register * LANES);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast::<i8>());
    }
}
