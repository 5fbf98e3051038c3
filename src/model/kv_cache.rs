//! Keys and values of what was already read: one prompt, shared by all samples, and what each sample added.

use crate::error::Result;
use crate::model::config::Config;
use crate::ops::attention::{CachedKv, Heads};
use crate::ops::{Arena, Backend, Buffer, Ref};

struct LayerCache<B: Backend> {
    prompt_k: Buffer<B, B::Act>,
    prompt_v: Buffer<B, B::Act>,
    sample_k: Buffer<B, B::Act>,
    sample_v: Buffer<B, B::Act>,
}

/// The cache of all layers.
pub struct KvCache<B: Backend> {
    layers: Vec<LayerCache<B>>,
    capacity: usize,
    filled: usize,
}

impl<B: Backend> KvCache<B> {
    /// Room for a prompt of exactly `prompt_len` tokens and `capacity` tokens of each of `samples` samples.
    pub fn new(
        arena: &mut Arena<B>,
        config: &Config,
        prompt_len: usize,
        samples: usize,
        capacity: usize,
    ) -> Result<Self> {
        let width = config.heads().kv_width();
        let mut layer = |_| {
            Ok(LayerCache {
                prompt_k: arena.buffer("cache prompt k", &[prompt_len, width])?,
                prompt_v: arena.buffer("cache prompt v", &[prompt_len, width])?,
                sample_k: arena.buffer("cache sample k", &[samples, capacity, width])?,
                sample_v: arena.buffer("cache sample v", &[samples, capacity, width])?,
            })
        };
        let layers = (0..config.num_hidden_layers).map(&mut layer).collect::<Result<_>>()?;
        Ok(KvCache { layers, capacity, filled: 0 })
    }

    /// Tokens each sample has added, the current one included.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Makes room for the next token of every sample. Call once before each decoding pass.
    pub fn advance(&mut self) {
        assert!(self.filled < self.capacity, "the key/value cache holds {} tokens per sample", self.capacity);
        self.filled += 1;
    }

    /// Keeps the keys and values of the prompt's rows.
    pub(super) fn store_prompt(&mut self, backend: &B, layer: usize, qkv: Ref<'_, B, B::Act>, heads: Heads) {
        let cache = &mut self.layers[layer];
        let (width, wide, q) = (heads.kv_width(), heads.qkv_width(), heads.q_width());
        backend.copy_columns(cache.prompt_k.view_mut(), qkv, width, 0, 1, wide, q);
        backend.copy_columns(cache.prompt_v.view_mut(), qkv, width, 0, 1, wide, q + width);
    }

    /// Keeps the keys and values of every sample's current token.
    pub(super) fn store_token(&mut self, backend: &B, layer: usize, qkv: Ref<'_, B, B::Act>, heads: Heads) {
        let cache = &mut self.layers[layer];
        let (width, wide, q) = (heads.kv_width(), heads.qkv_width(), heads.q_width());
        let (row, step) = (self.filled - 1, self.capacity);
        backend.copy_columns(cache.sample_k.view_mut(), qkv, width, row, step, wide, q);
        backend.copy_columns(cache.sample_v.view_mut(), qkv, width, row, step, wide, q + width);
    }

    pub(super) fn layer(&self, layer: usize) -> CachedKv<'_, B> {
        let cache = &self.layers[layer];
        CachedKv {
            prompt_k: cache.prompt_k.view(),
            prompt_v: cache.prompt_v.view(),
            sample_k: cache.sample_k.view(),
            sample_v: cache.sample_v.view(),
            filled: self.filled,
        }
    }
}
