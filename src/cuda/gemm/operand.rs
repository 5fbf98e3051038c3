//! How the rows of an operand lie in memory.

use crate::cuda::launch::VECTOR;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Device, Element};

/// Whether rows start on multiples of 16 bytes.
fn in_vectors<T>(address: usize, rows: usize, stride: usize) -> bool {
    address.is_multiple_of(VECTOR) && (rows <= 1 || (stride * size_of::<T>()).is_multiple_of(VECTOR))
}

impl<D: Device, T: Element> Matrix<'_, D, T> {
    /// Whether rows start on multiples of 16 bytes.
    pub(in crate::cuda) fn in_vectors(&self) -> bool {
        in_vectors::<T>(self.data.address(), self.rows, self.stride)
    }

    /// Elements from the first to the last, those between rows included.
    pub(in crate::cuda) fn extent(&self) -> usize {
        extent(self.rows, self.cols, self.stride)
    }
}

impl<D: Device, T: Element> MatrixMut<'_, D, T> {
    /// Whether rows start on multiples of 16 bytes.
    pub(in crate::cuda) fn in_vectors(&self) -> bool {
        in_vectors::<T>(self.data.address(), self.rows, self.stride)
    }

    /// Elements from the first to the last, those between rows included.
    pub(in crate::cuda) fn extent(&self) -> usize {
        extent(self.rows, self.cols, self.stride)
    }
}

fn extent(rows: usize, cols: usize, stride: usize) -> usize {
    if rows * cols == 0 { 0 } else { (rows - 1) * stride + cols }
}

/// Alignment in bytes that a buffer is checked for: that of 16-byte accesses, or none.
pub(in crate::cuda) fn alignment(vector: bool) -> usize {
    if vector { VECTOR } else { 1 }
}
