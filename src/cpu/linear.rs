//! Linear layers with LoRA, as written in `ops/gemm.rs`, on the products of [`super::gemm`].

use super::dropout::dropout_row;
use super::gemm::{Elems, MatMut, MatRef, gemm};
use super::{Cpu, math, parallel};
use crate::error::{Error, Result};
use crate::ops::gemm::{
    BiasGradient, Gemm, LoraBackward, LoraDown, LoraTerm, Matrix, MatrixMut, Transpose, WeightGradient, Write,
};
use crate::ops::{Dropout, Dtype, Mut, Ref, TensorView};

/// Frozen matrices with the same number of columns, read in place from the mapped file.
pub struct Weight {
    parts: Vec<TensorView>,
    in_features: usize,
}

impl Weight {
    pub(super) fn new(parts: &[TensorView]) -> Result<Self> {
        let in_features = parts.first().map_or(0, |p| p.shape()[p.shape().len() - 1]);
        for part in parts {
            if part.shape().len() != 2 || part.shape()[1] != in_features {
                return Err(Error::internal(format!(
                    "{}: shape {:?} cannot be stacked on {in_features} columns",
                    part.name(),
                    part.shape()
                )));
            }
            elements(part)?;
        }
        Ok(Weight { parts: parts.to_vec(), in_features })
    }

    /// Number of columns of every part.
    pub(super) fn in_features(&self) -> usize {
        self.in_features
    }

    pub(super) fn out_features(&self) -> usize {
        self.parts.iter().map(|p| p.shape()[0]).sum()
    }

    /// Every part with its first output column.
    fn parts(&self) -> impl Iterator<Item = (usize, MatRef<'_>)> {
        self.parts.iter().scan(0, |column, part| {
            let first = *column;
            *column += part.shape()[0];
            Some((first, MatRef::new(checked_elements(part), part.shape()[0], self.in_features)))
        })
    }

    /// Writes row `row` of the stacked matrix as f32.
    pub(super) fn read_row(&self, row: usize, out: &mut [f32]) {
        let mut row = row;
        for part in &self.parts {
            if row < part.shape()[0] {
                let range = row * self.in_features..(row + 1) * self.in_features;
                match checked_elements(part) {
                    Elems::F32(x) => out.copy_from_slice(&x[range]),
                    Elems::Bf16(x) => convert(out, &x[range], |x| x.to_f32()),
                    Elems::F16(x) => convert(out, &x[range], |x| x.to_f32()),
                }
                return;
            }
            row -= part.shape()[0];
        }
        panic!("row {row} lies past the end of the weight");
    }
}

fn convert<T: Copy>(out: &mut [f32], from: &[T], f: impl Fn(T) -> f32) {
    for (out, &x) in out.iter_mut().zip(from) {
        *out = f(x);
    }
}

fn elements(view: &TensorView) -> Result<Elems<'_>> {
    Ok(match view.dtype() {
        Dtype::F32 => Elems::F32(view.as_f32()?),
        Dtype::Bf16 => Elems::Bf16(view.as_bf16()?),
        Dtype::F16 => Elems::F16(view.as_f16()?),
    })
}

/// The elements of a part; `Weight::new` has read them once, so this cannot fail.
fn checked_elements(view: &TensorView) -> Elems<'_> {
    elements(view).unwrap_or(Elems::F32(&[]))
}

/// A device matrix as an operand.
fn operand(m: Matrix<'_, Cpu, f32>) -> MatRef<'_> {
    MatRef::strided(m.data.as_slice(), m.rows, m.cols, m.stride)
}

fn target(m: MatrixMut<'_, Cpu, f32>) -> MatMut<'_> {
    let (rows, cols, stride) = (m.rows, m.cols, m.stride);
    MatMut::strided(m.data.into_slice(), rows, cols, stride)
}

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

    fn backward_of_adapter(
        &self,
        dx_acc: Option<Mut<'_, Self, f32>>,
        args: LoraBackward<'_, Self>,
        x: Ref<'_, Self, f32>,
        scale: f32,
    ) {
        let dy = operand(args.dy);
        let (rows, out) = (args.dy.rows, args.dy.cols);
        let rank = args.b.len() / out;
        let width = args.a.len() / rank;
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

/// `c += x yᵀ`
fn add_outer(c: &mut MatrixMut<'_, Cpu, f32>, [x, y]: [Ref<'_, Cpu, f32>; 2]) {
    let (cols, stride) = (c.cols, c.stride);
    let rows = c.data.reborrow().into_slice().chunks_mut(stride);
    rows.zip(x.as_slice()).for_each(|(row, &x)| math::axpy(&mut row[..cols], x, y.as_slice()));
}

impl Gemm for Cpu {
    fn linear(
        &self,
        y: Mut<'_, Self, f32>,
        x: Ref<'_, Self, f32>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    ) {
        let (width, rows) = (weight.out_features(), x.len() / weight.in_features);
        let x = MatRef::new(x.as_slice(), rows, weight.in_features);
        let y = y.into_slice();
        assert_eq!(y.len(), rows * width, "linear: output of {rows} × {width}");
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
            let rows = term.xa.len() / term.rank;
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
        let (width, dx) = (weight.out_features(), dx.into_slice());
        let rows = dx.len() / weight.in_features;
        let dy = Matrix::new(dy, rows, width);
        for (i, (column, part)) in weight.parts().enumerate() {
            let beta = if i == 0 { 0.0 } else { 1.0 };
            let dx = MatMut::new(dx, rows, weight.in_features);
            gemm(dx, operand(dy.columns(column, part.rows())), part, 1.0, beta);
        }
    }

    fn lora_down(&self, adapters: Vec<LoraDown<'_, Self>>, x: Ref<'_, Self, f32>, rank: usize, scale: f32) {
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
        for adapter in adapters {
            self.backward_of_adapter(dx_acc.as_mut().map(Mut::reborrow), adapter, x, scale);
        }
    }

    fn matmul(
        &self,
        c: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, f32>,
        b: Matrix<'_, Self, f32>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    ) {
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
        let (cols, stride) = (c.cols, c.stride);
        for row in c.data.reborrow().into_slice().chunks_mut(stride) {
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
        self.with_weights(a, Some(row_weight), |a| gemm(target(c), a.t(), operand(b), 1.0, 0.0));
    }

    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>) {
        for WeightGradient { dw_acc, dy, x, row_weight } in gradients {
            self.with_weights(dy, row_weight, |dy| gemm(target(dw_acc), dy.t(), operand(x), 1.0, 1.0));
        }
    }

    fn bias_gradients(&self, gradients: Vec<BiasGradient<'_, Self>>) {
        for BiasGradient { db_acc, dy, row_weight } in gradients {
            let db = db_acc.into_slice();
            let rows = dy.data.as_slice().chunks(dy.stride.max(1));
            for (row, &weight) in rows.zip(row_weight.as_slice()) {
                math::axpy(db, weight, &row[..db.len()]);
            }
        }
    }
}
