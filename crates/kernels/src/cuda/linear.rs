//! The fully connected layer: a product with a bias, whose gradients are handed over as they are.

use super::product::{Transposed, multiply, plain_product};
use super::{WARP, blocks, buffer, launch, not_on_cpu, output, threads, view, width_of};
use crate::gradients::hand_over;
use crate::precision::ProductPrecision;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, CustomOp1, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};

/// Rows that [`column_sums`] adds up in one go.
const PART: usize = 128;

/// As [`crate::linear`].
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = Linear { precision };
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

struct Linear {
    precision: ProductPrecision,
}

impl Linear {
    /// x · Wᵀ, and its shape.
    fn product(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (outputs, inputs) = w_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        shape.pop();
        let rows: usize = shape.iter().product();
        shape.push(outputs);
        let x_layout = Layout::contiguous_with_offset((rows, inputs), x_layout.start_offset());
        let (y, _) = multiply((x, &x_layout), (weight, w_layout), Transposed::RIGHT, self.precision)?;
        Ok((y, Shape::from(shape)))
    }

    /// The gradients of `x` and of `weight`, each only if something asks for it. `gradient` is contiguous.
    fn operand_gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = weight.dims2()?;
        let rows: usize = x.dims()[..x.rank() - 1].iter().product();
        let g = gradient.detach().reshape((rows, outputs))?;
        let of_input = if x.track_op() {
            let product = plain_product(&g, &weight.detach(), Transposed::NEITHER, self.precision)?;
            Some(product.reshape(x.shape())?)
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            let x = x.detach().reshape((rows, inputs))?;
            hand_over(weight, plain_product(&g, &x, Transposed::LEFT, self.precision)?)?
        } else {
            None
        };
        Ok((of_input, of_weight))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.product(x, x_layout, weight, w_layout)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.operand_gradients(x, weight, &gradient.contiguous()?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    not_on_cpu!(3);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        w_layout: &Layout,
        bias: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (mut y, shape) = self.product(x, x_layout, weight, w_layout)?;
        if shape.elem_count() > 0 {
            let (count, width) = (shape.elem_count() as u64, width_of(b_layout.shape().elem_count())?);
            let bias = view(bias, b_layout)?;
            let y = y.as_cuda_slice_mut::<f32>()?;
            // SAFETY: `y` has `count` elements in rows of the bias's width.
            unsafe { launch!(&x.device, "add_bias", threads(count)?, y, &bias, &count, &width) };
        }
        Ok((y, shape))
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
        let (x, weight) = self.operand_gradients(x, weight, &gradient)?;
        let bias = if bias.track_op() {
            hand_over(bias, column_sums(&gradient)?)?
        } else {
            None
        };
        Ok((x, weight, bias))
    }
}

/// The sum over all rows of the last dimension, `[..., n]` to `[n]`. It is not differentiated.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let mut sums = x.detach().contiguous()?.reshape(((), width))?;
    while sums.dim(0)? > 1 {
        sums = sums.apply_op1_no_bwd(&ColumnSums)?;
    }
    if sums.dim(0)? == 0 {
        return Tensor::zeros(width, x.dtype(), x.device());
    }
    sums.reshape(width)
}

/// `[rows, n]` to `[parts, n]`.
struct ColumnSums;

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column_sums"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        // The parts are a grid's second dimension, of which there are fewer.
        let part = PART.max(rows.div_ceil(usize::from(u16::MAX)));
        let parts = rows.div_ceil(part);
        let mut out = buffer(&x.device, parts * width)?;
        if parts * width > 0 {
            let config = LaunchConfig {
                grid_dim: (blocks(width.div_ceil(WARP as usize) as u64)?, parts as u32, 1),
                block_dim: (WARP, 8, 1),
                shared_mem_bytes: 0,
            };
            let (values, rows, part, columns) = (view(x, layout)?, rows as u64, width_of(part)?, width_of(width)?);
            // SAFETY: `values` has `rows` rows of that width, and `out` as many as there are parts.
            unsafe {
                launch!(
                    &x.device,
                    "column_sums",
                    config,
                    &values,
                    &mut out,
                    &rows,
                    &columns,
                    &part
                )
            };
        }
        Ok(output(out, &x.device, (parts, width)))
    }
}
