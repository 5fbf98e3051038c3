//! Matrix products, as written in `ops/gemm.rs`: bf16 factors, sums in f32, results rounded once.

use half::bf16;

use super::Cuda;
use super::linear::Terms;
use super::product::{Layout, Residual, Target, TileProduct};
use super::weights::Weight;
use crate::ops::gemm::{
    BiasGradient, Gemm, LoraBackward, LoraDown, LoraTerm, Matrix, MatrixMut, Transpose, WeightGradient, Write,
};
use crate::ops::{Mut, Ref};

/// `x yᵀ` as a LoRA of all columns with rank 1.
fn outer_product<'a>([x, y]: [Ref<'a, Cuda, bf16>; 2], columns: usize) -> LoraTerm<'a, Cuda> {
    LoraTerm { column: 0, xa: x, b: y, out_features: columns, rank: 1 }
}

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

    fn affine(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        bias: Option<Ref<'_, Self, f32>>,
        outer: Option<[Ref<'_, Self, bf16>; 2]>,
    ) {
        let term = outer.map(|outer| outer_product(outer, b.rows));
        let Some(terms) = Terms::new(self, term.as_slice()) else { return };
        let product = TileProduct::new(Layout::NT, a, b, Target::Rounded(c));
        TileProduct { bias, terms: Some(&terms), ..product }.run(self);
    }

    fn affine_gradient(
        &self,
        dw_acc: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        outer: [Ref<'_, Self, bf16>; 2],
    ) {
        let term = [outer_product(outer, b.rows)];
        let Some(terms) = Terms::new(self, &term) else { return };
        let product = TileProduct::new(Layout::NT, a, b, Target::Added(dw_acc));
        TileProduct { terms: Some(&terms), ..product }.run(self);
    }

    fn weighted_product(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let product = TileProduct::new(Layout::TN, a, b, Target::Rounded(c));
        TileProduct { row_weight: Some(row_weight), ..product }.run(self);
    }

    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>) {
        self.products_of_rows(gradients);
    }

    fn bias_gradients(&self, gradients: Vec<BiasGradient<'_, Self>>) {
        self.sums_of_rows(gradients);
    }
}
