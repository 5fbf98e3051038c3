//! Matrix products, as written in `ops/gemm.rs`: bf16 factors, sums in f32, results rounded once.

use half::bf16;

use super::Cuda;
use super::product::{Layout, Residual, Target, TileProduct};
use super::weights::Weight;
use crate::ops::gemm::{Gemm, LoraBackward, LoraDown, LoraTerm, Matrix, MatrixMut, Transpose, Write};
use crate::ops::{Mut, Ref};

impl Gemm for Cuda {
    fn linear(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    ) {
        self.linear_layer(y, x, weight, bias, lora, write);
    }

    fn linear_backward(&self, dx: Mut<'_, Self, bf16>, dy: Ref<'_, Self, bf16>, weight: &Weight) {
        let (width, out) = (weight.columns(), weight.rows());
        let rows = dx.len() / width.max(1);
        let dx = Target::Rounded(MatrixMut::new(dx, rows, width));
        TileProduct::new(Layout::NN, Matrix::new(dy, rows, out), weight.matrix(), dx).run(self);
    }

    fn lora_down(&self, adapters: Vec<LoraDown<'_, Self>>, x: Ref<'_, Self, bf16>, rank: usize, scale: f32) {
        self.first_factors(adapters, x, rank, scale);
    }

    fn lora_backward(
        &self,
        dx_acc: Option<Mut<'_, Self, bf16>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, bf16>,
        scale: f32,
    ) {
        self.factor_gradients(dx_acc, adapters, x, scale);
    }

    fn matmul(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    ) {
        let layout = match transpose {
            Transpose::None => Layout::NN,
            Transpose::Second => Layout::NT,
            Transpose::First => Layout::TN,
        };
        let residual = if beta == 0.0 { Residual::Nothing } else { Residual::Target(beta) };
        let product = TileProduct::new(layout, a, b, Target::Rounded(c));
        TileProduct { alpha, residual, ..product }.run(self);
    }

    fn weight_gradient(
        &self,
        dw_acc: MatrixMut<'_, Self, f32>,
        dy: Matrix<'_, Self, bf16>,
        x: Matrix<'_, Self, bf16>,
        row_weight: Option<Ref<'_, Self, f32>>,
    ) {
        let product = TileProduct::new(Layout::TN, dy, x, Target::Added(dw_acc));
        TileProduct { row_weight, ..product }.run(self);
    }

    fn bias_gradient(
        &self,
        db_acc: Mut<'_, Self, f32>,
        dy: Ref<'_, Self, bf16>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        self.column_sums(db_acc, dy, row_weight);
    }

    fn accumulate(&self, dw_acc: MatrixMut<'_, Self, f32>, x: Matrix<'_, Self, bf16>) {
        self.add_to_gradient(dw_acc, x);
    }
}
