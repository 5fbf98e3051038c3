//! Rotary position embedding, as written in `ops/rope.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::alignment;
use super::tile::ROPE_THREADS;
use crate::ops::attention::Heads;
use crate::ops::rope::{CacheRows, Rope, check};
use crate::ops::{Mut, Ref};

impl Cuda {
    fn rotate(
        &self,
        qkv: Mut<'_, Self, bf16>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
        (op, sign): (&str, f32),
    ) {
        if self.keep(check(op, [qkv.len(), positions.len(), inv_freq.len()], heads)).is_none() {
            return;
        }
        let (rows, width, half) = (positions.len(), heads.qkv_width(), heads.dim / 2);
        let alignment = alignment(half);
        let rotated = heads.query + heads.key_value;
        self.launch("rope")
            .write("qkv", &qkv, rows * width, alignment)
            .read("positions", positions, rows, 4)
            .read("inv_freq", inv_freq, half, alignment)
            .int("width", width)
            .int("rotated", rotated)
            .int("half", half)
            .value(sign)
            .run(Shape::line(rows, ROPE_THREADS));
    }
}

impl Rope for Cuda {
    fn rope(
        &self,
        qkv: Mut<'_, Self, bf16>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        self.rotate(qkv, positions, inv_freq, heads, ("rope", 1.0));
    }

    fn rope_into_cache(
        &self,
        qkv: Mut<'_, Self, bf16>,
        to: CacheRows<'_, Self>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        let lengths = [qkv.len(), positions.len(), inv_freq.len()];
        let checked =
            check("rope_into_cache", lengths, heads).and_then(|()| to.check(positions.len(), heads));
        if self.keep(checked).is_none() {
            return;
        }
        let (rows, width, half) = (positions.len(), heads.qkv_width(), heads.dim / 2);
        let alignment = alignment(half);
        let cached = to.elements(rows, heads).unwrap_or(usize::MAX);
        self.launch("rope_into_cache")
            .write("qkv", &qkv, rows * width, alignment)
            .write("k", &to.k, cached, alignment)
            .write("v", &to.v, cached, alignment)
            .read("positions", positions, rows, 4)
            .read_optional("filled", to.filled, 1, 4)
            .read("inv_freq", inv_freq, half, alignment)
            .refusal()
            .int("query", heads.query)
            .int("key_value", heads.key_value)
            .int("half", half)
            .int("step", to.step)
            .run(Shape::line(rows, ROPE_THREADS));
    }

    fn rope_backward(
        &self,
        dqkv: Mut<'_, Self, bf16>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        self.rotate(dqkv, positions, inv_freq, heads, ("rope_backward", -1.0));
    }
}
