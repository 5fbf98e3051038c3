//! RMSNorm, as written in `ops/norm.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::{alignment, threads};
use crate::ops::norm::Norm;
use crate::ops::{Mut, Ref};

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
            .value(width as i32)
            .value(eps)
            .run(Shape::line(rows, threads(width)));
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
            .value(width as i32)
            .run(Shape::line(rows, threads(width)));
    }
}
