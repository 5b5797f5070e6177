//! The product as a whole: both operands laid out, then tasks of rows and columns, each tile by tile.
//!
//! Sums wait in the output while the inner dimension is cut, unrounded, so that the cuts leave no trace in them.

use super::panels::Panels;
use super::{COLUMNS, Pair, ROWS, Sums, portable};
use crate::isa::Isa;
use crate::matrix::Matrix;
use crate::product::{Output, Threads};
use crate::storage::Shared;
use rayon::prelude::*;

/// Pairs along the inner dimension between two visits of a tile's sums: a panel of columns stays in the first-level cache.
const DEPTH: usize = 128;

/// Panels of rows of a task: with [`DEPTH`], they stay in the second-level cache.
const ROW_PANELS: usize = 12;

/// Panels of columns of a task.
const COLUMN_PANELS: usize = 16;

/// Multiplications from which waking other threads pays.
const PARALLEL: usize = 1 << 20;

/// a · b, put into rows of `out` that begin at `offset` and are `row_stride` apart.
///
/// The elements need not be initialized if `output` replaces them.
///
/// # Safety
/// `out` covers these rows, and no other task touches them.
pub(crate) unsafe fn product(
    out: &Shared<'_, f32>,
    [offset, row_stride]: [usize; 2],
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output,
    threads: Threads,
) {
    let threads = if a.rows() * a.columns() * b.columns() < PARALLEL {
        Threads::One
    } else {
        threads
    };
    let product = Product {
        left: Panels::of_rows(a, threads),
        right: Panels::of_columns(b, threads),
        rows: a.rows(),
        columns: b.columns(),
        row_stride,
        output,
    };
    let across = product.right.count().div_ceil(COLUMN_PANELS);
    let tasks = 0..product.left.count().div_ceil(ROW_PANELS) * across;
    let run = |task: usize| {
        let target = |row: usize, column: usize| out.pointer(offset + row * row_stride + column);
        // SAFETY: `out` covers all rows by this function's contract, and each task has rows and columns of its own.
        unsafe { product.block(task / across, task % across, target) };
    };
    match threads {
        Threads::One => tasks.for_each(run),
        Threads::All => tasks.into_par_iter().for_each(run),
    }
}

struct Product {
    left: Panels<ROWS>,
    right: Panels<COLUMNS>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    output: Output,
}

impl Product {
    /// One task's tiles; `target` leads to an element of the output.
    ///
    /// # Safety
    /// The output's elements in the task's rows and columns are valid for writes, and for reads where they are added to,
    /// and nobody else touches them.
    unsafe fn block(&self, down: usize, across: usize, target: impl Fn(usize, usize) -> *mut f32) {
        let panels = |task: usize, size: usize, all: usize| task * size..(task * size + size).min(all);
        for first in (0..self.left.depth()).step_by(DEPTH) {
            for right in panels(across, COLUMN_PANELS, self.right.count()) {
                for left in panels(down, ROW_PANELS, self.left.count()) {
                    let target = |row: usize| target(left * ROWS + row, right * COLUMNS);
                    // SAFETY: a tile of this task, whose elements an earlier cut wrote if this is not the first.
                    unsafe { self.tile(left, right, first, target) };
                }
            }
        }
    }

    /// One tile's sums from pair `first` on, as far as the next cut; `target` leads to a row of it in the output.
    ///
    /// # Safety
    /// As for [`Self::block`].
    unsafe fn tile(&self, left: usize, right: usize, first: usize, target: impl Fn(usize) -> *mut f32) {
        let height = ROWS.min(self.rows - left * ROWS);
        let width = COLUMNS.min(self.columns - right * COLUMNS);
        let end = (first + DEPTH).min(self.left.depth());
        let kept = first > 0 || self.output == Output::Add;
        let (rows, columns) = (self.left.part(left, first, end), self.right.part(right, first, end));
        #[cfg(target_arch = "x86_64")]
        if (height, width) == (ROWS, COLUMNS) && Isa::current() == Isa::Avx512Bf16 {
            let factor = match self.output {
                Output::Replace { factor } if end == self.left.depth() => factor,
                Output::Replace { .. } | Output::Add => 1.0,
            };
            let stride = self.row_stride;
            // SAFETY: a whole tile of this task, `row_stride` from row to row; this processor has the instructions.
            return unsafe { super::avx512::tile_in_place(target(0), stride, kept, factor, rows, columns) };
        }
        let mut sums = [[0.0; COLUMNS]; ROWS];
        if kept {
            for (row, sums) in sums[..height].iter_mut().enumerate() {
                // SAFETY: `width` elements of a row of this tile, which are initialized.
                unsafe { copy(target(row), sums.as_mut_ptr(), width) };
            }
        }
        add_products(&mut sums, rows, columns);
        if end == self.left.depth() {
            self.finish(&mut sums);
        }
        for (row, sums) in sums[..height].iter().enumerate() {
            // SAFETY: `width` elements of a row of this tile.
            unsafe { copy(sums.as_ptr(), target(row), width) };
        }
    }

    fn finish(&self, sums: &mut Sums) {
        match self.output {
            Output::Replace { factor } if factor != 1.0 => {
                sums.as_flattened_mut().iter_mut().for_each(|sum| *sum *= factor);
            }
            Output::Replace { .. } | Output::Add => {}
        }
    }
}

