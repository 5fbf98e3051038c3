//! Products of activations and gradients of trainable weights, as written in `ops/matmul.rs`, on the products
//! of [`super::blas`].

use super::blas::{MatRef, gemm};
use super::matrix::{operand, target};
use super::{Cpu, math, parallel};
use crate::ops::Ref;
use crate::ops::contract::expect_exactly;
use crate::ops::matmul::{BiasGradient, Matmul, Transpose, WeightGradient, check_operands, check_vectors};
use crate::ops::matrix::{Matrix, MatrixMut};

impl Cpu {
    /// Rows times their weights, for `f`.
    fn with_weights(
        &self,
        x: Matrix<'_, Self, f32>,
        row_weight: Option<Ref<'_, Self, f32>>,
        f: impl FnOnce(MatRef<'_>),
    ) {
        let Some(row_weight) = row_weight else { return f(operand(x)) };
        let (source, row_weight) = (x.data.as_slice(), row_weight.as_slice());
        let mut weighted = self.scratch.take(x.rows * x.cols);
        parallel::rows(&mut weighted, x.cols, |i, row| {
            row.copy_from_slice(&source[i * x.stride..][..x.cols]);
            math::scale(row, row_weight[i]);
        });
        f(MatRef::new(&*weighted, x.rows, x.cols));
    }
}

/// `c += x yᵀ`
fn add_outer(c: &mut MatrixMut<'_, Cpu, f32>, [x, y]: [Ref<'_, Cpu, f32>; 2]) {
    let (cols, stride) = (c.cols, c.stride);
    let rows = c.data.reborrow().into_slice().chunks_mut(stride);
    rows.zip(x.as_slice()).for_each(|(row, &x)| math::axpy(&mut row[..cols], x, y.as_slice()));
}

impl Matmul for Cpu {
    fn matmul(
        &self,
        c: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, f32>,
        b: Matrix<'_, Self, f32>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    ) {
        if !self.accepts(check_operands("matmul", &c, &a, &b, transpose)) {
            return;
        }
        let (a, b) = match transpose {
            Transpose::None => (operand(a), operand(b)),
            Transpose::Second => (operand(a), operand(b).t()),
            Transpose::First => (operand(a).t(), operand(b)),
        };
        gemm(target(c), a, b, alpha, beta);
    }

    fn affine(
        &self,
        mut c: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, f32>,
        b: Matrix<'_, Self, f32>,
        bias: Option<Ref<'_, Self, f32>>,
        outer: Option<[Ref<'_, Self, f32>; 2]>,
    ) {
        let checked = check_operands("affine", &c, &a, &b, Transpose::Second)
            .and_then(|()| check_vectors::<Self>("affine", [c.rows, c.cols], bias, outer));
        if !self.accepts(checked) || c.rows * c.cols == 0 {
            return;
        }
        let (rows, cols, stride) = (c.rows, c.cols, c.stride);
        for row in c.data.reborrow().into_slice().chunks_mut(stride).take(rows) {
            match bias {
                Some(bias) => row[..cols].copy_from_slice(bias.as_slice()),
                None => row[..cols].fill(0.0),
            }
        }
        if let Some(outer) = outer {
            add_outer(&mut c, outer);
        }
        gemm(target(c), operand(a), operand(b).t(), 1.0, 1.0);
    }

    fn affine_gradient(
        &self,
        mut dw_acc: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, f32>,
        b: Matrix<'_, Self, f32>,
        outer: [Ref<'_, Self, f32>; 2],
    ) {
        let checked = check_operands("affine_gradient", &dw_acc, &a, &b, Transpose::Second)
            .and_then(|()| check_vectors("affine_gradient", [dw_acc.rows, dw_acc.cols], None, Some(outer)));
        if !self.accepts(checked) || dw_acc.rows * dw_acc.cols == 0 {
            return;
        }
        add_outer(&mut dw_acc, outer);
        gemm(target(dw_acc), operand(a), operand(b).t(), 1.0, 1.0);
    }

    fn weighted_product(
        &self,
        c: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, f32>,
        b: Matrix<'_, Self, f32>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let checked = check_operands("weighted_product", &c, &a, &b, Transpose::First)
            .and_then(|()| expect_exactly("weighted_product", "row_weight", row_weight.len(), Some(a.rows)));
        if !self.accepts(checked) {
            return;
        }
        self.with_weights(a, Some(row_weight), |a| gemm(target(c), a.t(), operand(b), 1.0, 0.0));
    }

    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>) {
        if !self.accepts(gradients.iter().try_for_each(WeightGradient::check)) {
            return;
        }
        for WeightGradient { dw_acc, dy, x, row_weight } in gradients {
            self.with_weights(dy, row_weight, |dy| gemm(target(dw_acc), dy.t(), operand(x), 1.0, 1.0));
        }
    }

    fn bias_gradients(&self, gradients: Vec<BiasGradient<'_, Self>>) {
        if !self.accepts(gradients.iter().try_for_each(BiasGradient::check)) {
            return;
        }
        for BiasGradient { db_acc, dy, row_weight } in gradients {
            let db = db_acc.into_slice();
            let rows = dy.data.as_slice().chunks(dy.stride.max(1));
            for (row, &weight) in rows.zip(row_weight.as_slice()) {
                math::axpy(db, weight, &row[..db.len()]);
            }
        }
    }
}
