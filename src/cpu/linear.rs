//! Frozen linear layers with LoRA, as written in `ops/linear.rs`, on the products of [`super::blas`].

use super::blas::{MatMut, MatRef, gemm};
use super::dropout::dropout_row;
use super::matrix::operand;
use super::weight::Weight;
use super::{Cpu, math, parallel};
use crate::ops::linear::{
    Linear, LoraBackward, LoraDown, LoraTerm, Write, check_down, check_linear, check_lora_backward,
    check_rows,
};
use crate::ops::matrix::Matrix;
use crate::ops::{Dropout, Mut, Ref};

/// Columns `column .. column + n` of a row-major matrix of `width`.
fn columns(data: &mut [f32], rows: usize, width: usize, column: usize, n: usize) -> MatMut<'_> {
    let from = column.min(data.len());
    MatMut::strided(&mut data[from..], rows, n, width)
}

impl Cpu {
    /// `dropout(x)`, in scratch memory unless nothing is dropped.
    fn with_dropout<R>(
        &self,
        x: &[f32],
        width: usize,
        dropout: Option<Dropout<'_, Cpu>>,
        f: impl FnOnce(&[f32]) -> R,
    ) -> R {
        let Some(dropout) = dropout else { return f(x) };
        let row_keys = dropout.row_keys.as_slice();
        let mut dropped = self.scratch.take(x.len());
        parallel::rows(&mut dropped, width, |i, row| {
            row.copy_from_slice(&x[i * width..][..width]);
            dropout_row(row, dropout.key, row_keys[i]);
        });
        f(&dropped)
    }

    fn backward_of_adapter(
        &self,
        dx_acc: Option<Mut<'_, Self, f32>>,
        args: LoraBackward<'_, Self>,
        x: Ref<'_, Self, f32>,
        scale: f32,
    ) {
        let dy = operand(args.dy);
        let (rows, out) = (args.dy.rows, args.dy.cols);
        let width = x.len() / rows;
        let rank = args.a.len() / width;
        let a = MatRef::new(args.a.as_slice(), rank, width);
        let b = MatRef::new(args.b.as_slice(), out, rank);
        let xa = MatRef::new(args.xa.as_slice(), rows, rank);
        gemm(MatMut::new(args.db_acc.into_slice(), out, rank), dy.t(), xa, 1.0, 1.0);

        let mut dxa = self.scratch.take(rows * rank);
        gemm(MatMut::new(&mut dxa, rows, rank), dy, b, scale, 0.0);
        let dxa = MatRef::new(&*dxa, rows, rank);
        let da = MatMut::new(args.da_acc.into_slice(), rank, width);
        self.with_dropout(x.as_slice(), width, args.dropout, |x| {
            gemm(da, dxa.t(), MatRef::new(x, rows, width), 1.0, 1.0);
        });

        let Some(dx) = dx_acc.map(Mut::into_slice) else { return };
        let Some(dropout) = args.dropout else {
            return gemm(MatMut::new(dx, rows, width), dxa, a, 1.0, 1.0);
        };
        let row_keys = dropout.row_keys.as_slice();
        let mut dropped = self.scratch.take(rows * width);
        gemm(MatMut::new(&mut dropped, rows, width), dxa, a, 1.0, 0.0);
        parallel::rows2(dx, width, &mut dropped, width, |i, dx, dropped| {
            dropout_row(dropped, dropout.key, row_keys[i]);
            math::axpy(dx, 1.0, dropped);
        });
    }
}

impl Linear for Cpu {
    fn linear(
        &self,
        y: Mut<'_, Self, f32>,
        x: Ref<'_, Self, f32>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    ) {
        let (inputs, width) = (weight.in_features(), weight.out_features());
        let beside = [bias.map(Ref::len), write.residual().map(Ref::len)];
        let checked = check_linear([y.len(), x.len()], [inputs, width], beside, lora);
        if !self.accepts(checked) || x.is_empty() {
            return;
        }
        let rows = x.len() / inputs;
        let x = MatRef::new(x.as_slice(), rows, weight.in_features());
        let y = y.into_slice();
        let beta = match write {
            Write::Overwrite => 0.0,
            Write::Residual(residual) => {
                y.copy_from_slice(residual.as_slice());
                1.0
            }
        };
        for (column, part) in weight.parts() {
            gemm(columns(y, rows, width, column, part.rows()), x, part.t(), 1.0, beta);
        }
        for term in lora {
            let rows = term.xa.len() / term.rank.max(1);
            let xa = MatRef::new(term.xa.as_slice(), rows, term.rank);
            let b = MatRef::new(term.b.as_slice(), term.out_features, term.rank);
            gemm(columns(y, rows, width, term.column, term.out_features), xa, b.t(), 1.0, 1.0);
        }
        if let Some(bias) = bias {
            let bias = bias.as_slice();
            parallel::rows(y, width, |_, row| math::axpy(row, 1.0, bias));
        }
    }

    fn linear_backward(&self, dx: Mut<'_, Self, f32>, dy: Ref<'_, Self, f32>, weight: &Weight) {
        let (inputs, width) = (weight.in_features(), weight.out_features());
        let checked = check_rows("linear_backward", [("dx", dx.len()), ("dy", dy.len())], [inputs, width]);
        if !self.accepts(checked.map(|_| ())) || dx.is_empty() {
            return;
        }
        let (dx, rows) = (dx.into_slice(), dy.len() / width.max(1));
        let dy = Matrix::new(dy, rows, width);
        for (i, (column, part)) in weight.parts().enumerate() {
            let beta = if i == 0 { 0.0 } else { 1.0 };
            let dx = MatMut::new(dx, rows, weight.in_features());
            gemm(dx, operand(dy.columns(column, part.rows())), part, 1.0, beta);
        }
    }

    fn lora_down(&self, adapters: Vec<LoraDown<'_, Self>>, x: Ref<'_, Self, f32>, rank: usize, scale: f32) {
        if !self.accepts(check_down(&adapters, x.len(), rank)) {
            return;
        }
        for LoraDown { xa, a, dropout } in adapters {
            let xa = xa.into_slice();
            let (rows, width) = (xa.len() / rank, a.len() / rank);
            self.with_dropout(x.as_slice(), width, dropout, |x| {
                let a = MatRef::new(a.as_slice(), rank, width);
                gemm(MatMut::new(xa, rows, rank), MatRef::new(x, rows, width), a.t(), scale, 0.0);
            });
        }
    }

    fn lora_backward(
        &self,
        mut dx_acc: Option<Mut<'_, Self, f32>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, f32>,
        scale: f32,
    ) {
        if !self.accepts(check_lora_backward(dx_acc.as_ref().map(Mut::len), &adapters, x.len()))
            || x.is_empty()
        {
            return;
        }
        for adapter in adapters {
            self.backward_of_adapter(dx_acc.as_mut().map(Mut::reborrow), adapter, x, scale);
        }
    }
}
