//! Whole-tensor reductions in a fixed order.

use crate::isa::multiversion;
use crate::lanes;
use crate::row_gradient::RowGradient;
use crate::storage::{TASK, is_fused, on_cuda, slice};
use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

/// Elements whose sum is one part of a larger sum.
const PART: usize = 4 * TASK;

/// Sums side by side within a part, of which element `i` belongs to number `i % LANES`.
const LANES: usize = 16;

/// Σ x² in f64, in an order that depends on the number of elements alone.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    if !is_fused(x) {
        return x
            .detach()
            .to_dtype(DType::F32)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f32>()
            .map(f64::from);
    }
    let x = x.detach().contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let parts: Vec<f64> = slice(&storage, layout)?.par_chunks(PART).map(sum_of_squares).collect();
    Ok(parts.into_iter().sum())
}

/// Σ x² of a whole table, with the bits of [`squared_norm`]: the rows that are not there add zeros.
pub(crate) fn squared_norm_of_rows(table: &RowGradient) -> f64 {
    let [_, width] = table.dims();
    let (mut sum, mut part, mut lanes) = (0.0, 0, [0.0; LANES]);
    for (index, &number) in table.numbers().iter().enumerate() {
        let (mut offset, mut rest) = (number as usize * width, table.row(index));
        while !rest.is_empty() {
            if offset / PART > part {
                sum += lanes.iter().sum::<f64>();
                (part, lanes) = (offset / PART, [0.0; LANES]);
            }
            let (of_part, behind) = rest.split_at(rest.len().min((part + 1) * PART - offset));
            add_squares(&mut lanes, offset % LANES, of_part);
            (offset, rest) = (offset + of_part.len(), behind);
        }
    }
    sum + lanes.iter().sum::<f64>()
}

/// Whether there is neither NaN nor infinity. True of an empty tensor.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    if !is_fused(x) {
        if !x.dtype().is_float() || x.elem_count() == 0 {
            return Ok(true);
        }
        let zeros = (x.detach().to_dtype(DType::F32)? * 0.0)?;
        return Ok(zeros.sum_all()?.to_scalar::<f32>()? == 0.0);
    }
    let x = x.detach().contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    Ok(slice(&storage, layout)?.par_chunks(PART).all(is_finite))
}

/// The smallest and the largest element.
///
/// # Errors
/// If `x` is empty or has a NaN.
pub fn min_max(x: &Tensor) -> Result<(f32, f32)> {
    if x.elem_count() == 0 {
        bail!("the range of an empty tensor")
    }
    let (low, high) = extremes(x)?;
    if low.is_nan() || high.is_nan() {
        bail!("the range of a tensor with NaN")
    } else {
        Ok((low, high))
    }
}

/// As [`min_max`], of a tensor with elements; NaN if there is one.
fn extremes(x: &Tensor) -> Result<(f32, f32)> {
    on_cuda!(x, min_max(x));
    if is_fused(x) {
        let x = x.detach().contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let parts: Vec<(f32, f32)> = slice(&storage, layout)?.par_chunks(PART).map(range).collect();
        let widen = |a: (f32, f32), b: (f32, f32)| {
            // A NaN of either side stays.
            let low = if b.0 < a.0 || b.0.is_nan() { b.0 } else { a.0 };
            (low, if b.1 > a.1 || b.1.is_nan() { b.1 } else { a.1 })
        };
        let all = parts.into_iter().reduce(widen);
        return Ok(all.expect("a tensor with elements has parts"));
    }
    let x = x.detach().to_dtype(DType::F32)?;
    if x.ne(&x)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? > 0.0 {
        return Ok((f32::NAN, f32::NAN));
    }
    Ok((x.min_all()?.to_scalar::<f32>()?, x.max_all()?.to_scalar::<f32>()?))
}

fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    add_squares(&mut lanes, 0, x);
    lanes.iter().sum()
}

