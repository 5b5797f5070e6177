//! Products in f32.
//!
//! The inner dimension is cut into equal blocks of at most 512 elements. Over a block, an element of a product is summed up
//! from its first to its last product, each fused with its addition; then the block's sum is added to what there was.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::{Arithmetic, Entries, Entry, Tile};
use crate::isa::Isa;

/// Longest block. So long that sums are rarely fetched and put back, so short that the error of a sum grows little.
const LONGEST_BLOCK: usize = 512;

/// An entry is an element's bits.
pub(super) struct F32;

impl Entries for F32 {
    const STEP: usize = 1;

    #[inline(always)]
    fn entry(first: f32, _: f32) -> Entry {
        first.to_bits()
    }
}

impl Arithmetic for F32 {
    /// With [`Self::visit`], a task's rows stay in the second-level cache.
    const TASK: [usize; 2] = [16, 4];

    type Session = ();

    fn begin() {}

    fn visit(depth: usize) -> usize {
        depth.div_ceil(depth.div_ceil(LONGEST_BLOCK).max(1))
    }

    unsafe fn add_products((): &(), tile: Tile<'_>) {
        match Isa::current() {
            // SAFETY: `Isa::current` names only sets that this processor has; the rest by this function's contract.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => unsafe {
                match tile.height {
                    1 => avx512::tile::<1>(tile),
                    2 => avx512::tile::<2>(tile),
                    3 => avx512::tile::<3>(tile),
                    4 => avx512::tile::<4>(tile),
                    5 => avx512::tile::<5>(tile),
                    6 => avx512::tile::<6>(tile),
                    7 => avx512::tile::<7>(tile),
                    _ => avx512::tile::<8>(tile),
                }
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::tile(tile) },
            // SAFETY: by this function's contract.
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => unsafe { portable::tile(tile) },
            // SAFETY: by this function's contract.
            Isa::Portable => unsafe { portable::tile(tile) },
        }
    }
}
