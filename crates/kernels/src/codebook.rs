//! Codebooks: the few 8-bit integers that the weights of a tensor may be, where those are not evenly spaced.
//!
//! A weight goes through the 8-bit integers of its channel's scale, as in uniform quantization, and from there to the nearest
//! level. So a codebook makes files smaller and leaves the arithmetic of 8-bit integers as it is.

use crate::fake_quantize::quantize_per_channel;
use candle_core::{Result, Tensor, bail};

/// Bits of the integers that levels are.
const BITS: u32 = 8;

/// The largest level, and the negative of the smallest.
const LARGEST: i8 = i8::MAX;

/// Integers from −127 to 127.
pub(crate) const INTEGERS: usize = 2 * LARGEST as usize + 1;

/// The level nearest to each of these integers, as floats, at a place that a byte holds.
pub(crate) type Levels = [f32; INTEGERS + 1];

/// The levels of a tensor's weights.
///
/// Invariant: there are 4, 8, 16, 32 or 64 of them, in ascending order, none below −127, and 0 is one of them, so that what is
/// pruned stays 0. `nearest` has the index of the level nearest to each integer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codebook {
    levels: Vec<i8>,
    nearest: Vec<u8>,
}

impl Codebook {
    /// Fewest and most bits of an index.
    pub const BITS: std::ops::RangeInclusive<u32> = 2..=6;

    /// Of levels that keep the invariant.
    ///
    /// # Errors
    /// If they do not.
    pub fn new(levels: Vec<i8>) -> Result<Self> {
        if !levels.len().is_power_of_two() || !Self::BITS.contains(&levels.len().ilog2()) {
            bail!("{} levels of a codebook, which has 4, 8, 16, 32 or 64", levels.len())
        }
        if !levels.is_sorted() || levels[0] < -LARGEST || !levels.contains(&0) {
            bail!("the levels {levels:?} of a codebook, which should ascend from -127 or above and have 0 among them")
        }
        let nearest = (0..INTEGERS).map(|place| nearest(&levels, integer_at(place))).collect();
        Ok(Self { levels, nearest })
    }

    /// The 2^`bits` levels, one of them 0, from which the weights `w: [out, ...]`, whose channels have the scales `scales: [out]`,
    /// are least far away, as the sum of squares tells: one-dimensional k-means with one centre held at 0, solved exactly by
    /// dynamic programming (Wang & Song 2011, *Ckmeans.1d.dp*) over the integers that the weights round to. The other centres
    /// are rounded to integers.
    ///
    /// # Errors
    /// If `bits` is not one of [`Codebook::BITS`], or the shapes do not fit.
    pub fn fit(w: &Tensor, scales: &Tensor, bits: u32) -> Result<Self> {
        if !Self::BITS.contains(&bits) {
            bail!("a codebook of {bits} bits")
        }
        let integers = quantize_per_channel(w, scales, BITS)?;
        let scales = scales.to_vec1::<f32>()?;
        let width = integers.len().checked_div(scales.len()).unwrap_or(0).max(1);
        let mut weights = [0.0; INTEGERS];
        for (row, scale) in integers.chunks_exact(width).zip(scales) {
            let square = f64::from(scale) * f64::from(scale);
            // What is 0 has its level whatever the others are; and a channel of zeros has a scale that means nothing.
            let others = row.iter().filter(|&&q| q != 0);
            others.for_each(|&q| weights[place_of(q)] += square);
        }
        let mut levels = centres(&weights, 1 << bits);
        let last = levels[levels.len() - 1];
        levels.resize(1 << bits, last);
        Self::new(levels)
    }

    /// Bits of an index.
    pub fn bits(&self) -> u32 {
        self.levels.len().ilog2()
    }

    /// The levels in ascending order, the last ones equal where fewer were needed.
    pub fn levels(&self) -> &[i8] {
        &self.levels
    }

