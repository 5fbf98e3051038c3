//! Keys and values of what was already read: one prompt, shared by all samples, and what each sample added.

use crate::error::Result;
use crate::model::config::Config;
use crate::ops::attention::CachedKv;
use crate::ops::rope::CacheRows;
use crate::ops::{Arena, Backend, Buffer};

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

    /// Where the keys and values of the prompt's rows go.
    pub(super) fn prompt_rows(&mut self, layer: usize) -> CacheRows<'_, B> {
        let cache = &mut self.layers[layer];
        CacheRows { k: cache.prompt_k.view_mut(), v: cache.prompt_v.view_mut(), first: 0, step: 1 }
    }

    /// Where the keys and values of every sample's current token go.
    pub(super) fn token_rows(&mut self, layer: usize) -> CacheRows<'_, B> {
        let (cache, first, step) = (&mut self.layers[layer], self.filled - 1, self.capacity);
        CacheRows { k: cache.sample_k.view_mut(), v: cache.sample_v.view_mut(), first, step }
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
