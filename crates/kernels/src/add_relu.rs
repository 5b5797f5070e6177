//! The end of a residual block: a sum and its rectifier in one op.

use crate::isa::multiversion;
use crate::storage::{TASK, cpu_slice, elementwise_backward, is_fused, transform};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// max(a + b, 0) of two tensors of one shape; the gradient at 0 is 0.
///
/// # Errors
/// If the shapes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("the rectified sum of {:?} and {:?}", a.dims(), b.dims())
    }
    if is_fused(a) && is_fused(b) {
        a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
    } else {
        (a + b)?.relu()
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let b = cpu_slice(b, b_layout)?;
        let values = transform(cpu_slice(a, a_layout)?, TASK, |offset, piece| {
            let end = offset + piece.len();
            add_and_rectify(piece, &b[offset..end]);
        });
        Ok((CpuStorage::F32(values), a_layout.shape().clone()))
    }

    /// The result is positive where the sum was.
    fn bwd(&self, _: &Tensor, _: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = elementwise_backward(y, gradient, where_positive)?;
        Ok((Some(gradient.clone()), Some(gradient)))
    }
}

multiversion! {
    fn add_and_rectify(a: &mut [f32], b: &[f32]) {
        for (a, &b) in a.iter_mut().zip(b) {
            let sum = *a + b;
            *a = if sum < 0.0 { 0.0 } else { sum };
        }
    }

    fn where_positive(gradient: &mut [f32], y: &[f32]) {
        for (g, &y) in gradient.iter_mut().zip(y) {
            *g = if y > 0.0 { *g } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};

    #[test]
    fn gradients() -> Result<()> {
        for n in SIZES {
            check(
                &[&sample(&[3, n], 1), &sample(&[3, n], 2)],
                |t| add_relu(t[0], t[1]),
                |t| (t[0] + t[1])?.relu(),
                Differences::Skip,
                1e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let (a, b) = (sample(&[31, 401], 2), sample(&[31, 401], 3));
        same_bits_everywhere(&[&a, &b], |t| add_relu(t[0], t[1]))
    }

    #[test]
    fn empty_and_unequal() -> Result<()> {
        assert_eq!(add_relu(&sample(&[0, 5], 1), &sample(&[0, 5], 2))?.dims(), [0, 5]);
        assert!(add_relu(&sample(&[2, 5], 1), &sample(&[5], 2)).is_err());
        Ok(())
    }
}
