//! Inverted dropout, its mask drawn again in the backward pass instead of kept.

use crate::isa::multiversion;
use crate::philox::WIDE_NUMBERS;
use crate::random::{RandomKey, STREAM_NUMBERS, fill_at};
use crate::storage::{TASK, cpu_slice, is_fused, on_cuda, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// What to drop, and by which random stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability that an element becomes zero; the others are divided by 1 − rate. At least 0 and below 1.
    pub rate: f32,
    /// Stream of the mask: element `i`, in row-major order, is judged by number `i`.
    pub key: RandomKey,
}

impl Dropout {
    /// Checks the rate, and that the stream has a number for each element of `dims`.
    pub(crate) fn check(self, dims: &[usize]) -> Result<()> {
        if !(0.0..1.0).contains(&self.rate) {
            bail!("a dropout rate of {}", self.rate)
        }
        let elements = dims
            .iter()
            .try_fold(1u64, |elements, &dim| elements.checked_mul(dim as u64));
        if elements.is_none_or(|elements| elements > STREAM_NUMBERS) {
            bail!(
                "dropout of {dims:?} is of more than the {STREAM_NUMBERS} elements that a random stream has numbers for"
            )
        }
        Ok(())
    }

    /// The first number that keeps its element.
    pub(crate) fn threshold(self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }

    /// What an element that is kept is multiplied by.
    pub(crate) fn scale(self) -> f32 {
        1.0 / (1.0 - self.rate)
    }

    /// Multiplies `values`, which begin at element `offset`, by 0 or by 1 / (1 − rate).
    pub(crate) fn apply(self, offset: usize, values: &mut [f32]) {
        let mut numbers = [0; 4 * WIDE_NUMBERS];
        let scale = self.scale();
        let mut offset = offset as u64;
        for piece in values.chunks_mut(numbers.len()) {
            let numbers = &mut numbers[..piece.len()];
            fill_at(self.key, offset, numbers);
            keep_or_drop(piece, numbers, self.threshold(), scale);
            offset += piece.len() as u64;
        }
    }

    /// The factors of all elements, as a tensor of `like`'s shape, type and device.
    pub(crate) fn factors(self, like: &Tensor) -> Result<Tensor> {
        let mut factors = vec![1.0; like.elem_count()];
        self.apply(0, &mut factors);
        tensor(factors, like.shape())?
            .to_dtype(like.dtype())?
            .to_device(like.device())
    }
}

/// Sets each element to zero with probability `rate` and scales the others, so that the mean stays (Srivastava et al.
/// 2014). Any shape.
///
/// # Errors
/// If the rate is not in [0, 1), or `x` has more than 2³⁴ elements.
pub fn dropout(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    dropout.check(x.dims())?;
    on_cuda!(x, dropout(x, dropout));
    if is_fused(x) {
        x.contiguous()?.apply_op1(Masking(dropout))
    } else {
        reference(x, dropout)
    }
}

fn reference(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    x * dropout.factors(x)?
}

struct Masking(Dropout);

impl CustomOp1 for Masking {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = transform(cpu_slice(storage, layout)?, TASK, |offset, piece| {
            self.0.apply(offset, piece)
        });
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (g, layout) = gradient.storage_and_layout();
        let values = transform(slice(&g, layout)?, TASK, |offset, piece| self.0.apply(offset, piece));
        tensor(values, gradient.shape()).map(Some)
    }
}

multiversion! {
    fn keep_or_drop(values: &mut [f32], numbers: &[u32], threshold: u32, scale: f32) {
        for (v, &number) in values.iter_mut().zip(numbers) {
            *v *= if number >= threshold { scale } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};

    fn with_rate(rate: f32) -> Dropout {
        Dropout {
            rate,
            key: RandomKey {
                seed: 1,
                purpose: 2,
                step: 3,
            },
        }
    }

    #[test]
    fn gradients() -> Result<()> {
        for n in SIZES {
            let x = sample(&[5, n], 1);
            let d = with_rate(0.3);
            check(
                &[&x],
                |t| dropout(t[0], d),
                |t| reference(t[0], d),
                Differences::Central,
                1e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn share_of_zeros_and_mean() -> Result<()> {
        let ones = Tensor::ones(100_000, candle_core::DType::F32, &candle_core::Device::Cpu)?;
        let y: Vec<f32> = dropout(&ones, with_rate(0.1))?.to_vec1()?;
        let zeros = y.iter().filter(|v| **v == 0.0).count();
        // Five standard deviations of a binomial.
        assert!(zeros.abs_diff(10_000) < 475, "{zeros}");
        assert!(y.iter().all(|v| *v == 0.0 || *v == 1.0 / 0.9));
        Ok(())
    }

    #[test]
    fn nothing_is_dropped_at_rate_zero_and_bad_rates_are_errors() -> Result<()> {
        let x = sample(&[7], 1);
        assert_eq!(dropout(&x, with_rate(0.0))?.to_vec1::<f32>()?, x.to_vec1::<f32>()?);
        for rate in [1.0, -0.1, f32::NAN] {
            assert!(dropout(&x, with_rate(rate)).is_err(), "{rate}");
        }
        Ok(())
    }

    #[test]
    fn more_elements_than_random_numbers_are_an_error() {
        let d = with_rate(0.1);
        assert!(d.check(&[1 << 17, 1 << 17]).is_ok());
        assert!(d.check(&[1 << 17, (1 << 17) + 1]).is_err());
        assert!(d.check(&[usize::MAX, usize::MAX, 3]).is_err());
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        same_bits_everywhere(&[&sample(&[9001], 1)], |t| dropout(t[0], with_rate(0.5)))
    }
}
