//! Splitting rows over threads.

use std::marker::PhantomData;

use super::{Cpu, team};
use crate::ops::matrix::MatrixMut;

/// Elements below which a thread is not worth calling.
const MIN_ELEMENTS: usize = 1 << 12;
/// Tasks per thread, for balance when a core is slow or taken.
const TASKS_PER_THREAD: usize = 4;

/// Calls `body(row, out_row)` for every row of `out`, in parallel.
pub fn rows<T: Send>(out: &mut [T], width: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    if width == 0 {
        return;
    }
    let out = Shared::new(out);
    for_each_row(out.len.div_ceil(width), width, |i| {
        // SAFETY: every row is visited once, and rows do not overlap.
        body(i, unsafe { out.range(i * width, width.min(out.len - i * width)) });
    });
}

/// Calls `body(row, a_row, b_row)` for every row of two outputs, in parallel.
pub fn rows2<T: Send, U: Send>(
    a: &mut [T],
    a_width: usize,
    b: &mut [U],
    b_width: usize,
    body: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    if a_width == 0 || b_width == 0 {
        return;
    }
    assert_eq!(a.len() / a_width, b.len() / b_width, "two outputs with the same rows");
    let (a, b) = (Shared::new(a), Shared::new(b));
    for_each_row(a.len / a_width, a_width, |i| {
        // SAFETY: every row is visited once, and rows do not overlap.
        unsafe { body(i, a.range(i * a_width, a_width), b.range(i * b_width, b_width)) };
    });
}

/// Calls `body(0)`, … `body(count − 1)` for rows that take the time of `width` elements each.
fn for_each_row(count: usize, width: usize, body: impl Fn(usize) + Sync) {
    let tasks = (count * width / MIN_ELEMENTS).clamp(1, rayon::current_num_threads() * TASKS_PER_THREAD);
    let share = count.div_ceil(tasks).max(1);
    team::run(count.div_ceil(share), |task| (task * share..count.min((task + 1) * share)).for_each(&body));
}

/// Calls `body(i, &mut items[i])` for every item, each a task of its own.
pub fn items<T: Send>(items: &mut [T], body: impl Fn(usize, &mut T) + Sync) {
    let items = Shared::new(items);
    // SAFETY: every item is visited once.
    team::run(items.len, |i| body(i, unsafe { &mut items.range(i, 1)[0] }));
}

/// A slice whose disjoint parts are written from several threads.
struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer stands for an exclusive borrow, whose elements may be sent to other threads; `range`
// makes its caller promise disjointness.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(data: &'a mut [T]) -> Self {
        Shared { start: data.as_mut_ptr(), len: data.len(), _borrow: PhantomData }
    }

    /// Elements `at .. at + n`.
    ///
    /// # Safety
    /// No two live ranges may overlap.
    #[allow(clippy::mut_from_ref)]
    unsafe fn range(&self, at: usize, n: usize) -> &mut [T] {
        assert!(at <= self.len && n <= self.len - at);
        // SAFETY: in bounds by the assertion, borrowed exclusively for 'a by `new`, disjoint by the caller's
        // promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), n) }
    }
}

/// A row-major matrix whose disjoint row pieces are written from several threads.
pub struct SharedRows<'a> {
    data: Shared<'a, f32>,
    /// Elements from one row to the next.
    stride: usize,
}

impl<'a> SharedRows<'a> {
    /// Shares `data` as rows of `width`.
    pub fn new(data: &'a mut [f32], width: usize) -> Self {
        SharedRows { data: Shared::new(data), stride: width }
    }

    /// Shares a matrix. Others may have columns beside its own, so there is no slice of its memory.
    pub fn of(matrix: MatrixMut<'a, Cpu, f32>) -> Self {
        let (start, len) = (matrix.data.address() as *mut f32, matrix.data.len());
        SharedRows { data: Shared { start, len, _borrow: PhantomData }, stride: matrix.stride }
    }

    /// Columns `column .. column + n` of `row`.
    ///
    /// # Safety
    /// No two live pieces may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn piece(&self, row: usize, column: usize, n: usize) -> &mut [f32] {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.data.range(row * self.stride + column, n) }
    }
}