multiversion! {
    /// Σ x.
    pub(crate) fn sum(x: &[f32]) -> f32 {
        lanes::sum(x, |v| v)
    }

    /// Adds the squares of `x` to the lanes, the first of them to lane `first`.
    fn add_squares(lanes: &mut [f64; LANES], first: usize, x: &[f32]) {
        let square = |v: f32| f64::from(v) * f64::from(v);
        let head = if first == 0 { 0 } else { x.len().min(LANES - first) };
        let (head, body) = x.split_at(head);
        for (lane, &v) in lanes[first..].iter_mut().zip(head) {
            *lane += square(v);
        }
        let (blocks, tail) = body.as_chunks::<LANES>();
        for block in blocks {
            for i in 0..LANES {
                lanes[i] += square(block[i]);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(tail) {
            *lane += square(v);
        }
    }

    fn is_finite(x: &[f32]) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        let mut infinite = 0u32;
        for v in x {
            infinite |= u32::from(v.to_bits() & EXPONENT == EXPONENT);
        }
        infinite == 0
    }

    /// Smallest and largest; both NaN if any element is.
    fn range(x: &[f32]) -> (f32, f32) {
        let mut low = [f32::INFINITY; 32];
        let mut high = [f32::NEG_INFINITY; 32];
        let mut unordered = [0u32; 32];
        let (blocks, rest) = x.as_chunks::<32>();
        for block in blocks {
            for i in 0..32 {
                let v = block[i];
                low[i] = if v < low[i] { v } else { low[i] };
                high[i] = if v > high[i] { v } else { high[i] };
                unordered[i] |= u32::from(v.is_nan());
            }
        }
        let rest_is_unordered = rest.iter().any(|v| v.is_nan());
        if rest_is_unordered || unordered.iter().any(|&u| u != 0) {
            return (f32::NAN, f32::NAN);
        }
        let low = low.iter().chain(rest).fold(f32::INFINITY, |a, &v| if v < a { v } else { a });
        let high = high.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &v| if v > a { v } else { a });
        (low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, with_isa};
    use crate::testing::{devices, sample};
    use candle_core::Device;

    #[test]
    fn norms_of_rows_are_those_of_the_table() -> Result<()> {
        for (rows, width) in [(1, 1), (9, 7), (70, 300), (4, 20_001), (4000, 16), (3000, 33)] {
            let ids: Vec<u32> = (0..40).map(|i| (i * i * i * 7 % rows) as u32).collect();
            let values = sample(&[40, width], 1).flatten_all()?.to_vec1()?;
            let table = RowGradient::scatter(&ids, &values, rows, width);
            let expected = squared_norm(&table.to_dense()?)?;
            assert_eq!(
                squared_norm_of_rows(&table).to_bits(),
                expected.to_bits(),
                "{rows} of {width}"
            );
            let portable = with_isa(Isa::Portable, || squared_norm_of_rows(&table));
            assert_eq!(portable.to_bits(), expected.to_bits());
        }
        Ok(())
    }

    #[test]
    fn norm_has_the_same_bits_for_all_threads_and_widths() -> Result<()> {
        let x = sample(&[100_003], 1);
        let exact: f64 = x.to_vec1::<f32>()?.iter().map(|v| f64::from(*v).powi(2)).sum();
        let norm = squared_norm(&x)?;
        assert!((norm - exact).abs() < 1e-9 * exact);
        for device in devices() {
            let there = squared_norm(&x.to_device(device)?)?;
            assert!((there - exact).abs() < 1e-5 * exact, "{there} on {device:?}");
        }
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool can be started");
            assert_eq!(pool.install(|| squared_norm(&x))?.to_bits(), norm.to_bits());
        }
        for isa in Isa::available() {
            assert_eq!(with_isa(isa, || squared_norm(&x))?.to_bits(), norm.to_bits(), "{isa:?}");
        }
        assert_eq!(squared_norm(&sample(&[0], 1))?, 0.0);
        Ok(())
    }

    #[test]
    fn one_bad_element_anywhere_is_found() -> Result<()> {
        for n in [1, 17, 33, 70_000] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in [0, n / 2, n - 1] {
                    let mut values = vec![f32::MAX; n];
                    assert!(all_finite(&Tensor::new(values.as_slice(), &Device::Cpu)?)?);
                    values[place] = bad;
                    let x = Tensor::new(values, &Device::Cpu)?;
                    let elsewhere = devices().map(|device| x.to_device(device));
                    for x in elsewhere.chain([x.to_dtype(DType::F64)]) {
                        let x = x?;
                        let what = || format!("{bad} at {place} of {n} on {:?}", x.device());
                        assert!(!all_finite(&x)?, "{}", what());
                        assert_eq!(min_max(&x).is_err(), bad.is_nan(), "{}", what());
                    }
                }
            }
        }
        assert!(all_finite(&sample(&[0, 3], 1))?);
        Ok(())
    }

    #[test]
    fn range_of_strided_and_empty_tensors() -> Result<()> {
        let x = sample(&[40, 33], 1);
        let rows = x.to_vec2::<f32>()?;
        let column = rows.iter().map(|row| row[5]);
        let expected = column.fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
        for device in devices() {
            assert_eq!(min_max(&x.to_device(device)?.narrow(1, 5, 1)?)?, expected);
        }
        assert!(min_max(&sample(&[0], 1)).is_err());
        Ok(())
    }
}