    /// The index of the level nearest to `q`; of two that are equally near the one nearer to 0.
    pub fn index_of(&self, q: i8) -> u8 {
        self.nearest[place_of(q.max(-LARGEST))]
    }

    /// The level nearest to each integer.
    pub(crate) fn nearest(&self) -> Levels {
        let mut nearest = [0.0; INTEGERS + 1];
        for (level, &index) in nearest.iter_mut().zip(&self.nearest) {
            *level = f32::from(self.levels[usize::from(index)]);
        }
        nearest
    }
}

fn nearest(levels: &[i8], q: i8) -> u8 {
    let distance = |level: i8| (i16::from(level) - i16::from(q)).unsigned_abs();
    let indices = (0u8..).zip(levels);
    let (index, _) = indices
        .min_by_key(|&(_, &level)| (distance(level), level.unsigned_abs()))
        .expect("a codebook has levels");
    index
}

fn place_of(q: i8) -> usize {
    (i16::from(q) + i16::from(LARGEST)).unsigned_abs().into()
}

fn integer_at(place: usize) -> i8 {
    (place as i16 - i16::from(LARGEST)) as i8
}

/// Sums over the integers before each one: of weights, of weighted integers and of weighted squares.
struct Sums([[f64; 3]; INTEGERS + 1]);

impl Sums {
    fn new(weights: &[f64; INTEGERS]) -> Self {
        let mut sums = [[0.0; 3]; INTEGERS + 1];
        for (place, weight) in weights.iter().enumerate() {
            let x = f64::from(integer_at(place));
            let [w, first, second] = sums[place];
            sums[place + 1] = [w + weight, first + weight * x, second + weight * x * x];
        }
        Self(sums)
    }

    /// Of the integers at `from..to`.
    fn of(&self, from: usize, to: usize) -> Run {
        let [weight, first, second] = std::array::from_fn(|i| self.0[to][i] - self.0[from][i]);
        if weight <= 0.0 {
            return Run::default();
        }
        let mean = first / weight;
        Run {
            weight,
            mean,
            around_mean: (second - first * mean).max(0.0),
            around_zero: second.max(0.0),
        }
    }
}

/// Integers that follow each other.
#[derive(Default)]
struct Run {
    weight: f64,
    mean: f64,
    /// The weighted squares of their distances from the mean, and from 0.
    around_mean: f64,
    around_zero: f64,
}

/// The best way to cut the integers before some place into runs, but for the last cut's own past.
#[derive(Clone, Copy)]
struct Cut {
    distance: f64,
    /// Where the last run begins.
    from: usize,
    /// Whether that is the one around 0.
    is_zero: bool,
}

