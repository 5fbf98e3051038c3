//! Embedding tables, as written in `ops/embedding.rs`.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::rows::{alignment, threads};
use super::tile::{SCATTER_ROWS, SCATTER_THREADS, SORT_THREADS};
use super::weights::Weight;
use crate::ops::embedding::Embedding;
use crate::ops::{Mut, Ref};

impl Embedding for Cuda {
    fn embed(&self, out: Mut<'_, Self, bf16>, table: &Weight, ids: Ref<'_, Self, u32>) {
        let (rows, width) = (ids.len(), table.columns());
        self.launch("embed")
            .write("out", &out, rows * width, alignment(width))
            .read("table", table.matrix().data, table.matrix().extent(), VECTOR)
            .read("ids", ids, rows, 4)
            .refusal()
            .int("width", width)
            .int("stride", table.stride())
            .int("table", table.rows())
            .run(Shape::line(rows, threads(width)));
    }

    fn gather(
        &self,
        out: Mut<'_, Self, bf16>,
        table: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        width: usize,
    ) {
        let rows = ids.len();
        self.launch("gather")
            .write("out", &out, rows * width, alignment(width))
            .read("table", table, table.len(), alignment(width))
            .read("ids", ids, rows, 4)
            .refusal()
            .int("width", width)
            .int("table", table.len() / width.max(1))
            .run(Shape::line(rows, threads(width)));
    }

    fn scatter_add(
        &self,
        dtable_acc: Mut<'_, Self, f32>,
        dout: Ref<'_, Self, bf16>,
        ids: Ref<'_, Self, u32>,
        row_weight: Ref<'_, Self, f32>,
        width: usize,
    ) {
        let rows = ids.len();
        let mut scratch = self.scratch();
        let Some(sorted) = scratch.take::<u32>(self, 3 * rows) else { return };
        let (order, rest) = sorted.split_at(rows);
        let (sorted_ids, sorted_weights) = rest.split_at(rows);
        let sorted_weights = sorted_weights.cast::<f32>();
        self.launch("sort_rows")
            .write("order", &order, rows, 4)
            .write("sorted_ids", &sorted_ids, rows, 4)
            .write("sorted_weights", &sorted_weights, rows, 4)
            .read("ids", ids, rows, 4)
            .read("row_weight", row_weight, rows, 4)
            .refusal()
            .int("rows", rows)
            .int("dtable", dtable_acc.len() / width.max(1))
            .run(Shape::line(1, SORT_THREADS));
        let alignment = if width.is_multiple_of(4) { VECTOR } else { 1 };
        self.launch("scatter_add")
            .write("dtable", &dtable_acc, dtable_acc.len(), alignment)
            .read("dout", dout, rows * width, alignment)
            .read("order", order.view(), rows, 4)
            .read("ids", sorted_ids.view(), rows, 4)
            .read("weights", sorted_weights.view(), rows, 4)
            .int("rows", rows)
            .int("width", width)
            .int("dtable", dtable_acc.len() / width.max(1))
            .run(Shape::line(rows.div_ceil(SCATTER_ROWS * SCATTER_THREADS / 32), SCATTER_THREADS));
    }
}
