//! Row-major matrices in device memory, the operands of products.

use super::contract::refused;
use super::{Device, Mut, Ref};
use crate::error::Result;

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
    ///
    /// # Panics
    /// If `data` has other than `rows · cols` elements.
    pub fn new(data: Ref<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        Matrix { data, rows, cols, stride: cols }
    }

    /// A matrix whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// If rows overlap, or `data` is too short.
    pub fn strided(data: Ref<'a, D, T>, rows: usize, cols: usize, stride: usize) -> Self {
        let matrix = Matrix { data, rows, cols, stride };
        if let Err(problem) = matrix.check("a matrix") {
            panic!("{problem}");
        }
        matrix
    }

    /// Whether its elements are inside of `data`, and rows do not overlap; what is wrong if not.
    pub(crate) fn check(&self, what: &str) -> std::result::Result<(), String> {
        check_extent(what, self.data.len(), [self.rows, self.cols, self.stride])
    }

    /// Refuses a matrix of other than `cols` columns, of fewer than `rows` rows, or that leaves its memory.
    pub(crate) fn expect(&self, op: &str, name: &str, rows: usize, cols: usize) -> Result<()> {
        expect_matrix(op, self.check(name), name, [self.rows, self.cols], [rows, cols])
    }

    /// Columns `from .. from + cols`.
    ///
    /// # Panics
    /// If the matrix has fewer columns.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let data = self.data.slice(from.min(self.data.len())..self.data.len());
        Matrix { data, rows: self.rows, cols, stride: self.stride }
    }
}

/// Whether `[rows, cols]` with a stride lies in `len` elements and rows do not overlap; what is wrong if not.
fn check_extent(what: &str, len: usize, [rows, cols, stride]: [usize; 3]) -> std::result::Result<(), String> {
    let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(cols));
    if cols == 0 || end.is_some_and(|end| end <= len) && stride >= cols {
        return Ok(());
    }
    Err(format!(
        "{what} of {rows} × {cols} with a stride of {stride} does not lie in {len} elements, row after row"
    ))
}

fn expect_matrix(
    op: &str,
    check: std::result::Result<(), String>,
    name: &str,
    found: [usize; 2],
    expected: [usize; 2],
) -> Result<()> {
    check.map_err(|problem| refused(op, problem))?;
    if found[0] >= expected[0] && found[1] == expected[1] {
        return Ok(());
    }
    let [[rows, cols], [expected_rows, expected_cols]] = [found, expected];
    Err(refused(op, format!("{name}: expected {expected_rows} × {expected_cols}, found {rows} × {cols}")))
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
    ///
    /// # Panics
    /// If `data` has other than `rows · cols` elements.
    pub fn new(data: Mut<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        MatrixMut { data, rows, cols, stride: cols }
    }

    /// Whether its elements are inside of `data`, and rows do not overlap; what is wrong if not.
    pub(crate) fn check(&self, what: &str) -> std::result::Result<(), String> {
        check_extent(what, self.data.len(), [self.rows, self.cols, self.stride])
    }

    /// Refuses a matrix of other than `cols` columns, of fewer than `rows` rows, or that leaves its memory.
    pub(crate) fn expect(&self, op: &str, name: &str, rows: usize, cols: usize) -> Result<()> {
        expect_matrix(op, self.check(name), name, [self.rows, self.cols], [rows, cols])
    }

    /// Columns `from .. from + cols`.
    ///
    /// # Panics
    /// If the matrix has fewer columns.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let len = self.data.len();
        MatrixMut { data: self.data.slice(from.min(len)..len), rows: self.rows, cols, stride: self.stride }
    }
}
