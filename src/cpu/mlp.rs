//! SwiGLU, as written in `ops/mlp.rs`.

use multiversion::multiversion;

use super::{Cpu, Weight, math, parallel};
use crate::ops::linear::{Linear, LoraTerm, Write};
use crate::ops::mlp::{Mlp, check_gated, check_gated_backward};
use crate::ops::{Mut, Ref};

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_row(h: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((h, &g), &u) in h.iter_mut().zip(gate).zip(up) {
        *h = g * math::sigmoid(g) * u;
    }
}

/// d silu(g) = σ(g)·(1 + g·(1 − σ(g))).
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_row(dgate: &mut [f32], dup: &mut [f32], dh: &[f32], gate: &[f32], up: &[f32]) {
    for ((((dg, du), &dh), &g), &u) in dgate.iter_mut().zip(dup).zip(dh).zip(gate).zip(up) {
        let s = math::sigmoid(g);
        *dg = dh * u * s * (1.0 + g * (1.0 - s));
        *du = dh * g * s;
    }
}

impl Mlp for Cpu {
    fn swiglu(&self, h: Mut<'_, Self, f32>, gate_up: Ref<'_, Self, f32>, intermediate_size: usize) {
        let gate_up = gate_up.as_slice();
        parallel::rows(h.into_slice(), intermediate_size, |i, h| {
            let (gate, up) =
                gate_up[i * 2 * intermediate_size..][..2 * intermediate_size].split_at(intermediate_size);
            forward_row(h, gate, up);
        });
    }

    /// All rows of gate_up are kept.
    fn gated(
        &self,
        h: Mut<'_, Self, f32>,
        mut gate_up: Mut<'_, Self, f32>,
        kept: usize,
        x: Ref<'_, Self, f32>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
        intermediate_size: usize,
    ) {
        let (lengths, shape) =
            ([h.len(), gate_up.len(), x.len()], [weight.in_features(), weight.out_features()]);
        let checked = check_gated(lengths, kept, shape, lora, intermediate_size);
        if self.accepts(checked.map(|_| ())) {
            self.linear(gate_up.reborrow(), x, weight, None, lora, Write::Overwrite);
            self.swiglu(h, gate_up.view(), intermediate_size);
        }
    }

    fn gated_backward(
        &self,
        dgate_up: Mut<'_, Self, f32>,
        mut dh: Mut<'_, Self, f32>,
        dy: Ref<'_, Self, f32>,
        weight: &Weight,
        gate_up: Ref<'_, Self, f32>,
        intermediate_size: usize,
    ) {
        let lengths = [dgate_up.len(), dh.len(), dy.len(), gate_up.len()];
        let shape = [weight.in_features(), weight.out_features()];
        let checked = check_gated_backward(lengths, shape, intermediate_size);
        if self.accepts(checked.map(|_| ())) {
            self.linear_backward(dh.reborrow(), dy, weight);
            self.swiglu_backward(dgate_up, dh.view(), gate_up, intermediate_size);
        }
    }

    fn swiglu_backward(
        &self,
        dgate_up: Mut<'_, Self, f32>,
        dh: Ref<'_, Self, f32>,
        gate_up: Ref<'_, Self, f32>,
        intermediate_size: usize,
    ) {
        let (dh, gate_up) = (dh.as_slice(), gate_up.as_slice());
        parallel::rows(dgate_up.into_slice(), 2 * intermediate_size, |i, d| {
            let (gate, up) =
                gate_up[i * 2 * intermediate_size..][..2 * intermediate_size].split_at(intermediate_size);
            let (dgate, dup) = d.split_at_mut(intermediate_size);
            backward_row(dgate, dup, &dh[i * intermediate_size..][..intermediate_size], gate, up);
        });
    }
}
