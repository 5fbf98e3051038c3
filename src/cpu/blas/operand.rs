//! Operands: checked views of slices, and the forms the algorithms read them in.

use half::{bf16, f16};

/// The elements of an operand, in the type they are stored in.
#[derive(Clone, Copy, Debug)]
pub enum Elems<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Brain floats: the upper half of a 32-bit float.
    Bf16(&'a [bf16]),
    /// IEEE 754 half-precision floats.
    F16(&'a [f16]),
}

impl Elems<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::Bf16(data) => data.len(),
            Self::F16(data) => data.len(),
        }
    }
}

impl<'a> From<&'a [f32]> for Elems<'a> {
    fn from(data: &'a [f32]) -> Self {
        Self::F32(data)
    }
}

impl<'a> From<&'a [bf16]> for Elems<'a> {
    fn from(data: &'a [bf16]) -> Self {
        Self::Bf16(data)
    }
}

impl<'a> From<&'a [f16]> for Elems<'a> {
    fn from(data: &'a [f16]) -> Self {
        Self::F16(data)
    }
}

/// Evaluates `$body` with `$data` bound to the typed slice inside an [`Elems`].
macro_rules! with_elems {
    ($elems:expr, $data:ident => $body:expr) => {
        match $elems {
            Elems::F32($data) => $body,
            Elems::Bf16($data) => $body,
            Elems::F16($data) => $body,
        }
    };
}
pub(super) use with_elems;

/// A read-only matrix, row-major in memory, seen as stored or transposed.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: Elems<'a>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// `data` holds `[rows, cols]` without gaps.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: impl Into<Elems<'a>>, rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `data` holds `[rows, cols]`, consecutive rows starting `row_stride` elements apart.
    ///
    /// # Panics
    /// When rows overlap or `data` is too short.
    pub fn strided(data: impl Into<Elems<'a>>, rows: usize, cols: usize, row_stride: usize) -> Self {
        let data = data.into();
        check_extent(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose of this view; nothing moves.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// Rows of the view.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the view.
    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn data(&self) -> Elems<'a> {
        self.data
    }

    /// This view as its rows; `data` is the slice inside [`Self::data`].
    pub(super) fn lines_of_rows<E>(&self, data: &'a [E]) -> Lines<'a, E> {
        assert_eq!(data.len(), self.data.len());
        Lines {
            data,
            count: self.rows,
            depth: self.cols,
            line_stride: self.row_stride,
            depth_stride: self.col_stride,
        }
    }

    /// This view as its columns; `data` is the slice inside [`Self::data`].
    pub(super) fn lines_of_columns<E>(&self, data: &'a [E]) -> Lines<'a, E> {
        self.t().lines_of_rows(data)
    }
}

/// A mutable row-major f32 matrix; a range of columns of a wider matrix when `row_stride > cols`.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// `data` holds `[rows, cols]` without gaps.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `data` holds `[rows, cols]`, consecutive rows starting `row_stride` elements apart; what lies between
    /// rows is left alone.
    ///
    /// # Panics
    /// When rows overlap or `data` is too short.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_extent(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Multiplies every element by `beta`; 0 clears without reading.
    pub(super) fn scale(&mut self, beta: f32) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        for row in self.data.chunks_mut(self.row_stride).take(self.rows) {
            let row = &mut row[..self.cols];
            if beta == 0.0 {
                row.fill(0.0);
            } else {
                row.iter_mut().for_each(|x| *x *= beta);
            }
        }
    }

    pub(super) fn out(&mut self) -> Out<'_> {
        Out {
            data: self.data.as_mut_ptr(),
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: 1,
            borrow: std::marker::PhantomData,
        }
    }
}

fn check_extent(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(row_stride >= cols, "matrix: row stride {row_stride} is less than {cols} columns");
    if rows > 0 && cols > 0 {
        let needed = (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols));
        assert!(
            needed.is_some_and(|needed| needed <= len),
            "matrix: [{rows}, {cols}] with row stride {row_stride} does not fit in {len} elements"
        );
    }
}

/// An operand as `count` vectors of `depth` elements along the summed dimension: rows of A, columns of B.
///
/// Invariant, from [`check_extent`]: `line · line_stride + d · depth_stride` is inside `data` for every `line
/// < count` and `d < depth`, and one of the two strides is 1.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a, E> {
    data: &'a [E],
    pub(super) count: usize,
    pub(super) depth: usize,
    pub(super) line_stride: usize,
    pub(super) depth_stride: usize,
}

impl<E: Copy> Lines<'_, E> {
    /// Address of element `d` of `line`; dereferenceable when both are in range.
    #[inline(always)]
    pub(super) fn at(&self, line: usize, d: usize) -> *const E {
        self.data.as_ptr().wrapping_add(line * self.line_stride + d * self.depth_stride)
    }

    #[inline(always)]
    pub(super) fn get(&self, line: usize, d: usize) -> E {
        self.data[line * self.line_stride + d * self.depth_stride]
    }
}

/// The output, shared by tasks that write disjoint parts of it.
///
/// Invariant, from [`check_extent`]: `row · row_stride + col · col_stride` is inside the mutable slice that
/// is borrowed for `'a`, and distinct for distinct `(row, col)`, while `row < rows` and `col < cols`.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    data: *mut f32,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer stands for an exclusive borrow of f32, which may move to and be used from any thread;
// every dereference is an unsafe block that argues which elements are its own.
unsafe impl Send for Out<'_> {}
// SAFETY: as above; sharing an `Out` shares only an address.
unsafe impl Sync for Out<'_> {}

impl Out<'_> {
    /// The same elements with rows and columns exchanged.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Address of an element; dereferenceable when both indices are in range.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, col: usize) -> *mut f32 {
        self.data.wrapping_add(row * self.row_stride + col * self.col_stride)
    }
}
