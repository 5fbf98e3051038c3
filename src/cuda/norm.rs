//! RMSNorm, as written in `ops/norm.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::alignment;
use super::tile::ROW_THREADS;
use crate::ops::norm::Norm;
use crate::ops::{Mut, Ref};

/// Fewest rows of a block, where there are enough for all multiprocessors: copying the weight to shared
/// memory is then a small part of its traffic.
const ROWS_OF_BLOCK: usize = 24;

impl Cuda {
    /// Few rows are spread over all multiprocessors; many rows are taken by persistent blocks.
    fn norm_shape(&self, rows: usize, width: usize) -> Shape {
        let multiprocessors = self.info().multiprocessors as usize;
        let warps = rows.div_ceil(multiprocessors).clamp(1, ROW_THREADS / 32);
        let most = (rows / ROWS_OF_BLOCK).clamp(multiprocessors, 2 * multiprocessors);
        let blocks = rows.div_ceil(warps).min(most);
        Shape { shared: (width + 32) * size_of::<f32>(), ..Shape::line(blocks, 32 * warps) }
    }
}

impl Norm for Cuda {
    fn rms_norm(
        &self,
        y: Mut<'_, Self, bf16>,
        rstd: Mut<'_, Self, f32>,
        x: Ref<'_, Self, bf16>,
        weight: Ref<'_, Self, f32>,
        eps: f32,
    ) {
        let (rows, width) = (rstd.len(), weight.len());
        let alignment = alignment(width);
        self.launch("rms_norm")
            .write("y", &y, rows * width, alignment)
            .write("rstd", &rstd, rows, 4)
            .read("x", x, rows * width, alignment)
            .read("weight", weight, width, alignment)
            .int("rows", rows)
            .int("width", width)
            .value(eps)
            .run(self.norm_shape(rows, width));
    }

    fn rms_norm_backward(
        &self,
        dx_acc: Mut<'_, Self, bf16>,
        dy: Ref<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        rstd: Ref<'_, Self, f32>,
        weight: Ref<'_, Self, f32>,
    ) {
        let (rows, width) = (rstd.len(), weight.len());
        let alignment = alignment(width);
        self.launch("rms_norm_backward")
            .write("dx_acc", &dx_acc, rows * width, alignment)
            .read("dy", dy, rows * width, alignment)
            .read("x", x, rows * width, alignment)
            .read("rstd", rstd, rows, 4)
            .read("weight", weight, width, alignment)
            .int("rows", rows)
            .int("width", width)
            .run(self.norm_shape(rows, width));
    }
}
