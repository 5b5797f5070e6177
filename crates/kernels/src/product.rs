//! f32 matrix products over slices: a safe face on the `gemm` crate.
//!
//! Each element of a product is summed over the inner dimension in one order, whatever the number of threads and the sizes
//! of the processor's caches: `gemm` cuts a long inner dimension by the latter, so it is never given one.

use crate::storage::Shared;
use gemm::Parallelism;

/// A matrix within a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row, without gaps.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that begin `row_stride` elements apart.
    ///
    /// # Panics
    /// If the slice is too short.
    pub(crate) fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        if rows > 0 && columns > 0 {
            let end = (rows - 1) * row_stride + columns;
            assert!(
                end <= values.len(),
                "a {rows}×{columns} matrix ends at {end} of {}",
                values.len()
            );
        }
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transpose, without moving anything.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

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

/// a · b as a new row-major buffer.
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, threads: Threads) -> Vec<f32> {
    let len = a.rows * b.columns;
    if a.columns == 0 {
        return vec![0.0; len];
    }
    let mut out = Vec::with_capacity(len);
    // SAFETY: the allocation holds `len` elements, rows are `b.columns` apart, and nothing else can reach it.
    unsafe { product(out.as_mut_ptr(), b.columns, a, b, 1.0, false, threads) };
    // SAFETY: without accumulation, and with an inner dimension that is not empty, every element has been written.
    unsafe { out.set_len(len) };
    out
}

/// out = factor · a · b, or out += factor · a · b, row-major without gaps.
///
/// # Panics
/// If `out` is of another size than the product.
pub(crate) fn multiply_into(
    out: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    factor: f32,
    accumulate: bool,
    threads: Threads,
) {
    assert_eq!(out.len(), a.rows * b.columns, "the size of a product");
    // SAFETY: `out` is exactly a.rows × b.columns, exclusively borrowed.
    unsafe { product(out.as_mut_ptr(), b.columns, a, b, factor, accumulate, threads) }
}

/// out = factor · a · b on the calling thread, into the rows that begin at `offset` of a shared buffer, `row_stride`
/// apart.
///
/// # Safety
/// No other task touches the elements of these rows.
///
/// # Panics
/// If the rows end outside of the buffer.
pub(crate) unsafe fn multiply_shared(
    out: &Shared<'_, f32>,
    offset: usize,
    row_stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    factor: f32,
) {
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let _within = out.pointer(offset + (a.rows - 1) * row_stride + b.columns);
    // SAFETY: the last element is within the buffer as just checked, and the rows are this task's alone.
    unsafe { product(out.pointer(offset), row_stride, a, b, factor, false, Threads::One) }
}

/// # Safety
/// `out` is valid for writes of `a.rows` rows of `b.columns` elements, `row_stride` apart, and for reads too if
/// `accumulate`; nothing else accesses them meanwhile.
unsafe fn product(
    out: *mut f32,
    row_stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    factor: f32,
    accumulate: bool,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "the inner dimension of a product");
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    if a.columns == 0 {
        if !accumulate {
            for row in 0..a.rows {
                // SAFETY: each row is valid for writes by this function's contract.
                unsafe { out.add(row * row_stride).write_bytes(0, b.columns) };
            }
        }
        return;
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
    };
    let block = inner_block(a.columns);
    for first in (0..a.columns).step_by(block) {
        let accumulate = accumulate || first > 0;
        // SAFETY: `Matrix` has checked that its elements are within its slice, of which this block of columns of `a` and
        // rows of `b` is a part; `out` is valid by this function's contract.
        unsafe {
            gemm::gemm(
                a.rows,
                b.columns,
                block.min(a.columns - first),
                out,
                1,
                row_stride as isize,
                accumulate,
                a.values.as_ptr().add(first * a.column_stride),
                a.column_stride as isize,
                a.row_stride as isize,
                b.values.as_ptr().add(first * b.row_stride),
                b.column_stride as isize,
                b.row_stride as isize,
                if accumulate { 1.0 } else { 0.0 },
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
                multiply(Matrix::new(&a, m, k), Matrix::new(&b, k, n), Threads::All),
                expected,
                "{m} {k} {n}"
            );
            let mut twice = expected.clone();
            multiply_into(
                &mut twice,
                Matrix::new(&a, m, k),
                Matrix::new(&b, k, n),
                1.0,
                true,
                Threads::One,
            );
            assert!(twice.iter().zip(&expected).all(|(t, e)| *t == 2.0 * e));
        }
    }

    #[test]
    fn a_strided_product_leaves_the_gaps_alone() {
        let a = [1.0, 2.0, 3.0, 4.0];
        let mut out = [9.0; 7];
        let shared = Shared::new(&mut out);
        let a = Matrix::new(&a, 2, 2);
        // SAFETY: this is the only task.
        unsafe { multiply_shared(&shared, 1, 4, a, a.transposed(), 0.5) };
        assert_eq!(out, [9.0, 2.5, 5.5, 9.0, 9.0, 5.5, 12.5]);
    }
}
