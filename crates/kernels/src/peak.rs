//! What the processor's multiply-adds come to at most, for benchmarks: in registers, with nothing to fetch.

use crate::isa::Isa;
use std::hint::black_box;

/// Chains of dependent multiply-adds that run side by side: more than the latency of one times those begun in a cycle, and
/// few enough for the registers of every instruction set.
const CHAINS: usize = 12;

/// Does `rounds` rounds of multiply-adds in f32 with the vectors of the instruction set in use, on this thread, and says how
/// many operations that was: two for each multiply-add of each lane.
pub fn multiply_adds(rounds: usize) -> usize {
    let lanes = match Isa::current() {
        // SAFETY: `Isa::current` names only sets that this processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => unsafe { x86::avx512(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(rounds) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx | Isa::Avx2 => portable(rounds),
        Isa::Portable => portable(rounds),
    };
    2 * CHAINS * lanes * rounds
}

/// Not fused: the lanes of one round, in whatever vectors the target has.
fn portable(rounds: usize) -> usize {
    const LANES: usize = 4;
    let (factor, addend) = black_box((0.5f32, 0.25f32));
    let mut sums = [[0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = *sum * factor + addend;
        }
    }
    black_box(sums);
    LANES
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, black_box};
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};

    /// The lanes of a vector.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) -> usize {
        let (factor, addend) = black_box((0.5f32, 0.25f32));
        let (factor, addend) = (_mm512_set1_ps(factor), _mm512_set1_ps(addend));
        let mut sums = [_mm512_set1_ps(0.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, addend);
            }
        }
        black_box(sums);
        16
    }

    /// The lanes of a vector.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> usize {
        let (factor, addend) = black_box((0.5f32, 0.25f32));
        let (factor, addend) = (_mm256_set1_ps(factor), _mm256_set1_ps(addend));
        let mut sums = [_mm256_set1_ps(0.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, addend);
            }
        }
        black_box(sums);
        8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::with_isa;

    #[test]
    fn wider_vectors_do_more_operations_in_a_round() {
        let operations: Vec<usize> = Isa::available().map(|isa| with_isa(isa, || multiply_adds(3))).collect();
        assert!(operations.is_sorted());
        assert_eq!(operations[0], 3 * 2 * 12 * 4);
    }
}
