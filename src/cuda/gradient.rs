//! Sums of gradients that are no products.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::product::{KernelProduct, alignment, partial_stride};
use super::tile::{COLUMN_SUM_THREADS, COLUMN_SUM_WIDTH, ELEMENT_THREADS};
use crate::ops::gemm::{Matrix, MatrixMut};
use crate::ops::{Mut, Ref};

/// Rows that are worth a block of their own.
const ROWS_OF_PART: usize = 512;

impl Cuda {
    /// `db += Σ row_weight · dy`.
    pub(super) fn column_sums(
        &self,
        db: Mut<'_, Self, f32>,
        dy: Ref<'_, Self, bf16>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let (n, rows) = (db.len(), row_weight.len());
        let (stride, blocks) = (partial_stride(n), n.div_ceil(COLUMN_SUM_WIDTH));
        if n * rows == 0 {
            return;
        }
        let dy = Matrix::new(dy.slice(0..rows * n), rows, n);
        let at_once = 8 * self.info().multiprocessors as usize;
        let parts = (at_once / blocks).clamp(1, rows.div_ceil(ROWS_OF_PART));
        let mut scratch = self.scratch();
        let Some(partials) = scratch.take::<f32>(self, parts * stride) else { return };
        self.launch("column_sums")
            .write("partials", &partials, parts * stride, VECTOR)
            .read("dy", dy.data, rows * n, alignment(dy.in_vectors()))
            .read("row_weight", row_weight, rows, 4)
            .value(rows as i32)
            .value(n as i32)
            .value(stride as i32)
            .value(i32::from(dy.in_vectors()))
            .run(Shape { grid: (blocks, parts, 1), block: COLUMN_SUM_THREADS, shared: 0 });
        self.launch("gemm_reduce")
            .write("db", &db, n, 4)
            .read("partials", partials.view(), parts * stride, VECTOR)
            .value(0u64)
            .value(0u64)
            .value(KernelProduct::one_row(n))
            .value(parts as i32)
            .value(stride as i32)
            .run(Shape::line((stride / 8).div_ceil(ELEMENT_THREADS), ELEMENT_THREADS));
    }

    /// `dw += x`.
    pub(super) fn add_to_gradient(&self, dw: MatrixMut<'_, Self, f32>, x: Matrix<'_, Self, bf16>) {
        let (rows, cols) = (x.rows, x.cols);
        assert_eq!((dw.rows, dw.cols), (rows, cols), "accumulate: shapes");
        let vector = dw.in_vectors() && x.in_vectors();
        self.launch("accumulate")
            .write("dw", &dw.data, dw.extent(), alignment(vector).max(4))
            .read("x", x.data, x.extent(), alignment(vector))
            .value(rows as i32)
            .value(cols as i32)
            .value(dw.stride as i32)
            .value(x.stride as i32)
            .value(i32::from(vector))
            .run(Shape::line((rows * cols.div_ceil(8)).div_ceil(ELEMENT_THREADS), ELEMENT_THREADS));
    }
}
