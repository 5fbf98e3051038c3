//! Element-wise operations, as written in `ops/elementwise.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::rows::{alignment, threads};
use super::tile::{ELEMENT_THREADS, ROW_THREADS};
use crate::ops::elementwise::{Elementwise, check_add, check_cast, check_scale_rows};
use crate::ops::{Mut, Ref};

/// Elements of one row of [`Elementwise::add`], which has no rows of its own.
const ADD_WIDTH: usize = ROW_THREADS * 8 * 4;

/// Blocks for each multiprocessor in kernels that go over everything with a fixed grid: enough to keep it
/// busy.
const BLOCKS_PER_MULTIPROCESSOR: usize = 8;

impl Cuda {
    /// Blocks of a kernel that goes over `n` elements, each thread taking `each` at a time: no more than keep
    /// all multiprocessors busy.
    pub(super) fn element_blocks(&self, n: usize, each: usize) -> usize {
        let busy = self.info().multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
        n.div_ceil(each * ELEMENT_THREADS).min(busy)
    }
}

impl Elementwise for Cuda {
    fn add(&self, y_acc: Mut<'_, Self, bf16>, x: Ref<'_, Self, bf16>) {
        let n = x.len();
        if self.keep(check_add(y_acc.len(), n)).is_none() {
            return;
        }
        let (wide, rest) = y_acc.split_at(n / ADD_WIDTH * ADD_WIDTH);
        let start = wide.len();
        for (y, x, width) in [(wide, x.slice(0..start), ADD_WIDTH), (rest, x.slice(start..n), n - start)] {
            let rows = x.len() / width.max(1);
            self.launch("add_rows")
                .write("y", &y, x.len(), alignment(width))
                .read("x", x, x.len(), alignment(width))
                .int("width", width)
                .run(Shape::line(rows, threads(width)));
        }
    }

    fn scale_rows(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        row_weight: Ref<'_, Self, f32>,
        scale: f32,
    ) {
        let rows = row_weight.len();
        if self.keep(check_scale_rows(y.len(), x.len(), rows)).is_none() {
            return;
        }
        let width = x.len() / rows.max(1);
        self.launch("scale_rows")
            .write("y", &y, rows * width, alignment(width))
            .read("x", x, rows * width, alignment(width))
            .read("row_weight", row_weight, rows, 4)
            .value(scale)
            .int("width", width)
            .run(Shape::line(rows, threads(width)));
    }

    fn cast(&self, to: Mut<'_, Self, bf16>, from: Ref<'_, Self, f32>) {
        let n = from.len();
        if self.keep(check_cast(to.len(), n)).is_none() {
            return;
        }
        self.launch("cast")
            .write("to", &to, n, VECTOR)
            .read("from", from, n, VECTOR)
            .value(n as u64)
            .run(Shape::line(self.element_blocks(n, 4), ELEMENT_THREADS));
    }
}
