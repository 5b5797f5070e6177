//! Matrix products over slices: in f32 a safe face on the `gemm` crate, in bf16 our own.
//!
//! Each element of a product is summed over the inner dimension in one order, whatever the number of threads and the sizes
//! of the processor's caches: `gemm` cuts a long inner dimension by the latter, so it is never given one.

use crate::bf16;
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::storage::Shared;
use gemm::Parallelism;

/// `gemm` never cuts an inner dimension of this length, on any processor.
const LONGEST_INNER: usize = 512;

/// Where a product of inner dimension `inner` is cut: elements of a block, the last of which may be shorter.
pub(crate) fn inner_block(inner: usize) -> usize {
    inner.div_ceil(inner.div_ceil(LONGEST_INNER).max(1))
}

/// Who computes a product.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// The calling thread, which is a task of something larger.
    One,
    /// The pool.
    All,
}

/// What happens to a product.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Output {
    /// out = factor · a · b
    Replace { factor: f32 },
    /// out += a · b
    Add,
}

impl Output {
    /// out = a · b
    pub(crate) const PLAIN: Self = Self::Replace { factor: 1.0 };
}

/// a · b as a new row-major buffer.
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, precision: ProductPrecision, threads: Threads) -> Vec<f32> {
    let len = a.rows() * b.columns();
    let mut out = Vec::with_capacity(len);
    // SAFETY: the allocation holds `len` elements, and nothing else can reach it.
    let shared = unsafe { Shared::over(out.as_mut_ptr(), len) };
    // SAFETY: rows are `b.columns()` apart in what is a.rows() × b.columns(), and this is the only task.
    unsafe { product(&shared, [0, b.columns()], a, b, Output::PLAIN, precision, threads) };
    // SAFETY: every element has been written, since none was added to.
    unsafe { out.set_len(len) };
    out
}

/// The product into `out`, row-major without gaps.
///
/// # Panics
/// If `out` is of another size than the product.
pub(crate) fn multiply_into(
    out: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output,
    precision: ProductPrecision,
    threads: Threads,
) {
    assert_eq!(out.len(), a.rows() * b.columns(), "the size of a product");
    let shared = Shared::new(out);
    // SAFETY: `out` is exactly a.rows() × b.columns(), exclusively borrowed.
    unsafe { product(&shared, [0, b.columns()], a, b, output, precision, threads) }
}

/// The product on the calling thread, into the rows that begin at `offset` of a shared buffer, `row_stride` apart.
///
/// # Safety
/// No other task touches the elements of these rows.
///
/// # Panics
/// If the rows end outside of the buffer.
pub(crate) unsafe fn multiply_shared(
    out: &Shared<'_, f32>,
    [offset, row_stride]: [usize; 2],
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output,
    precision: ProductPrecision,
) {
    // SAFETY: the rows are this task's alone.
    unsafe { product(out, [offset, row_stride], a, b, output, precision, Threads::One) }
}

/// # Safety
/// No other task touches the elements of the rows; they are initialized if `output` adds to them.
///
/// # Panics
/// If the rows end outside of the buffer.
unsafe fn product(
    out: &Shared<'_, f32>,
    [offset, row_stride]: [usize; 2],
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output,
    precision: ProductPrecision,
    threads: Threads,
) {
    assert_eq!(a.columns(), b.rows(), "the inner dimension of a product");
    if a.rows() == 0 || b.columns() == 0 {
        return;
    }
    let _within = out.pointer(offset + (a.rows() - 1) * row_stride + b.columns());
    match (a.columns(), output, precision) {
        (0, Output::Add, _) => {}
        (0, Output::Replace { .. }, _) => {
            for row in 0..a.rows() {
                // SAFETY: the rows are within the buffer as just checked, and this task's alone.
                unsafe { out.pointer(offset + row * row_stride).write_bytes(0, b.columns()) };
            }
        }
        // SAFETY: as above.
        (_, _, ProductPrecision::F32) => unsafe { f32_product(out.pointer(offset), row_stride, a, b, output, threads) },
        // SAFETY: as above.
        (_, _, ProductPrecision::Bf16) => unsafe { bf16::product(out, [offset, row_stride], a, b, output, threads) },
    }
}

/// # Safety
/// `out` is valid for writes of the product's rows, `row_stride` apart, and for reads too if it is added to; nothing else
/// accesses them meanwhile. The inner dimension is not empty.
unsafe fn f32_product(
    out: *mut f32,
    row_stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output,
    threads: Threads,
) {
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
    };
    let (factor, add) = match output {
        Output::Replace { factor } => (factor, false),
        Output::Add => (1.0, true),
    };
    let ([a_row, a_column], [b_row, b_column]) = (a.strides(), b.strides());
    let block = inner_block(a.columns());
    for first in (0..a.columns()).step_by(block) {
        let add = add || first > 0;
        // SAFETY: a `Matrix` has its elements within its slice, of which this block of columns of `a` and rows of `b` is a
        // part; `out` is valid by this function's contract.
        unsafe {
            gemm::gemm(
                a.rows(),
                b.columns(),
                block.min(a.columns() - first),
                out,
                1,
                row_stride as isize,
                add,
                a.at(0, first).as_ptr(),
                a_column as isize,
                a_row as isize,
                b.at(first, 0).as_ptr(),
                b_column as isize,
                b_row as isize,
                if add { 1.0 } else { 0.0 },
                factor,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
        let element = |i: usize| (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum();
        (0..m * n).map(element).collect()
    }

    #[test]
    fn products_of_odd_sizes() {
        for (m, k, n) in [
            (1, 1, 1),
            (3, 7, 5),
            (17, 1, 33),
            (1, 65, 9),
            (65, 63, 1),
            (4, 0, 3),
            (0, 3, 4),
            (64, 64, 64),
            (5, 513, 7),
            (2, 1537, 3),
        ] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
            let expected = plain(&a, &b, m, k, n);
            assert_eq!(
                multiply(
                    Matrix::new(&a, m, k),
                    Matrix::new(&b, k, n),
                    ProductPrecision::F32,
                    Threads::All
                ),
                expected,
                "{m} {k} {n}"
            );
            let mut twice = expected.clone();
            multiply_into(
                &mut twice,
                Matrix::new(&a, m, k),
                Matrix::new(&b, k, n),
                Output::Add,
                ProductPrecision::F32,
                Threads::One,
            );
            assert!(twice.iter().zip(&expected).all(|(t, e)| *t == 2.0 * e));
        }
    }

    #[test]
    fn a_strided_product_leaves_the_gaps_alone() {
        const HALVED: Output = Output::Replace { factor: 0.5 };
        let a = [1.0, 2.0, 3.0, 4.0];
        let a = Matrix::new(&a, 2, 2);
        for precision in [ProductPrecision::F32, ProductPrecision::Bf16] {
            let mut out = [9.0; 7];
            let shared = Shared::new(&mut out);
            // SAFETY: this is the only task.
            unsafe { multiply_shared(&shared, [1, 4], a, a.transposed(), HALVED, precision) };
            assert_eq!(out, [9.0, 2.5, 5.5, 9.0, 9.0, 5.5, 12.5]);
        }
    }
}
