//! Splitting rows over threads.

use std::marker::PhantomData;

use rayon::prelude::*;

/// Elements below which a thread is not worth waking.
const MIN_ELEMENTS: usize = 1 << 14;

/// Calls `body(row, out_row)` for every row of `out`, in parallel.
pub fn rows<T: Send>(out: &mut [T], width: usize, body: impl Fn(usize, &mut [T]) + Sync + Send) {
    if width == 0 {
        return;
    }
    let min_rows = MIN_ELEMENTS.div_ceil(width);
    out.par_chunks_mut(width).with_min_len(min_rows).enumerate().for_each(|(i, row)| body(i, row));
}

/// Calls `body(row, a_row, b_row)` for every row of two outputs, in parallel.
pub fn rows2<T: Send, U: Send>(
    a: &mut [T],
    a_width: usize,
    b: &mut [U],
    b_width: usize,
    body: impl Fn(usize, &mut [T], &mut [U]) + Sync + Send,
) {
    assert_eq!(a.len() / a_width, b.len() / b_width, "two outputs with the same rows");
    let min_rows = MIN_ELEMENTS.div_ceil(a_width);
    a.par_chunks_mut(a_width)
        .zip(b.par_chunks_mut(b_width))
        .with_min_len(min_rows)
        .enumerate()
        .for_each(|(i, (a, b))| body(i, a, b));
}

/// A row-major matrix whose disjoint row pieces are written from several threads.
pub struct SharedRows<'a> {
    start: *mut f32,
    len: usize,
    width: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer stands for an exclusive borrow of plain f32s; `piece` makes its caller promise disjointness.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    /// Shares `data` as rows of `width`.
    pub fn new(data: &'a mut [f32], width: usize) -> Self {
        SharedRows { start: data.as_mut_ptr(), len: data.len(), width, _borrow: PhantomData }
    }

    /// Columns `column .. column + n` of `row`.
    ///
    /// # Safety
    /// No two live pieces may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn piece(&self, row: usize, column: usize, n: usize) -> &mut [f32] {
        let at = row * self.width + column;
        assert!(at + n <= self.len);
        // SAFETY: in bounds by the assertion, borrowed exclusively for 'a by `new`, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), n) }
    }
}
