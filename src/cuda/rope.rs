//! Rotary position embedding, as written in `ops/rope.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::alignment;
use super::tile::ROPE_THREADS;
use crate::ops::attention::Heads;
use crate::ops::rope::{CacheRows, Rope};
use crate::ops::{Mut, Ref};

impl Cuda {
    fn rotate(
        &self,
        qkv: Mut<'_, Self, bf16>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
        sign: f32,
    ) {
        let (rows, width, half) = (positions.len(), heads.qkv_width(), heads.dim / 2);
        let alignment = alignment(half);
        let rotated = heads.query + heads.key_value;
        self.launch("rope")
            .write("qkv", &qkv, rows * width, alignment)
            .read("positions", positions, rows, 4)
            .read("inv_freq", inv_freq, half, alignment)
            .value(width as i32)
            .value(rotated as i32)
            .value(half as i32)
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
        self.rotate(qkv, positions, inv_freq, heads, 1.0);
    }

    fn rope_into_cache(
        &self,
        qkv: Mut<'_, Self, bf16>,
        to: CacheRows<'_, Self>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        let (rows, width, half) = (positions.len(), heads.qkv_width(), heads.dim / 2);
        let alignment = alignment(half);
        let cached = rows.checked_sub(1).map_or(0, |last| last * to.step + to.first + 1) * heads.kv_width();
        self.launch("rope_into_cache")
            .write("qkv", &qkv, rows * width, alignment)
            .write("k", &to.k, cached, alignment)
            .write("v", &to.v, cached, alignment)
            .read("positions", positions, rows, 4)
            .read("inv_freq", inv_freq, half, alignment)
            .value(heads.query as i32)
            .value(heads.key_value as i32)
            .value(half as i32)
            .value(to.first as i32)
            .value(to.step as i32)
            .run(Shape::line(rows, ROPE_THREADS));
    }

    fn rope_backward(
        &self,
        dqkv: Mut<'_, Self, bf16>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        self.rotate(dqkv, positions, inv_freq, heads, -1.0);
    }
}
