//! SwiGLU, as written in `ops/mlp.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::linear::FEW_ROWS;
use super::rows::{alignment, reads, threads};
use super::weights::Weight;
use crate::ops::gemm::{Gemm, LoraTerm, Write};
use crate::ops::mlp::Mlp;
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
            .value(width as i32)
            .run(shape(rows, width));
    }

    /// Up to `FEW_ROWS` rows take one launch, and `gate_up` is left alone.
    fn gated(
        &self,
        h: Mut<'_, Self, bf16>,
        mut gate_up: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
        intermediate_size: usize,
    ) {
        if h.len() / intermediate_size.max(1) <= FEW_ROWS {
            return self.gated_layer(h, x, weight, lora);
        }
        self.linear(gate_up.reborrow(), x, weight, None, lora, Write::Overwrite);
        self.swiglu(h, gate_up.view(), intermediate_size);
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
            .value(width as i32)
            .run(shape(rows, width));
    }
}
