//! The gated feed-forward of a block.

use super::linear::{Linear, LoraTerm, Write};
use super::{Device, Mut, Ref};

/// SwiGLU, `h = silu(gate) · up`, on the stacked output `[gate | up]` of the fused projection.
pub trait Mlp: Device + Linear {
    /// h `[rows, intermediate_size]`, gate_up `[rows, 2 · intermediate_size]`.
    fn swiglu(
        &self,
        h: Mut<'_, Self, Self::Act>,
        gate_up: Ref<'_, Self, Self::Act>,
        intermediate_size: usize,
    );

    /// [`Linear::linear`] without a bias, then [`Mlp::swiglu`]: h `[rows, intermediate_size]`, x `[rows,
    /// in]`, W `[2 · intermediate_size, in]`. gate_up `[rows, 2 · intermediate_size]` is the intermediate
    /// result; its first `kept` rows are saved for the backward, the others may hold anything afterwards.
    #[allow(clippy::too_many_arguments)]
    fn gated(
        &self,
        h: Mut<'_, Self, Self::Act>,
        mut gate_up: Mut<'_, Self, Self::Act>,
        kept: usize,
        x: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
        lora: &[LoraTerm<'_, Self>],
        intermediate_size: usize,
    ) {
        let _ = kept; // all rows are kept
        self.linear(gate_up.reborrow(), x, weight, None, lora, Write::Overwrite);
        self.swiglu(h, gate_up.view(), intermediate_size);
    }

    /// dgate_up `[rows, 2 · intermediate_size]` from dh `[rows, intermediate_size]`.
    fn swiglu_backward(
        &self,
        dgate_up: Mut<'_, Self, Self::Act>,
        dh: Ref<'_, Self, Self::Act>,
        gate_up: Ref<'_, Self, Self::Act>,
        intermediate_size: usize,
    );
}
