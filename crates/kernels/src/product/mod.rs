//! Matrix products over slices, in f32 and in two forms of bf16.
//!
//! Operands are laid out in panels of 32-bit entries ([`panels`]), then multiplied tile by tile ([`tiled`]) by a kernel for
//! the processor. What an entry is ([`Entries`]) and how their products are summed up are an [`Arithmetic`].
//!
//! Invariant: an element of a product has the same bits on every instruction set, for any number of threads and however the
//! product is cut into tasks; it depends on its row and its column alone.

mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod blocks;
mod f32;
mod laid_out;
mod lines;
mod panels;
mod tiled;

use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::storage::Shared;
use amx::Amx;
use bf16::Bf16;
use blocks::Blocks;
use f32::F32;
use lines::Lines;
use panels::Panels;
use tiled::{Left, Place, Product};

/// Rows of a panel, and of a tile in registers of AVX-512.
const ROWS: usize = 8;

/// Columns of a tile: two registers of AVX-512.
const COLUMNS: usize = 32;

/// Entries that are made in one go: lanes of a register of AVX-512.
const SIDE: usize = 16;

/// What a panel holds for one row or column and one or two places of the inner dimension.
type Entry = u32;

/// Who computes a product.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Threads {
    /// The calling thread, which is a task of something larger.
    One,
    /// The pool.
    All,
}

/// What happens to a product.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Output<'a> {
    /// out = factor · a · b
    Replace { factor: f32 },
    /// out += a · b
    Add,
    /// out = a · b, each row with this one added
    Biased(&'a [f32]),
}

impl Output<'_> {
    /// out = a · b
    pub(crate) const PLAIN: Self = Self::Replace { factor: 1.0 };
}

/// What entries are.
trait Entries {
    /// Elements of the inner dimension in an entry: 1 or 2.
    const STEP: usize;

    /// One or two elements, the second 0 where there is none.
    fn entry(first: f32, second: f32) -> Entry;

    /// The entries of `STEP` · [`SIDE`] elements that follow each other along the inner dimension.
    #[inline(always)]
    fn line(x: &[f32]) -> [Entry; SIDE] {
        let mut line = [0; SIDE];
        for (entry, x) in line.iter_mut().zip(x.chunks_exact(Self::STEP)) {
            *entry = Self::entry(x[0], if Self::STEP == 2 { x[1] } else { 0.0 });
        }
        line
    }

    /// An entry for each row, of which `first` and, if `STEP` is 2, `second` have the elements.
    #[inline(always)]
    fn side_by_side<const WIDTH: usize>(first: &[f32; WIDTH], second: &[f32; WIDTH]) -> [Entry; WIDTH] {
        std::array::from_fn(|row| Self::entry(first[row], second[row]))
    }
}

/// How the products of entries are summed up.
trait Arithmetic: Entries {
    /// Most rows of a tile.
    const HEIGHT: usize = ROWS;

    /// The rows of a tile are a multiple of this.
    const BLOCK: usize = 1;

    /// The entries along the inner dimension are a multiple of this, for which they are filled up with zeros.
    const UNIT: usize = 1;

    /// Tiles in a task, down and across.
    const TASK: [usize; 2];

    /// What a task holds while it visits tiles.
    type Session;

    /// How many entries are summed up between two visits of a tile, of `depth` in all.
    fn visit(depth: usize) -> usize;

    /// Entries along an inner dimension of so many elements.
    fn depth(elements: usize) -> usize {
        elements.div_ceil(Self::STEP).next_multiple_of(Self::UNIT)
    }

    /// What a task does before its first visit.
    fn begin() -> Self::Session;

    /// One visit of a tile.
    ///
    /// # Safety
    /// `tile.out` is valid for writes of `tile.height` rows of [`COLUMNS`] elements, `tile.out_stride` apart; `tile.start`,
    /// if any, for reads of as many; `tile.left` for reads of an entry for each row and each entry of `tile.right`. Nobody
    /// writes there meanwhile.
    unsafe fn add_products(session: &Self::Session, tile: Tile<'_>);
}

/// One visit of a tile: out = factor · (start + Σ left · right), the factor 1 except in the last visit.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// At least 1, at most [`Arithmetic::HEIGHT`], and a multiple of [`Arithmetic::BLOCK`].
    height: usize,
    /// An entry for each row and each of `right`'s entries, and the distance from row to row and from entry to entry; in
    /// [`Blocks`], between the first ones of blocks for each row and each entry.
    left: *const Entry,
    left_strides: [usize; 2],
    /// A multiple of [`Arithmetic::UNIT`].
    right: &'a [[Entry; COLUMNS]],
    /// Where the sums begin, and from row to row; `None` for zeros.
    start: Option<(*const f32, usize)>,
    factor: f32,
    out: *mut f32,
    out_stride: usize,
}

impl Tile<'_> {
    /// The entry of a row at a place of the inner dimension.
    ///
    /// # Safety
    /// The tile has the row and the place, and the safety of [`Arithmetic::add_products`].
    #[inline(always)]
    unsafe fn left(&self, row: usize, place: usize) -> Entry {
        let [row_stride, place_stride] = self.left_strides;
        // SAFETY: by this function's contract.
        unsafe { *self.left.add(row * row_stride + place * place_stride) }
    }
}

