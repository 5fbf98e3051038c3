//! SwiGLU, as written in `ops/mlp.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::gemm::{Gated, Gemm, Layout, SKINNY_ROWS, Target, Terms};
use super::launch::Shape;
use super::rows::{alignment, reads, threads};
use super::weights::Weight;
use crate::ops::linear::{Linear, LoraTerm, Write};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::mlp::{Mlp, check_gated, check_gated_backward};
use crate::ops::{Mut, Ref};

/// A block for each row and part of it that takes all its threads.
fn shape(rows: usize, width: usize) -> Shape {
    let block = threads(width);
    Shape { grid: (rows, reads(width).div_ceil(block), 1), block, shared: 0 }
}

impl Mlp for Cuda {
    fn swiglu(&self, h: Mut<'_, Self, bf16>, gate_up: Ref<'_, Self, bf16>, intermediate_size: usize) {
        let (width, alignment) = (intermediate_size, alignment(intermediate_size));
        let rows = h.len() / width.max(1);
        self.launch("swiglu")
            .write("h", &h, rows * width, alignment)
            .read("gate_up", gate_up, 2 * rows * width, alignment)
            .int("width", width)
            .run(shape(rows, width));
    }

    /// One launch, unless rows start anywhere or a few rows are kept. Rows of gate_up that are not kept are
    /// not written.
    fn gated(
        &self,
        h: Mut<'_, Self, bf16>,
        mut gate_up: Mut<'_, Self, bf16>,
        kept: usize,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
        intermediate_size: usize,
    ) {
        let wide = intermediate_size;
        let lengths = [h.len(), gate_up.len(), x.len()];
        let checked = check_gated(lengths, kept, [weight.columns(), weight.rows()], lora, wide);
        let Some(rows) = self.keep(checked) else { return };
        let matrix = Matrix::new(x, rows, weight.columns());
        if rows <= SKINNY_ROWS && kept == 0 {
            self.skinny_gated(h, x, weight, lora);
        } else if rows > SKINNY_ROWS && matrix.in_vectors() {
            let gate_up = MatrixMut::new(gate_up.slice(0..kept * 2 * wide), kept, 2 * wide);
            let Some(terms) = Terms::new(self, lora) else { return };
            let target = Target::Gated(Gated { h: MatrixMut::new(h, rows, wide), gate_up });
            let gemm = Gemm::new(Layout::NT, matrix, weight.matrix(), target);
            Gemm { terms: Some(&terms), ..gemm }.run(self);
        } else {
            self.linear(gate_up.reborrow(), x, weight, None, lora, Write::Overwrite);
            self.swiglu(h, gate_up.view(), wide);
        }
    }

    /// One launch on Hopper, where `dh` is not written.
    fn gated_backward(
        &self,
        mut dgate_up: Mut<'_, Self, bf16>,
        mut dh: Mut<'_, Self, bf16>,
        dy: Ref<'_, Self, bf16>,
        weight: &Weight,
        gate_up: Ref<'_, Self, bf16>,
        intermediate_size: usize,
    ) {
        let (wide, out) = (intermediate_size, weight.rows());
        let lengths = [dgate_up.len(), dh.len(), dy.len(), gate_up.len()];
        let checked = check_gated_backward(lengths, [weight.columns(), out], wide);
        let Some(rows) = self.keep(checked) else { return };
        let target = Target::Rounded(MatrixMut::new(dh.reborrow(), rows, wide));
        let gemm = Gemm::new(Layout::NN, Matrix::new(dy, rows, out), weight.matrix(), target);
        let to = MatrixMut::new(dgate_up.reborrow(), rows, 2 * wide);
        if gemm.gated_backward_sm90(self, &to, &Matrix::new(gate_up, rows, 2 * wide)) {
            return;
        }
        gemm.run(self);
        self.swiglu_backward(dgate_up, dh.view(), gate_up, wide);
    }

    fn swiglu_backward(
        &self,
        dgate_up: Mut<'_, Self, bf16>,
        dh: Ref<'_, Self, bf16>,
        gate_up: Ref<'_, Self, bf16>,
        intermediate_size: usize,
    ) {
        let (width, alignment) = (intermediate_size, alignment(intermediate_size));
        let rows = dh.len() / width.max(1);
        self.launch("swiglu_backward")
            .write("dgate_up", &dgate_up, 2 * rows * width, alignment)
            .read("dh", dh, rows * width, alignment)
            .read("gate_up", gate_up, 2 * rows * width, alignment)
            .int("width", width)
            .run(shape(rows, width));
    }
}
