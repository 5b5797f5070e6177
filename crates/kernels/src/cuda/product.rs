//! Products of matrices, in f32 or of operands rounded to bf16 with sums in f32.

use super::{not_on_cpu, output};
use crate::precision::ProductPrecision;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::{self, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use std::ffi::c_void;

/// Which of the operands of a product are transposed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transposed {
    pub(super) left: bool,
    pub(super) right: bool,
}

impl Transposed {
    /// Neither.
    pub(super) const NEITHER: Self = Self {
        left: false,
        right: false,
    };
    /// The left one.
    pub(super) const LEFT: Self = Self {
        left: true,
        right: false,
    };
    /// The right one.
    pub(super) const RIGHT: Self = Self {
        left: false,
        right: true,
    };
}

/// The products of the matrices in `a` with those in `b`: `[..., m, k]` and `[..., k, n]`, as they are once they are
/// transposed, to `[..., m, n]`. Its gradients are products in the same precision.
pub(super) fn product(a: &Tensor, b: &Tensor, transposed: Transposed, precision: ProductPrecision) -> Result<Tensor> {
    a.contiguous()?
        .apply_op2(&b.contiguous()?, Product { transposed, precision })
}

/// As [`product`], of tensors that nothing differentiates.
pub(super) fn plain_product(
    a: &Tensor,
    b: &Tensor,
    transposed: Transposed,
    precision: ProductPrecision,
) -> Result<Tensor> {
    a.contiguous()?
        .apply_op2_no_bwd(&b.contiguous()?, &Product { transposed, precision })
}

struct Product {
    transposed: Transposed,
    precision: ProductPrecision,
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        multiply((a, a_layout), (b, b_layout), self.transposed, self.precision)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Transposed { left, right } = self.transposed;
        let product = |a: &Tensor, b: &Tensor, left, right| {
            plain_product(&a.detach(), &b.detach(), Transposed { left, right }, self.precision)
        };
        let g = &gradient.contiguous()?;
        let of_a = match (a.track_op(), left) {
            (false, _) => None,
            (true, false) => Some(product(g, b, false, !right)?),
            (true, true) => Some(product(b, g, right, true)?),
        };
        let of_b = match (b.track_op(), right) {
            (false, _) => None,
            (true, false) => Some(product(a, g, !left, false)?),
            (true, true) => Some(product(g, a, true, left)?),
        };
        Ok((of_a, of_b))
    }
}

/// Number of products, and rows, columns and inner length of each.
struct Sizes {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
}

/// The products of two contiguous operands, and their shape.
pub(super) fn multiply(
    (a, a_layout): (&CudaStorage, &Layout),
    (b, b_layout): (&CudaStorage, &Layout),
    transposed: Transposed,
    precision: ProductPrecision,
) -> Result<(CudaStorage, Shape)> {
    let device = &a.device;
    let (a_rank, b_rank) = (a_layout.dims().len(), b_layout.dims().len());
    if a_rank < 2 || a_rank != b_rank {
        bail!("the product of {:?} and {:?}", a_layout.dims(), b_layout.dims())
    }
    let (batch, [a_rows, a_columns]) = matrices(a_layout);
    let (b_batch, [b_rows, b_columns]) = matrices(b_layout);
    let (m, k) = if transposed.left {
        (a_columns, a_rows)
    } else {
        (a_rows, a_columns)
    };
    let (inner, n) = if transposed.right {
        (b_columns, b_rows)
    } else {
        (b_rows, b_columns)
    };
    if batch != b_batch || k != inner {
        bail!(
            "the product of {:?} and {:?}, {transposed:?}",
            a_layout.dims(),
            b_layout.dims()
        )
    }
    let mut shape = a_layout.dims()[..a_rank - 2].to_vec();
    shape.extend([m, n]);
    let shape = Shape::from(shape);
    if shape.elem_count() == 0 || k == 0 {
        let zeros = device.alloc_zeros::<f32>(shape.elem_count())?;
        return Ok(output(zeros, device, shape));
    }
    let sizes = Sizes { batch, m, n, k };
    if precision == ProductPrecision::F32 {
        let as_operand = |layout: &Layout, rows, columns, transposed| {
            let layout = Layout::contiguous_with_offset((batch, rows, columns), layout.start_offset());
            if transposed { layout.transpose(1, 2) } else { Ok(layout) }
        };
        let a_layout = as_operand(a_layout, a_rows, a_columns, transposed.left)?;
        let b_layout = as_operand(b_layout, b_rows, b_columns, transposed.right)?;
        return Ok((a.matmul(b, (batch, m, n, k), &a_layout, &b_layout)?, shape));
    }
    let (a, b) = (a.to_dtype(a_layout, DType::BF16)?, b.to_dtype(b_layout, DType::BF16)?);
    let (a, b) = (a.as_cuda_slice::<bf16>()?, b.as_cuda_slice::<bf16>()?);
    let out = multiply_bf16(device, a, b, &sizes, transposed)?;
    Ok(output(out, device, shape))
}

/// How many matrices a layout has, and rows and columns of each.
fn matrices(layout: &Layout) -> (usize, [usize; 2]) {
    let (leading, last) = layout.dims().split_at(layout.dims().len() - 2);
    (leading.iter().product(), [last[0], last[1]])
}

fn multiply_bf16(
    device: &CudaDevice,
    a: &CudaSlice<bf16>,
    b: &CudaSlice<bf16>,
    sizes: &Sizes,
    transposed: Transposed,
) -> Result<CudaSlice<f32>> {
    let &Sizes { batch, m, n, k } = sizes;
    let mut out = super::buffer(device, batch * m * n)?;
    let int = |value: usize| match i32::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => bail!("a product of {m} × {k} and {k} × {n}"),
    };
    let blas = device.cublas_handle();
    let stream = device.cuda_stream();
    // cuBLAS has columns where we have rows: it computes the transpose of the product, of the transposed operands in turn.
    let operation = |is_transposed| match is_transposed {
        false => sys::cublasOperation_t::CUBLAS_OP_N,
        true => sys::cublasOperation_t::CUBLAS_OP_T,
    };
    let (one, zero) = (1f32, 0f32);
    let pointer = |value: &f32| std::ptr::from_ref(value).cast::<c_void>();
    {
        let (a_start, _a) = a.device_ptr(&stream);
        let (b_start, _b) = b.device_ptr(&stream);
        let (out_start, _out) = out.device_ptr_mut(&stream);
        // SAFETY: the operands have `batch` matrices of `m · k` and `k · n` elements in bf16, the output of `m · n` in f32, each
        // without gaps, and the leading dimensions are those of these.
        unsafe {
            cublas::result::gemm_strided_batched_ex(
                *blas.handle(),
                operation(transposed.right),
                operation(transposed.left),
                int(n)?,
                int(m)?,
                int(k)?,
                pointer(&one),
                b_start as *const c_void,
                sys::cudaDataType::CUDA_R_16BF,
                int(if transposed.right { k } else { n })?,
                (k * n) as i64,
                a_start as *const c_void,
                sys::cudaDataType::CUDA_R_16BF,
                int(if transposed.left { m } else { k })?,
                (m * k) as i64,
                pointer(&zero),
                out_start as *mut c_void,
                sys::cudaDataType::CUDA_R_32F,
                int(n)?,
                (m * n) as i64,
                int(batch)?,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()?;
    }
    Ok(out)
}
