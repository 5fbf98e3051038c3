//! Element-wise operations, as written in `ops/elementwise.rs`.

use super::{Cpu, math, parallel};
use crate::ops::elementwise::{Elementwise, check_add, check_cast, check_scale_rows};
use crate::ops::{Mut, Ref};

impl Elementwise for Cpu {
    fn add(&self, y_acc: Mut<'_, Self, f32>, x: Ref<'_, Self, f32>) {
        if !self.accepts(check_add(y_acc.len(), x.len())) {
            return;
        }
        let x = x.as_slice();
        const CHUNK: usize = 1 << 14;
        parallel::rows(y_acc.into_slice(), CHUNK, |i, y| math::axpy(y, 1.0, &x[i * CHUNK..][..y.len()]));
    }

    fn scale_rows(
        &self,
        y: Mut<'_, Self, f32>,
        x: Ref<'_, Self, f32>,
        row_weight: Ref<'_, Self, f32>,
        scale: f32,
    ) {
        if !self.accepts(check_scale_rows(y.len(), x.len(), row_weight.len())) || x.is_empty() {
            return;
        }
        let (x, row_weight) = (x.as_slice(), row_weight.as_slice());
        let width = x.len() / row_weight.len();
        parallel::rows(y.into_slice(), width, |i, y| {
            y.copy_from_slice(&x[i * width..][..width]);
            math::scale(y, scale * row_weight[i]);
        });
    }

    fn cast(&self, to: Mut<'_, Self, f32>, from: Ref<'_, Self, f32>) {
        if self.accepts(check_cast(to.len(), from.len())) {
            to.into_slice().copy_from_slice(from.as_slice());
        }
    }
}
