//! Row-major matrices in device memory, the operands of products.

use super::{Device, Mut, Ref};

/// A row-major matrix in device memory, read.
pub struct Matrix<'a, D: Device, T> {
    /// Elements, starting at (0, 0).
    pub data: Ref<'a, D, T>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub stride: usize,
}

impl<D: Device, T> Clone for Matrix<'_, D, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device, T> Copy for Matrix<'_, D, T> {}

impl<'a, D: Device, T: super::Element> Matrix<'a, D, T> {
    /// A matrix whose rows follow each other without a gap.
    pub fn new(data: Ref<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        Matrix { data, rows, cols, stride: cols }
    }

    /// Columns `from .. from + cols`.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let data = self.data.slice(from.min(self.data.len())..self.data.len());
        Matrix { data, rows: self.rows, cols, stride: self.stride }
    }
}

/// A row-major matrix in device memory, written.
pub struct MatrixMut<'a, D: Device, T> {
    /// Elements, starting at (0, 0).
    pub data: Mut<'a, D, T>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub stride: usize,
}

impl<'a, D: Device, T: super::Element> MatrixMut<'a, D, T> {
    /// A matrix whose rows follow each other without a gap.
    pub fn new(data: Mut<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        MatrixMut { data, rows, cols, stride: cols }
    }

    /// Columns `from .. from + cols`.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let len = self.data.len();
        MatrixMut { data: self.data.slice(from.min(len)..len), rows: self.rows, cols, stride: self.stride }
    }
}
