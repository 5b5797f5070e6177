//! The one source of randomness: streams of a counter-based generator, keyed by seed, purpose and step.
//!
//! A number depends on its key and its place in the stream alone. Numbers are the generator's bits, or made of them by
//! operations that round the same way everywhere.

use crate::elementary::{ln, sin_cos_turns};
use crate::philox::{self, WIDE_NUMBERS};

/// Which stream: two keys that differ in anything give unrelated numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RandomKey {
    /// The user's seed.
    pub seed: u64,
    /// What the numbers are for.
    pub purpose: u32,
    /// The how-manieth time.
    pub step: u64,
}

impl RandomKey {
    fn words(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    fn counter(self, block: u32) -> [u32; 4] {
        [block, self.purpose, self.step as u32, (self.step >> 32) as u32]
    }
}

/// Numbers of a stream: four in each of 2³² blocks.
pub(crate) const STREAM_NUMBERS: u64 = 1 << 34;

/// Writes the numbers from place `offset` of the stream on.
///
/// # Panics
/// At the end of the stream, 2³⁴ numbers.
pub(crate) fn fill_at(key: RandomKey, offset: u64, out: &mut [u32]) {
    let end = offset + out.len() as u64;
    assert!(end <= STREAM_NUMBERS, "a random stream has 2^34 numbers");
    let skipped = (offset % 4) as usize;
    let mut block = offset / 4;
    let (head, rest) = out.split_at_mut(if skipped == 0 { 0 } else { (4 - skipped).min(out.len()) });
    if !head.is_empty() {
        let numbers = philox::block(key.counter(block as u32), key.words());
        head.copy_from_slice(&numbers[skipped..skipped + head.len()]);
        block += 1;
    }
    let (wide, tail) = rest.split_at_mut(rest.len() / WIDE_NUMBERS * WIDE_NUMBERS);
    philox::wide_blocks(key.counter(block as u32), key.words(), wide);
    block += (wide.len() / 4) as u64;
    for piece in tail.chunks_mut(4) {
        let numbers = philox::block(key.counter(block as u32), key.words());
        piece.copy_from_slice(&numbers[..piece.len()]);
        block += 1;
    }
}

/// 24 random bits as a number in [0, 1).
#[inline(always)]
fn to_uniform(number: u32) -> f32 {
    (number >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Writes uniform numbers in [0, 1) from place `offset` of the stream on, as [`RandomStream::uniform`] would draw them.
///
/// # Panics
/// At the end of the stream, 2³⁴ numbers.
pub fn fill_uniform_at(key: RandomKey, offset: u64, out: &mut [f32]) {
    let mut numbers = [0; 4 * WIDE_NUMBERS];
    let mut offset = offset;
    for piece in out.chunks_mut(numbers.len()) {
        let numbers = &mut numbers[..piece.len()];
        fill_at(key, offset, numbers);
        for (value, &number) in piece.iter_mut().zip(numbers.iter()) {
            *value = to_uniform(number);
        }
        offset += piece.len() as u64;
    }
}

/// The numbers of a key, one after the other.
#[derive(Debug, Clone)]
pub struct RandomStream {
    key: RandomKey,
    offset: u64,
    buffer: [u32; WIDE_NUMBERS],
    spare: Option<f32>,
}

impl RandomStream {
    /// The stream of `key` from its beginning.
    pub fn new(key: RandomKey) -> Self {
        Self {
            key,
            offset: 0,
            buffer: [0; WIDE_NUMBERS],
            spare: None,
        }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let place = (self.offset % WIDE_NUMBERS as u64) as usize;
        if place == 0 {
            fill_at(self.key, self.offset, &mut self.buffer);
        }
        self.offset += 1;
        self.buffer[place]
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        to_uniform(self.next_u32())
    }

    /// Standard normal (Box & Muller 1958); at most 5.8 in magnitude.
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * ln(1.0 - self.uniform())).sqrt();
        let (sine, cosine) = sin_cos_turns(self.uniform());
        self.spare = Some(radius * sine);
        radius * cosine
    }

    /// Uniform in 0..n without bias (Lemire 2019).
    ///
    /// # Panics
    /// If `n` is 0 or above 2³².
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0 && n as u64 <= 1 << 32, "no number below {n}");
        let n = n as u64;
        let unfair = (1u64 << 32) % n;
        loop {
            let product = u64::from(self.next_u32()) * n;
            if product & 0xffff_ffff >= unfair {
                return (product >> 32) as usize;
            }
        }
    }

    /// Puts `items` into a random order (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RandomKey = RandomKey {
        seed: 42,
        purpose: 7,
        step: 3,
    };

    #[test]
    fn a_stream_can_be_entered_anywhere() {
        let mut stream = RandomStream::new(KEY);
        let all: Vec<f32> = (0..700).map(|_| stream.uniform()).collect();
        for (offset, len) in [
            (0, 700),
            (1, 2),
            (3, 1),
            (5, 300),
            (63, 70),
            (64, 64),
            (699, 1),
            (10, 0),
        ] {
            let mut part = vec![9.0; len];
            fill_uniform_at(KEY, offset as u64, &mut part);
            assert_eq!(part, all[offset..offset + len], "{offset} {len}");
        }
    }

    #[test]
    fn keys_that_differ_give_other_numbers() {
        let first = |key| RandomStream::new(key).next_u32();
        let base = first(KEY);
        for key in [
            RandomKey {
                seed: KEY.seed + (1 << 32),
                ..KEY
            },
            RandomKey { purpose: 8, ..KEY },
            RandomKey {
                step: KEY.step + (1 << 32),
                ..KEY
            },
        ] {
            assert_ne!(first(key), base, "{key:?}");
        }
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        const N: usize = 200_000;
        let mut stream = RandomStream::new(KEY);
        let uniform: Vec<f64> = (0..N).map(|_| f64::from(stream.uniform())).collect();
        let normal: Vec<f64> = (0..N).map(|_| f64::from(stream.normal())).collect();
        let moment = |x: &[f64], power| x.iter().map(|v| v.powi(power)).sum::<f64>() / N as f64;
        assert!(uniform.iter().all(|v| (0.0..1.0).contains(v)));
        // Five standard errors of each moment.
        assert!((moment(&uniform, 1) - 0.5).abs() < 5.0 * (1.0 / 12.0 / N as f64).sqrt());
        assert!(moment(&normal, 1).abs() < 5.0 * (1.0 / N as f64).sqrt());
        assert!((moment(&normal, 2) - 1.0).abs() < 5.0 * (2.0 / N as f64).sqrt());
        assert!((moment(&normal, 4) - 3.0).abs() < 5.0 * (96.0 / N as f64).sqrt());
    }

    #[test]
    fn below_is_even_and_within() {
        let mut stream = RandomStream::new(KEY);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn shuffle_is_a_permutation_and_repeats() {
        let shuffled = |key| {
            let mut items: Vec<u32> = (0..100).collect();
            RandomStream::new(key).shuffle(&mut items);
            items
        };
        let items = shuffled(KEY);
        assert_eq!(items, shuffled(KEY));
        assert_ne!(items, shuffled(RandomKey { step: 4, ..KEY }));
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100) && items != (0..100).collect::<Vec<_>>());
    }
}
