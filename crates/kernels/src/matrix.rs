//! A view of a matrix of f32 within a slice, by rows or by columns.
//!
//! Invariant: every element is within the slice.

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

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// From one row to the next, and from one column to the next; one of the two is 1.
    pub(crate) fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.column_stride]
    }

    /// The first element.
    pub(crate) fn start(&self) -> *const f32 {
        self.values.as_ptr()
    }

    /// The elements from that row and column on, to the slice's end.
    ///
    /// # Panics
    /// If there is no such element.
    pub(crate) fn at(&self, row: usize, column: usize) -> &'a [f32] {
        &self.values[row * self.row_stride + column * self.column_stride..]
    }
}
