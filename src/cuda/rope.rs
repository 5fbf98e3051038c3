//! Rotary position embedding, as written in `ops/rope.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::alignment;
use super::tile::ROPE_THREADS;
use crate::ops::attention::Heads;
use crate::ops::rope::Rope;
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
