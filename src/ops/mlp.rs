//! The gated feed-forward of a block.

use super::contract::{expect_exactly, refused};
use super::linear::{Linear, LoraTerm, check_rows};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Refuses what [`Mlp::gated`] cannot be computed with, for a layer of `shape` [inputs, outputs]; returns the
/// rows.
pub(crate) fn check_gated<D: Device>(
    [h, gate_up, x]: [usize; 3],
    kept: usize,
    shape: [usize; 2],
    lora: &[LoraTerm<'_, D>],
    intermediate_size: usize,
) -> Result<usize> {
    const OP: &str = "gated";
    expect_exactly(OP, "weight: rows", shape[1], intermediate_size.checked_mul(2))?;
    let rows = check_rows(OP, [("x", x), ("h", h)], [shape[0], intermediate_size])?;
    expect_exactly(OP, "gate_up", gate_up, rows.checked_mul(shape[1]))?;
    if kept > rows {
        return Err(refused(OP, format!("kept: expected at most {rows} rows, found {kept}")));
    }
    lora.iter().try_for_each(|term| term.check(OP, [rows, shape[1]])).map(|()| rows)
}

/// Refuses what [`Mlp::gated_backward`] cannot be computed with, for a layer behind h of `shape` [inputs,
/// outputs]; returns the rows.
pub(crate) fn check_gated_backward(
    [dgate_up, dh, dy, gate_up]: [usize; 4],
    shape: [usize; 2],
    intermediate_size: usize,
) -> Result<usize> {
    const OP: &str = "gated_backward";
    expect_exactly(OP, "weight: columns", shape[0], Some(intermediate_size))?;
    let rows = check_rows(OP, [("dh", dh), ("dy", dy)], shape)?;
    let both = dh.checked_mul(2);
    expect_exactly(OP, "dgate_up", dgate_up, both)?;
    expect_exactly(OP, "gate_up", gate_up, both).map(|()| rows)
}

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
        gate_up: Mut<'_, Self, Self::Act>,
        kept: usize,
        x: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
        lora: &[LoraTerm<'_, Self>],
        intermediate_size: usize,
    );

    /// [`Linear::linear_backward`] of the layer behind h, then [`Mlp::swiglu_backward`]: dgate_up `[rows, 2 ·
    /// intermediate_size]` from dy `[rows, out]`, W `[out, intermediate_size]` and gate_up. dh `[rows,
    /// intermediate_size]` is the intermediate result, and may hold anything afterwards.
    fn gated_backward(
        &self,
        dgate_up: Mut<'_, Self, Self::Act>,
        dh: Mut<'_, Self, Self::Act>,
        dy: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
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
