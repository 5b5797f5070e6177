//! The fully connected layer as one op: product and bias together, and all three gradients.

use crate::gradients::hand_over;
use crate::layer_norm::{add_to, sum_rows};
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::product::{Output, Threads, multiply};
use crate::storage::{cpu_slice, is_fused, on_cuda, slice, tensor};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows of a gradient that are summed in one go for the bias.
const ROWS: usize = 64;

/// x · Wᵀ + b. `x: [..., in]`, `weight: [out, in]`, `bias: [out]`, to `[..., out]`.
///
/// The gradients of `x` and `weight` are computed only where they depend on a variable, and in the same `precision`.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, precision: ProductPrecision) -> Result<Tensor> {
    let inputs = x.dim(D::Minus1)?;
    let (outputs, expected) = weight.dims2()?;
    if inputs != expected || bias.is_some_and(|b| b.dims() != [outputs]) {
        let bias = bias.map(Tensor::dims);
        bail!(
            "linear of {:?} with weight {:?} and bias {bias:?}",
            x.dims(),
            weight.dims()
        )
    }
    on_cuda!(x, linear(x, weight, bias, precision));
    if !is_fused(x) {
        return reference(x, weight, bias);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = Linear {
        inputs,
        outputs,
        precision,
    };
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

fn reference(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let rows = x.elem_count().checked_div(inputs).unwrap_or(0);
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(outputs);
    let y = x.reshape((rows, inputs))?.matmul(&weight.t()?)?.reshape(shape)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

struct Linear {
    inputs: usize,
    outputs: usize,
    precision: ProductPrecision,
}

impl Linear {
    fn shape(&self, x: &Layout) -> (usize, Shape) {
        let leading = &x.dims()[..x.dims().len() - 1];
        let mut dims = leading.to_vec();
        dims.push(self.outputs);
        (leading.iter().product(), Shape::from(dims))
    }

    /// The gradients of `x` and of `weight`, each only if something asks for it.
    fn operand_gradients(&self, x: &Tensor, weight: &Tensor, g: &[f32]) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x_storage, x_layout) = x.storage_and_layout();
        let (w_storage, w_layout) = weight.storage_and_layout();
        let rows = self.shape(x_layout).0;
        let g = Matrix::new(g, rows, self.outputs);
        let input_gradient = if x.track_op() {
            let weight = Matrix::new(slice(&w_storage, w_layout)?, self.outputs, self.inputs);
            Some(tensor(
                multiply(g, weight, Output::PLAIN, self.precision, Threads::All),
                x.shape(),
            )?)
        } else {
            None
        };
        let weight_gradient = if weight.track_op() {
            let x = Matrix::new(slice(&x_storage, x_layout)?, rows, self.inputs);
            let gradient = multiply(g.transposed(), x, Output::PLAIN, self.precision, Threads::All);
            let gradient = tensor(gradient, (self.outputs, self.inputs))?;
            hand_over(weight, gradient)?
        } else {
            None
        };
        Ok((input_gradient, weight_gradient))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, shape) = self.shape(x_layout);
        let x = Matrix::new(cpu_slice(x, x_layout)?, rows, self.inputs);
        let weight = Matrix::new(cpu_slice(weight, weight_layout)?, self.outputs, self.inputs);
        let out = forward_rows(x, weight, None, self.precision);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (g, layout) = gradient.storage_and_layout();
        self.operand_gradients(x, weight, slice(&g, layout)?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, shape) = self.shape(x_layout);
        let x = Matrix::new(cpu_slice(x, x_layout)?, rows, self.inputs);
        let weight = Matrix::new(cpu_slice(weight, weight_layout)?, self.outputs, self.inputs);
        let out = forward_rows(x, weight, Some(cpu_slice(bias, bias_layout)?), self.precision);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (g, layout) = gradient.storage_and_layout();
        let g = slice(&g, layout)?;
        let (input, weight) = self.operand_gradients(x, weight, g)?;
        let bias = hand_over(bias, tensor(column_sums(g, self.outputs), self.outputs)?)?;
        Ok((input, weight, bias))
    }
}

/// The rows of `x` times the transpose of `weight`, plus `bias`.
pub(crate) fn forward_rows(
    x: Matrix<'_>,
    weight: Matrix<'_>,
    bias: Option<&[f32]>,
    precision: ProductPrecision,
) -> Vec<f32> {
    let output = bias.map_or(Output::PLAIN, Output::Biased);
    multiply(x, weight.transposed(), output, precision, Threads::All)
}

/// The sum over all rows of `width`, per block of rows and then over the blocks in their order.
pub(crate) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    if values.len() <= ROWS * width {
        return sum_rows(values, width.max(1))[..width].to_vec();
    }
    let mut partial = vec![0.0; values.len().div_ceil(ROWS * width) * width];
    partial
        .par_chunks_mut(width)
        .zip(values.par_chunks(ROWS * width))
        .for_each(|(sums, rows)| {
            for row in rows.chunks_exact(width) {
                add_to(sums, row);
            }
        });
    sum_rows(&partial, width)
}