/// Copies a row of a tile; a whole one, which is the rule, without a call.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
unsafe fn copy(from: *const f32, to: *mut f32, width: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        if width == COLUMNS {
            from.copy_to_nonoverlapping(to, COLUMNS);
        } else {
            from.copy_to_nonoverlapping(to, width);
        }
    }
}

/// Adds the products of all pairs to `sums`, by the best kernel of the processor.
fn add_products(sums: &mut Sums, left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]]) {
    match Isa::current() {
        // SAFETY: `Isa::current` names only sets that this processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { super::avx512::tile(sums, left, right) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Bf16 => portable::tile(sums, left, right),
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 | Isa::Portable => portable::tile(sums, left, right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::with_isa;
    use crate::precision::ProductPrecision;
    use crate::product::{multiply, multiply_into};
    use crate::random::{RandomKey, RandomStream};

    const SIZES: [usize; 9] = [0, 1, 3, 7, 17, 63, 65, 130, 513];

    /// What the values are like.
    #[derive(Clone, Copy, Debug)]
    enum Values {
        Normal,
        /// About the smallest normal number, products of which are below it.
        Tiny,
        /// About the largest number, sums of which are infinite.
        Large,
        /// Any bits: numbers of all sizes, infinities and what is no number.
        Any,
    }

    fn values(kind: Values, len: usize, seed: u64) -> Vec<f32> {
        let mut stream = RandomStream::new(RandomKey {
            seed,
            purpose: 0,
            step: 0,
        });
        let mut scaled = |scale: f32| stream.normal() * scale;
        match kind {
            Values::Normal => (0..len).map(|_| scaled(1.0)).collect(),
            Values::Tiny => (0..len).map(|i| scaled([1e-19, 1e-38, 3e-20][i % 3])).collect(),
            Values::Large => (0..len).map(|i| scaled([1e19, 1e20, 1e-3][i % 3])).collect(),
            Values::Any => (0..len).map(|_| f32::from_bits(stream.next_u32())).collect(),
        }
    }

    /// The bits, with one for all that is not a number.
    fn bits(values: &[f32]) -> Vec<u32> {
        let bits = |v: &f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
        values.iter().map(bits).collect()
    }

    fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns)
            .map(|i| values[i % rows * columns + i / rows])
            .collect()
    }

    fn on_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool can be started").install(run)
    }

    #[test]
    fn the_product_of_what_was_rounded() {
        let rounded = |x: &f32| f64::from(f32::from_bits(u32::from(super::super::panels::round(*x)) << 16));
        for (i, m) in SIZES.into_iter().enumerate() {
            for (j, k) in SIZES.into_iter().enumerate() {
                let n = SIZES[(i + 2 * j) % SIZES.len()];
                let (a, b) = (values(Values::Normal, m * k, 1), values(Values::Normal, k * n, 2));
                let (x, y) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
                let got = multiply(x, y, ProductPrecision::Bf16, Threads::All);
                for (i, got) in got.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let terms = (0..k).map(|p| rounded(&a[row * k + p]) * rounded(&b[p * n + column]));
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let bound = 1e-7 * (k as f64).sqrt() * size;
                    assert!(
                        (f64::from(*got) - sum).abs() <= bound,
                        "{m} {k} {n}: {got} is not {sum}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_layout_thread_count_and_instruction_set_gives_the_same_bits() {
        for kind in [Values::Normal, Values::Tiny, Values::Large, Values::Any] {
            for (m, k, n) in [(7, 17, 65), (63, 513, 3), (130, 260, 300), (1, 65, 1), (301, 64, 63)] {
                let (a, b) = (values(kind, m * k, 3), values(kind, k * n, 4));
                let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
                let (x, y) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
                let x_turned = Matrix::new(&a_turned, k, m).transposed();
                let y_turned = Matrix::new(&b_turned, n, k).transposed();
                let start = values(kind, m * n, 5);
                let run = |x, y| {
                    let mut out = start.clone();
                    multiply_into(&mut out, x, y, Output::Add, ProductPrecision::Bf16, Threads::All);
                    out.extend(multiply(x, y, ProductPrecision::Bf16, Threads::One));
                    bits(&out)
                };
                let expected = with_isa(Isa::Portable, || run(x, y));
                for isa in Isa::available() {
                    with_isa(isa, || {
                        for (x, y) in [(x, y), (x_turned, y), (x, y_turned), (x_turned, y_turned)] {
                            assert!(run(x, y) == expected, "{kind:?} {m} {k} {n} on {isa:?}");
                        }
                    });
                }
                for threads in 1..=4 {
                    assert!(on_threads(threads, || run(x, y)) == expected, "{threads} threads");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_reaches_the_product() {
        let mut a = values(Values::Normal, 20 * 33, 1);
        let b = values(Values::Normal, 33 * 40, 2);
        a[5 * 33 + 32] = f32::NAN;
        a[7 * 33] = f32::INFINITY;
        let (a, b) = (Matrix::new(&a, 20, 33), Matrix::new(&b, 33, 40));
        let got = multiply(a, b, ProductPrecision::Bf16, Threads::All);
        for (row, got) in got.chunks_exact(40).enumerate() {
            match row {
                5 => assert!(got.iter().all(|v| v.is_nan())),
                7 => assert!(got.iter().all(|v| v.is_infinite())),
                _ => assert!(got.iter().all(|v| v.is_finite())),
            }
        }
    }
}
