//! Frozen linear layers with LoRA, as written in `ops/linear.rs`: bf16 factors, sums in f32, results rounded
//! once.

mod lora;

use half::bf16;

use super::Cuda;
use super::gemm::{Gemm, Layout, Residual, SKINNY_ROWS, Target, Terms};
use super::weights::Weight;
use crate::ops::linear::{
    Linear, LoraBackward, LoraDown, LoraTerm, Write, check_down, check_linear, check_lora_backward,
    check_rows,
};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Mut, Ref};

impl Linear for Cuda {
    fn linear(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    ) {
        let (width, out) = (weight.columns(), weight.rows());
        let beside = [bias.map(Ref::len), write.residual().map(Ref::len)];
        if self.keep(check_linear([y.len(), x.len()], [width, out], beside, lora)).is_none() {
            return;
        }
        let rows = x.len() / width.max(1);
        let (x, y) = (Matrix::new(x, rows, width), MatrixMut::new(y, rows, out));
        let residual = write.residual().map(|residual| Matrix::new(residual, rows, out));
        let Some(terms) = Terms::new(self, lora) else { return };
        if rows <= SKINNY_ROWS {
            return self.skinny_linear(y, x, weight, bias, &terms, residual);
        }
        let gemm = Gemm::new(Layout::NT, x, weight.matrix(), Target::Rounded(y));
        let residual = residual.map_or(Residual::Nothing, Residual::Other);
        Gemm { bias, terms: Some(&terms), residual, ..gemm }.run(self);
    }

    fn linear_backward(&self, dx: Mut<'_, Self, bf16>, dy: Ref<'_, Self, bf16>, weight: &Weight) {
        let (width, out) = (weight.columns(), weight.rows());
        let rows = check_rows("linear_backward", [("dx", dx.len()), ("dy", dy.len())], [width, out]);
        let Some(rows) = self.keep(rows) else { return };
        let dx = Target::Rounded(MatrixMut::new(dx, rows, width));
        Gemm::new(Layout::NN, Matrix::new(dy, rows, out), weight.matrix(), dx).run(self);
    }

    fn lora_down(&self, adapters: Vec<LoraDown<'_, Self>>, x: Ref<'_, Self, bf16>, rank: usize, scale: f32) {
        if self.keep(check_down(&adapters, x.len(), rank)).is_some() {
            self.lora_down_projections(adapters, x, rank, scale);
        }
    }

    fn lora_backward(
        &self,
        dx_acc: Option<Mut<'_, Self, bf16>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, bf16>,
        scale: f32,
    ) {
        if self.keep(check_lora_backward(dx_acc.as_ref().map(Mut::len), &adapters, x.len())).is_some() {
            self.lora_gradients(dx_acc, adapters, x, scale);
        }
    }
}