#[cfg(test)]
mod tests {
    use super::ProductPrecision::{Bf16, Bf16Amx, F32};
    use super::*;
    use crate::testing::{Differences, SIZES, check, devices_with_own_ops, in_f64, same_bits_everywhere, sample};
    use candle_core::DType;

    #[test]
    fn gradients() -> Result<()> {
        for (inputs, outputs) in SIZES.into_iter().zip([3, 1, 17, 513, 2, 7, 65]) {
            let (x, weight, bias) = (
                sample(&[2, 3, inputs], 1),
                sample(&[outputs, inputs], 2),
                sample(&[outputs], 3),
            );
            check(
                &[&x, &weight, &bias],
                |t| linear(t[0], t[1], Some(t[2]), F32),
                |t| reference(t[0], t[1], Some(t[2])),
                Differences::Central,
                5e-6,
            )?;
            check(
                &[&x, &weight],
                |t| linear(t[0], t[1], None, F32),
                |t| reference(t[0], t[1], None),
                Differences::Central,
                5e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let (x, weight, bias) = (sample(&[301, 129], 1), sample(&[65, 129], 2), sample(&[65], 3));
        same_bits_everywhere(&[&x, &weight, &bias], |t| linear(t[0], t[1], Some(t[2]), F32))
    }

    /// A bf16 has 8 significant bits; the gradient that comes in is rounded too.
    #[test]
    fn gradients_in_bf16_are_near_and_the_same_everywhere() -> Result<()> {
        for (rows, inputs, outputs) in [(6, 17, 65), (301, 129, 63), (2, 1, 1)] {
            let (x, weight, bias) = (
                sample(&[rows, inputs], 1),
                sample(&[outputs, inputs], 2),
                sample(&[outputs], 3),
            );
            for precision in [Bf16, Bf16Amx] {
                check(
                    &[&x, &weight, &bias],
                    |t| linear(t[0], t[1], Some(t[2]), precision),
                    |t| reference(t[0], t[1], Some(t[2])),
                    Differences::Skip,
                    1e-2,
                )?;
                same_bits_everywhere(&[&x, &weight, &bias], |t| linear(t[0], t[1], Some(t[2]), precision))?;
                same_bits_everywhere(&[&x, &weight], |t| linear(t[0], t[1], None, precision))?;
            }
        }
        Ok(())
    }

    #[test]
    fn products_in_bf16_are_those_of_rounded_operands() -> Result<()> {
        let (x, weight) = (sample(&[9, 129], 1), sample(&[17, 129], 2));
        let rounded = |t: &Tensor| t.to_dtype(DType::BF16)?.to_dtype(DType::F64);
        let expected = in_f64(&rounded(&x)?.matmul(&rounded(&weight)?.t()?)?)?;
        for device in devices_with_own_ops() {
            let farthest = |precision| -> Result<f64> {
                let y = linear(&x.to_device(device)?, &weight.to_device(device)?, None, precision)?;
                let apart = in_f64(&y)?.into_iter().zip(&expected).map(|(a, b)| (a - b).abs());
                Ok(apart.fold(0.0, f64::max))
            };
            assert!(farthest(Bf16)? < 1e-4, "{device:?}");
            assert!(farthest(Bf16Amx)? < 1e-4, "{device:?}");
            assert!(farthest(F32)? > 1e-3, "{device:?}");
        }
        Ok(())
    }

    #[test]
    fn data_gets_no_gradient() -> Result<()> {
        let x = sample(&[4, 3], 1);
        let weight = candle_core::Var::from_tensor(&sample(&[2, 3], 2))?;
        let y = linear(&x, &weight, None, F32)?;
        let gradients = y.sum_all()?.backward()?;
        assert!(gradients.get(&x).is_none());
        assert!(gradients.get(&weight).is_some());
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let (weight, bias) = (sample(&[4, 3], 2), sample(&[4], 3));
        assert_eq!(linear(&sample(&[0, 3], 1), &weight, Some(&bias), F32)?.dims(), [0, 4]);
        assert!(linear(&sample(&[2, 5], 1), &weight, Some(&bias), F32).is_err());
        assert!(linear(&sample(&[2, 3], 1), &weight, Some(&sample(&[3], 1)), F32).is_err());
        Ok(())
    }

    #[test]
    fn column_sums_of_many_rows() {
        let values: Vec<f32> = (0..300 * 3).map(|i| (i % 3) as f32).collect();
        assert_eq!(column_sums(&values, 3), [0.0, 300.0, 600.0]);
        assert_eq!(column_sums(&[], 2), [0.0, 0.0]);
    }
}
