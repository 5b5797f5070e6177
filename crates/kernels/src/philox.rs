//! Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror & Shaw 2011).
//!
//! A block of four numbers is a pure function of counter and key, so that any part of a stream can be computed without
//! the parts before it, by any number of threads.

use crate::isa::multiversion;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// Blocks that [`wide_blocks`] makes at a time.
const WIDE: usize = 16;

/// Numbers that [`wide_blocks`] makes at a time.
pub(crate) const WIDE_NUMBERS: usize = 4 * WIDE;

/// The four numbers at `counter`.
#[inline(always)]
pub(crate) fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (p1 >> 32) as u32 ^ c1 ^ k0,
            p1 as u32,
            (p0 >> 32) as u32 ^ c3 ^ k1,
            p0 as u32,
        );
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

multiversion! {
    /// Fills `out`, whose length is a multiple of [`WIDE_NUMBERS`], with the blocks whose first counter words rise from
    /// that of `counter`. The caller keeps that word from overflowing.
    pub(crate) fn wide_blocks(counter: [u32; 4], key: [u32; 2], out: &mut [u32]) {
        let mut first = counter[0];
        for numbers in out.as_chunks_mut::<WIDE_NUMBERS>().0 {
            // Word by word first, so that the rounds run in all lanes of a register; then in the stream's order.
            let [mut a, mut b, mut c, mut d] = [[0u32; WIDE]; 4];
            for i in 0..WIDE {
                let words = block([first.wrapping_add(i as u32), counter[1], counter[2], counter[3]], key);
                [a[i], b[i], c[i], d[i]] = words;
            }
            for (i, words) in numbers.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *words = [a[i], b[i], c[i], d[i]];
            }
            first = first.wrapping_add(WIDE as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, with_isa};

    /// The known answers of the Random123 library for philox4x32 with ten rounds.
    #[test]
    fn known_answers() {
        assert_eq!(
            block([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            block([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            block(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn wide_blocks_are_the_same_on_every_instruction_set() {
        let expected: Vec<u32> = (5..5 + 2 * WIDE as u32)
            .flat_map(|i| block([i, 1, 2, 3], [4, 5]))
            .collect();
        for isa in Isa::available() {
            let mut out = vec![0; 2 * WIDE_NUMBERS];
            with_isa(isa, || wide_blocks([5, 1, 2, 3], [4, 5], &mut out));
            assert_eq!(out, expected, "{isa:?}");
        }
    }
}
