//! Learned keys and values, as written in `ops/prefix.rs`. Computed in f32, rounded once.

use half::bf16;

use super::gemm::alignment;
use super::launch::Shape;
use super::tile::ROW_THREADS;
use super::{Cuda, params};
use crate::ops::Dropout;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::prefix::{Prefix, check_backward, check_place};

/// Columns that a thread takes at once, where rows allow it.
const COLUMNS: usize = 4;

/// One block for each row; nothing for rows without columns.
fn shape(rows: usize, width: usize, vector: bool) -> Shape {
    let threads = width.div_ceil(if vector { COLUMNS } else { 1 }).next_multiple_of(32);
    Shape::line(if width == 0 { 0 } else { rows }, threads.min(ROW_THREADS))
}

impl Prefix for Cuda {
    fn place_prefix(
        &self,
        kv: MatrixMut<'_, Self, bf16>,
        prefix: Matrix<'_, Self, bf16>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        if self.keep(check_place(&kv, &prefix, dropout)).is_none() {
            return;
        }
        let vector = kv.cols.is_multiple_of(COLUMNS) && kv.in_vectors() && prefix.in_vectors();
        let launch = self.launch("place_prefix").write("kv", &kv.data, kv.extent(), alignment(vector)).read(
            "prefix",
            prefix.data,
            prefix.extent(),
            alignment(vector),
        );
        let mut mask = params::Mask::default();
        mask.pass(dropout, kv.rows, launch)
            .value(mask)
            .int("width", kv.cols)
            .int("kv_stride", kv.stride)
            .int("prefix_stride", prefix.stride)
            .value(i32::from(vector))
            .run(shape(kv.rows, kv.cols, vector));
    }

    fn prefix_backward(
        &self,
        dprefix_acc: MatrixMut<'_, Self, f32>,
        dkv: MatrixMut<'_, Self, bf16>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        if self.keep(check_backward(&dprefix_acc, &dkv, dropout)).is_none() {
            return;
        }
        let vector = dkv.cols.is_multiple_of(COLUMNS) && dprefix_acc.in_vectors() && dkv.in_vectors();
        let launch = self
            .launch("prefix_backward")
            .write("dprefix", &dprefix_acc.data, dprefix_acc.extent(), alignment(vector))
            .write("dkv", &dkv.data, dkv.extent(), alignment(vector));
        let mut mask = params::Mask::default();
        mask.pass(dropout, dkv.rows, launch)
            .value(mask)
            .int("width", dkv.cols)
            .int("dprefix_stride", dprefix_acc.stride)
            .int("dkv_stride", dkv.stride)
            .value(i32::from(vector))
            .run(shape(dkv.rows, dkv.cols, vector));
    }
}
