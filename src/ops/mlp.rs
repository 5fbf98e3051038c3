//! The gated feed-forward of a block.

use super::{Device, Mut, Ref};

/// SwiGLU, `h = silu(gate) · up`, on the stacked output `[gate | up]` of the fused projection.
pub trait Mlp: Device {
    /// h `[rows, intermediate_size]`, gate_up `[rows, 2 · intermediate_size]`.
    fn swiglu(
        &self,
        h: Mut<'_, Self, Self::Act>,
        gate_up: Ref<'_, Self, Self::Act>,
        intermediate_size: usize,
    );

    /// dgate_up `[rows, 2 · intermediate_size]` from dh `[rows, intermediate_size]`.
    fn swiglu_backward(
        &self,
        dgate_up: Mut<'_, Self, Self::Act>,
        dh: Ref<'_, Self, Self::Act>,
        gate_up: Ref<'_, Self, Self::Act>,
        intermediate_size: usize,
    );
}