/// 0 and the rounded means of the other runs, ascending, where the integers are cut into at most `count` runs so that their
/// distances, of one run from 0 and of the others from their means, are least in sum.
fn centres(weights: &[f64; INTEGERS], count: usize) -> Vec<i8> {
    const NONE: Cut = Cut {
        distance: f64::INFINITY,
        from: 0,
        is_zero: false,
    };
    let sums = Sums::new(weights);
    // Without and with a run around 0: no run holds nothing.
    let mut begin = [NONE; INTEGERS + 1];
    begin[0].distance = 0.0;
    let mut rows = vec![[begin, [NONE; INTEGERS + 1]]];
    for _ in 0..count {
        let [without, with] = &rows[rows.len() - 1];
        let mut next = [[NONE; INTEGERS + 1]; 2];
        let [next_without, next_with] = &mut next;
        for (end, (without_zero, with_zero)) in next_without.iter_mut().zip(next_with).enumerate() {
            for from in 0..=end {
                let run = sums.of(from, end);
                let consider = |best: &mut Cut, distance: f64, is_zero| {
                    if distance < best.distance {
                        *best = Cut {
                            distance,
                            from,
                            is_zero,
                        };
                    }
                };
                consider(without_zero, without[from].distance + run.around_mean, false);
                consider(with_zero, with[from].distance + run.around_mean, false);
                consider(with_zero, without[from].distance + run.around_zero, true);
            }
        }
        rows.push(next);
    }
    let (mut end, mut row) = (INTEGERS, 1);
    let mut centres = vec![0];
    for cuts in rows[1..].iter().rev() {
        let cut = cuts[row][end];
        let run = sums.of(cut.from, end);
        if cut.is_zero {
            row = 0;
        } else if run.weight > 0.0 {
            let (first, last) = (integer_at(cut.from), integer_at(end - 1));
            centres.push((run.mean.round_ties_even() as i8).clamp(first, last));
        }
        end = cut.from;
    }
    centres.sort_unstable();
    centres.dedup();
    centres
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use candle_core::Device;

    fn weights_at(places: &[(i8, f64)]) -> [f64; INTEGERS] {
        let mut weights = [0.0; INTEGERS];
        places.iter().for_each(|&(q, weight)| weights[place_of(q)] = weight);
        weights
    }

    #[test]
    fn centres_of_clear_runs() {
        let weights = weights_at(&[
            (-100, 1.0),
            (-98, 1.0),
            (1, 5.0),
            (2, 5.0),
            (60, 3.0),
            (64, 1.0),
            (127, 2.0),
        ]);
        assert_eq!(centres(&weights, 4), [-99, 0, 61, 127]);
        assert_eq!(centres(&weights, 64), [-100, -98, 0, 1, 2, 60, 64, 127]);
        assert_eq!(centres(&weights_at(&[]), 4), [0]);
        assert_eq!(centres(&weights_at(&[(7, 1.0)]), 4), [0, 7]);
        assert_eq!(centres(&weights_at(&[(-127, 2.0), (127, 1.0)]), 4), [-127, 0, 127]);
    }

    /// The sum of squares that the best cuts into runs leave, one of which is held at 0 if `zero` is to come yet, by trying all.
    fn best(values: &[(i8, f64)], count: usize, zero: bool) -> f64 {
        let around = |run: &[(i8, f64)], centre: f64| -> f64 {
            run.iter().map(|&(q, w)| w * (f64::from(q) - centre).powi(2)).sum()
        };
        let mean = |run: &[(i8, f64)]| {
            let weight: f64 = run.iter().map(|(_, w)| w).sum();
            run.iter().map(|&(q, w)| w * f64::from(q)).sum::<f64>() / weight.max(f64::MIN_POSITIVE)
        };
        if count == 0 {
            return if values.is_empty() && !zero { 0.0 } else { f64::INFINITY };
        }
        (0..=values.len())
            .map(|cut| {
                let (run, rest) = values.split_at(cut);
                let at_mean = around(run, mean(run)) + best(rest, count - 1, zero);
                if zero {
                    at_mean.min(around(run, 0.0) + best(rest, count - 1, false))
                } else {
                    at_mean
                }
            })
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn no_levels_with_zero_among_them_are_nearer() {
        for seed in 0..25u32 {
            let mut at: Vec<i8> = (0..7u32)
                .map(|i| ((i * 7919 + seed * 104_729) % 255) as i16 - 127)
                .map(|q| q as i8)
                .filter(|&q| q != 0)
                .collect();
            at.sort_unstable();
            at.dedup();
            let values: Vec<(i8, f64)> = (0u32..)
                .zip(at)
                .map(|(i, q)| (q, f64::from((i * 31 + seed) % 7 + 1)))
                .collect();
            let total: f64 = values.iter().map(|(_, w)| w).sum();
            for count in 1..=4 {
                let levels = centres(&weights_at(&values), count);
                assert!(levels.len() <= count && levels.contains(&0));
                let cost = |&(q, w): &(i8, f64)| {
                    let distances = levels.iter().map(|&level| (f64::from(level) - f64::from(q)).abs());
                    w * distances.fold(f64::INFINITY, f64::min).powi(2)
                };
                let (found, expected) = (values.iter().map(cost).sum::<f64>(), best(&values, count, true));
                // To round a mean moves it by a half at most.
                assert!(
                    found <= expected + 0.25 * total + 1e-6,
                    "{found} {expected}: {levels:?} of {values:?}"
                );
            }
        }
    }

    /// Weights of one a channel are as large as its scale allows, whatever their sign.
    #[test]
    fn few_weights_keep_their_values() -> Result<()> {
        for values in [&[1f32, -2.0, 3.0][..], &[-1.0, -1.0], &[0.5], &[0.0, 0.0, 7.0]] {
            let w = Tensor::from_slice(values, (values.len(), 1), &Device::Cpu)?;
            let scales = crate::symmetric_scales(&w, BITS)?;
            for bits in Codebook::BITS {
                let codebook = Codebook::fit(&w, &scales, bits)?;
                assert_eq!((codebook.bits(), codebook.levels().len()), (bits, 1 << bits));
                assert_eq!(codebook.levels()[usize::from(codebook.index_of(0))], 0);
                let through = crate::fake_quantize_by_codebook(&w, &scales, &codebook)?;
                let difference = (through - &w)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(difference < 1e-6, "{values:?}: {codebook:?}");
            }
        }
        Ok(())
    }

    /// A channel of zeros does not count, however small the others' weights are.
    #[test]
    fn channels_of_zeros_move_nothing() -> Result<()> {
        let small = (sample(&[9, 40], 1) * 1e-9)?;
        let with_zeros = Tensor::cat(
            &[
                &small,
                &Tensor::zeros((500, 40), candle_core::DType::F32, &Device::Cpu)?,
            ],
            0,
        )?;
        let [alone, among] = [small, with_zeros].map(|w| {
            let scales = crate::symmetric_scales(&w, BITS)?;
            Codebook::fit(&w, &scales, 3)
        });
        assert_eq!(alone?, among?);
        Ok(())
    }

    #[test]
    fn more_levels_are_nearer() -> Result<()> {
        let w = sample(&[17, 65], 1);
        let scales = crate::symmetric_scales(&w, BITS)?;
        let integers = quantize_per_channel(&w, &scales, BITS)?;
        let mut last = f64::INFINITY;
        for bits in Codebook::BITS {
            let codebook = Codebook::fit(&w, &scales, bits)?;
            let distance = |&q: &i8| {
                let level = codebook.levels()[usize::from(codebook.index_of(q))];
                f64::from(i16::from(level) - i16::from(q)).powi(2)
            };
            let sum: f64 = integers.iter().map(distance).sum();
            assert!(sum < 0.5 * last, "{bits} bits: {sum} after {last}");
            last = sum;
        }
        Ok(())
    }

    #[test]
    fn of_two_levels_the_one_nearer_to_zero() -> Result<()> {
        let codebook = Codebook::new(vec![-4, 0, 2, 6])?;
        let level = |q| codebook.levels()[usize::from(codebook.index_of(q))];
        assert_eq!(
            [-128, -3, -2, -1, 1, 3, 4, 5, 127].map(level),
            [-4, -4, 0, 0, 0, 2, 2, 6, 6]
        );
        Ok(())
    }

    #[test]
    fn levels_that_are_none_are_errors() {
        for levels in [
            vec![],
            vec![0, 1],
            vec![0, 1, 2],
            vec![1, 2, 3, 4],
            vec![0, 2, 1, 3],
            vec![-128, 0, 1, 2],
            vec![0; 128],
        ] {
            assert!(Codebook::new(levels.clone()).is_err(), "{levels:?}");
        }
        let w = sample(&[3, 4], 1);
        let scales = Tensor::ones(3, candle_core::DType::F32, &Device::Cpu).expect("ones");
        assert!(Codebook::fit(&w, &scales, 1).is_err() && Codebook::fit(&w, &scales, 7).is_err());
        assert!(Codebook::fit(&w, &scales.narrow(0, 0, 2).expect("two"), 4).is_err());
    }
}
