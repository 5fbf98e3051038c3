//! Causal attention over packed sequences, with prefix sharing, and over a key/value cache.

use super::{Device, Mut, Ref};
use crate::error::Result;

/// Head counts and widths of grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of query heads.
    pub query: usize,
    /// Number of key/value heads; divides `query`.
    pub key_value: usize,
    /// Elements per head.
    pub dim: usize,
}

impl Heads {
    /// Width of the query part, and of the attention output.
    pub fn q_width(self) -> usize {
        self.query * self.dim
    }

    /// Width of the key part, and of the value part.
    pub fn kv_width(self) -> usize {
        self.key_value * self.dim
    }

    /// Width of a packed `[q | k | v]` row.
    pub fn qkv_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// `1/√head_dim`.
    pub fn softmax_scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// One sequence of a packed batch: its own rows, and the rows of another sequence that precede them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
    /// First row of the shared prefix.
    pub prefix_start: u32,
    /// Rows of the shared prefix; 0 for a sequence of its own. Every query sees all of them.
    pub prefix_len: u32,
}

/// The cached keys and values of one layer: one prompt shared by all samples, and what each sample added.
pub struct CachedKv<'a, D: Device> {
    /// `[prompt_len, kv_width]`.
    pub prompt_k: Ref<'a, D, D::Act>,
    /// `[prompt_len, kv_width]`.
    pub prompt_v: Ref<'a, D, D::Act>,
    /// `[samples, capacity, kv_width]`.
    pub sample_k: Ref<'a, D, D::Act>,
    /// `[samples, capacity, kv_width]`.
    pub sample_v: Ref<'a, D, D::Act>,
    /// Positions of `sample_k` and `sample_v` that are filled, the current token included.
    pub filled: usize,
}

/// `o = softmax(q kᵀ/√d) v`, a query seeing its prefix and the keys up to itself.
pub trait Attention: Device {
    /// Whether heads of this shape can be computed; kind `Model` if not.
    fn check_heads(&self, _heads: Heads) -> Result<()> {
        Ok(())
    }

    /// o `[rows, q_width]`, lse `[rows, query heads]` (log-sum-exp of the scaled scores, saved), qkv
    /// `[rows, qkv_width]` after RoPE. Rows of no segment are left alone.
    fn attention(
        &self,
        o: Mut<'_, Self, Self::Act>,
        lse: Mut<'_, Self, f32>,
        qkv: Ref<'_, Self, Self::Act>,
        segments: &[Segment],
        heads: Heads,
    );

    /// dqkv `[rows, qkv_width]` from do `[rows, q_width]` and what the forward saved. The segments must have
    /// no prefix: gradients never flow through a shared one (METHOD §6).
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        dqkv: Mut<'_, Self, Self::Act>,
        dout: Ref<'_, Self, Self::Act>,
        o: Ref<'_, Self, Self::Act>,
        lse: Ref<'_, Self, f32>,
        qkv: Ref<'_, Self, Self::Act>,
        segments: &[Segment],
        heads: Heads,
    );

    /// One new token per sample against the cache: o `[samples, q_width]`, qkv `[samples, qkv_width]` after
    /// RoPE (only q is read: the new k and v are already in the cache).
    fn attention_decode(
        &self,
        o: Mut<'_, Self, Self::Act>,
        qkv: Ref<'_, Self, Self::Act>,
        cache: &CachedKv<'_, Self>,
        heads: Heads,
    );
}
