//! Matrices of device memory as operands of [`super::blas`].

use super::Cpu;
use super::blas::{MatMut, MatRef};
use crate::ops::matrix::{Matrix, MatrixMut};

/// A matrix that is read.
pub(super) fn operand(m: Matrix<'_, Cpu, f32>) -> MatRef<'_> {
    MatRef::strided(m.data.as_slice(), m.rows, m.cols, m.stride)
}

/// A matrix that is written.
pub(super) fn target(m: MatrixMut<'_, Cpu, f32>) -> MatMut<'_> {
    let (rows, cols, stride) = (m.rows, m.cols, m.stride);
    MatMut::strided(m.data.into_slice(), rows, cols, stride)
}
