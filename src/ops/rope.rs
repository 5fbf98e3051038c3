//! Rotary position embedding in the half-split layout of Hugging Face models.

use super::attention::Heads;
use super::{Device, Mut, Ref};

/// Rotation of the query and key parts of packed `[q | k | v]` rows; the value part is left alone.
pub trait Rope: Device {
    /// Rotates in place: `(a, b) → (a·cos − b·sin, b·cos + a·sin)` for the halves a, b of every query and key head.
    /// qkv `[rows, heads.qkv_width()]`, positions `[rows]`, inv_freq `[head_dim / 2]` radians per position.
    fn rope(
        &self,
        qkv: Mut<'_, Self, Self::Act>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );

    /// The inverse rotation of a gradient, in place; shapes as in [`Rope::rope`].
    fn rope_backward(
        &self,
        dqkv: Mut<'_, Self, Self::Act>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );
}