/// a · b as a new row-major buffer; `output` adds to nothing.
///
/// # Panics
/// If `output` is [`Output::Add`].
pub(crate) fn multiply(
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output<'_>,
    precision: ProductPrecision,
    threads: Threads,
) -> Vec<f32> {
    assert!(output != Output::Add, "there is nothing yet to add to");
    // SAFETY: `out` is as large as the product, all of which is written, and this is the only task.
    unsafe {
        build(a.rows(), b.columns(), |out| {
            product(out, [0, b.columns()], a, b, output, precision, threads);
        })
    }
}

/// A right operand of several products, laid out once.
pub(crate) struct Kept {
    panels: Panels<COLUMNS>,
    /// The inner dimension, in elements.
    rows: usize,
    precision: ProductPrecision,
}

impl Kept {
    pub(crate) fn new(b: Matrix<'_>, precision: ProductPrecision) -> Self {
        Self {
            panels: columns(b, precision, Threads::All),
            rows: b.rows(),
            precision,
        }
    }

    pub(crate) fn precision(&self) -> ProductPrecision {
        self.precision
    }

    /// x · b + `bias` as a new row-major buffer.
    ///
    /// # Panics
    /// If `x` is of another inner dimension, or there are fewer columns than in `bias`.
    pub(crate) fn multiply(&self, x: Matrix<'_>, bias: &[f32]) -> Vec<f32> {
        assert_eq!(x.columns(), self.rows, "the inner dimension of a product");
        let threads = tiled::threads(x.rows() * x.columns() * bias.len(), Threads::All);
        // SAFETY: as for `multiply`.
        unsafe {
            build(x.rows(), bias.len(), |out| {
                let place = Place {
                    out,
                    offset: 0,
                    row_stride: bias.len(),
                };
                put(&place, x, self, bias.len(), Output::Biased(bias), threads);
            })
        }
    }
}

/// A new buffer of `rows` × `columns`.
///
/// # Safety
/// `fill` writes every element.
unsafe fn build(rows: usize, columns: usize, fill: impl FnOnce(&Shared<'_, f32>)) -> Vec<f32> {
    let len = rows * columns;
    let mut out = Vec::with_capacity(len);
    // SAFETY: the allocation holds `len` elements, and nothing else can reach it.
    fill(&unsafe { Shared::over(out.as_mut_ptr(), len) });
    // SAFETY: every element has been written, by this function's contract.
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
    output: Output<'_>,
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
    output: Output<'_>,
    precision: ProductPrecision,
) {
    // SAFETY: the rows are this task's alone.
    unsafe { product(out, [offset, row_stride], a, b, output, precision, Threads::One) }
}

/// # Safety
/// No other task touches the elements of the rows; they are initialized if `output` adds to them.
///
/// # Panics
/// If the rows end outside of the buffer, or a bias is of another length.
unsafe fn product(
    out: &Shared<'_, f32>,
    [offset, row_stride]: [usize; 2],
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output<'_>,
    precision: ProductPrecision,
    threads: Threads,
) {
    assert_eq!(a.columns(), b.rows(), "the inner dimension of a product");
    if a.rows() == 0 || b.columns() == 0 {
        return;
    }
    let place = Place {
        out,
        offset,
        row_stride,
    };
    let threads = tiled::threads(a.rows() * a.columns() * b.columns(), threads);
    let right = Kept {
        panels: columns(b, precision, threads),
        rows: b.rows(),
        precision,
    };
    // SAFETY: by this function's contract.
    unsafe { put(&place, a, &right, b.columns(), output, threads) };
}

/// The right operand of a product, laid out.
fn columns(b: Matrix<'_>, precision: ProductPrecision, threads: Threads) -> Panels<COLUMNS> {
    match precision {
        ProductPrecision::F32 => Panels::of_columns::<F32>(b, threads),
        ProductPrecision::Bf16 => Panels::of_columns::<Bf16>(b, threads),
        ProductPrecision::Bf16Amx => Panels::of_columns::<Amx>(b, threads),
    }
}

/// a · b to `place`, for the first `width` columns of `b`.
///
/// # Safety
/// As for [`Product::put`].
unsafe fn put(place: &Place<'_>, a: Matrix<'_>, b: &Kept, width: usize, output: Output<'_>, threads: Threads) {
    let right = &b.panels;
    // SAFETY: by this function's contract.
    unsafe {
        match b.precision {
            ProductPrecision::F32 => {
                // Rows that lie in one piece are read where they are. Elements are broadcast one by one, so that it costs
                // nothing; columns are read too far apart for that.
                let in_rows = a.strides()[1] == 1;
                let panels = (!in_rows).then(|| Panels::of_rows::<F32>(a, threads));
                let left = panels.as_ref().map_or_else(|| Left::of_matrix(a), Left::of_panels);
                Product::<F32>::new(left, right, width).put(place, output, threads);
            }
            ProductPrecision::Bf16 => {
                // Rows that lie in one piece stay so, at half the size.
                if a.strides()[1] == 1 {
                    let lines = Lines::of_rows(a, threads);
                    Product::<Bf16>::new(Left::of_lines(&lines), right, width).put(place, output, threads);
                } else {
                    let panels = Panels::of_rows::<Bf16>(a, threads);
                    Product::<Bf16>::new(Left::of_panels(&panels), right, width).put(place, output, threads);
                }
            }
            ProductPrecision::Bf16Amx => {
                let blocks = Blocks::of_rows(a, threads);
                Product::<Amx>::new(Left::of_blocks(&blocks), right, width).put(place, output, threads);
            }
        }
    }
}

#[cfg(test)]
mod tests;
