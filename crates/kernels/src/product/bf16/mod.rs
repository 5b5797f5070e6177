//! Products of f32 operands that are rounded to bf16, summed in f32.
//!
//! An element of a product is what `vdpbf16ps` gives (Intel SDM, volume 2): the operands' elements, rounded to the nearest
//! bf16, ties to even, are taken two by two along the inner dimension, the last one with a zero if it is alone; of each pair
//! first the product of the second elements is added to the sum and then that of the first, each by a fused multiply-add.
//! Numbers below the smallest normal one count as zero, in operands and sums. What is added to is where the sums begin.
//! Where a result is not a number, that much is the same everywhere, its payload is not.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod native;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use native::Native;
pub(super) use portable::{add_product, flush, widen};

use super::{Arithmetic, Entries, Entry, Tile};
use crate::isa::Isa;

/// An entry is a pair, the first element in the low half.
pub(super) struct Bf16;

impl Entries for Bf16 {
    const STEP: usize = 2;

    #[inline(always)]
    fn entry(first: f32, second: f32) -> Entry {
        round(first) | round(second) << 16
    }
}

impl Arithmetic for Bf16 {
    /// With [`Self::visit`], a task's rows stay in the second-level cache.
    const TASK: [usize; 2] = [12, 16];

    type Session = ();

    fn begin() {}

    /// So many pairs that sums are rarely fetched and put back, while a task's rows stay in the second-level cache; cuts
    /// leave no trace in the sums.
    fn visit(_: usize) -> usize {
        512
    }

    unsafe fn add_products((): &(), tile: Tile<'_>) {
        match Isa::current() {
            // SAFETY: `Isa::current` names only sets that this processor has; the rest by this function's contract.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 => unsafe {
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
            // SAFETY: by this function's contract.
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512Bf16 => unsafe { portable::tile(tile) },
            // SAFETY: by this function's contract.
            Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 | Isa::Portable => unsafe { portable::tile(tile) },
        }
    }
}

/// The bits of the nearest bf16, ties to even. What is below the smallest normal number is zero, as it is for the
/// processor's own conversion.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let zero = bits >> 16 & 0x8000;
    let quiet = bits >> 16 | 0x40;
    let normal = if magnitude < 0x0080_0000 { zero } else { nearest };
    (if magnitude > 0x7f80_0000 { quiet } else { normal }) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn rounding_is_to_nearest_even() {
        let widen = |bits: u32| f32::from_bits(bits << 16);
        for (x, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.001 / 256.0, 1.0 + 2.0 / 256.0),
            (-3.0, -3.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::MIN_POSITIVE * 0.999, 0.0),
        ] {
            assert_eq!(widen(round(x)), expected, "{x}");
        }
        assert_eq!(round(-1e-40), 0x8000);
        assert!(widen(round(f32::NAN)).is_nan());
        assert!(
            widen(round(f32::from_bits(0xff80_0001))).is_nan(),
            "a payload in the low bits alone"
        );
    }
}
