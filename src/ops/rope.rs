//! Rotary position embedding in the half-split layout of Hugging Face models.

use super::attention::Heads;
use super::{Device, Mut, Ref};

/// Rows of a key/value cache that a pass fills.
pub struct CacheRows<'a, D: Device> {
    /// `[.., kv_width]` keys.
    pub k: Mut<'a, D, D::Act>,
    /// `[.., kv_width]` values.
    pub v: Mut<'a, D, D::Act>,
    /// Row of both that the first row of the pass goes to.
    pub first: usize,
    /// Rows of both from one row of the pass to the next.
    pub step: usize,
}

/// Rotation of the query and key parts of packed `[q | k | v]` rows; the value part is left alone.
pub trait Rope: Device {
    /// Rotates in place: `(a, b) → (a·cos − b·sin, b·cos + a·sin)` for the halves a, b of every query and key
    /// head. qkv `[rows, heads.qkv_width()]`, positions `[rows]`, inv_freq `[head_dim / 2]` radians per
    /// position.
    fn rope(
        &self,
        qkv: Mut<'_, Self, Self::Act>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );

    /// As [`Rope::rope`], and fills a cache: the keys, rotated, and the values of row `i` also become row `i
    /// · to.step + to.first` there. A row of the cache stands one position after the one before it, so row
    /// `i` is rotated for position `positions[i] + to.first`: decoding need not write new positions.
    fn rope_into_cache(
        &self,
        qkv: Mut<'_, Self, Self::Act>,
        to: CacheRows<'_, Self>,
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
