//! Keys and values of what was already read: prompts, each shared by its samples, and what the samples added.

use crate::error::Result;
use crate::model::config::Config;
use crate::ops::attention::CachedKv;
use crate::ops::rope::CacheRows;
use crate::ops::{Arena, Backend, Buffer, Mut};

/// Keys and values of one layer.
struct Layer<B: Backend> {
    k: Buffer<B, B::Act>,
    v: Buffer<B, B::Act>,
}

/// Buffers of every layer, `[.., kv_width]` each.
fn layers<B: Backend>(
    arena: &mut Arena<B>,
    config: &Config,
    of: &str,
    shape: &[usize],
) -> Result<Vec<Layer<B>>> {
    let shape = [shape, &[config.heads().kv_width()]].concat();
    let mut layer = |_| {
        let k = arena.buffer(format!("cache {of} k"), &shape)?;
        Ok(Layer { k, v: arena.buffer(format!("cache {of} v"), &shape)? })
    };
    (0..config.num_hidden_layers).map(&mut layer).collect()
}

/// A prompt's keys and values, of all layers.
pub struct PromptCache<B: Backend> {
    layers: Vec<Layer<B>>,
}

impl<B: Backend> PromptCache<B> {
    /// Room for a prompt of exactly `len` tokens.
    pub fn new(arena: &mut Arena<B>, config: &Config, len: usize) -> Result<Self> {
        Ok(PromptCache { layers: layers(arena, config, "prompt", &[len])? })
    }

    /// Where the keys and values of the prompt's rows go.
    pub(super) fn rows(&mut self, layer: usize) -> CacheRows<'_, B> {
        let Layer { k, v } = &mut self.layers[layer];
        CacheRows { k: k.view_mut(), v: v.view_mut(), filled: None, step: 1 }
    }
}

/// Keys and values that samples of one prompt added to it, of all layers. All samples have as many tokens.
pub struct SampleCache<B: Backend> {
    layers: Vec<Layer<B>>,
    capacity: usize,
    width: usize,
    /// `[samples]` tokens that each sample has: those in the cache once the next pass has read the last. They
    /// are counted where tokens are chosen, so that every pass is the same to the host.
    tokens: Buffer<B, u32>,
    /// Tokens that passes have been started for.
    filled: usize,
}

impl<B: Backend> SampleCache<B> {
    /// Room for `capacity` tokens of each of `samples` samples.
    pub fn new(arena: &mut Arena<B>, config: &Config, samples: usize, capacity: usize) -> Result<Self> {
        let layers = layers(arena, config, "sample", &[samples, capacity])?;
        let tokens = arena.buffer("tokens of samples", &[samples])?;
        Ok(SampleCache { layers, capacity, width: config.heads().kv_width(), tokens, filled: 0 })
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

    /// Forgets all samples.
    pub fn clear(&mut self, backend: &B) {
        backend.zero(self.tokens.view_mut());
        self.filled = 0;
    }

    /// `[samples]` tokens of the first samples, which is the position of the next. Whoever chooses that
    /// counts it there.
    pub fn tokens_mut(&mut self, samples: usize) -> Mut<'_, B, u32> {
        self.tokens.first_mut(samples)
    }

    /// Moves what sample `from` added to the place of sample `to`, which comes before it.
    pub fn move_sample(&mut self, backend: &B, from: usize, to: usize) {
        let (step, len) = (self.capacity * self.width, self.filled * self.width);
        for buffer in self.layers.iter_mut().flat_map(|layer| [&mut layer.k, &mut layer.v]) {
            let (before, source) = buffer.view_mut().split_at(from * step);
            backend.copy(before.slice(to * step..to * step + len), source.view().slice(0..len));
        }
    }
}

/// Rows of a decoding pass: the next tokens of the first samples of a cache.
pub struct CachedRows<'a, B: Backend> {
    /// Number of rows.
    pub rows: usize,
    /// What all of them read.
    pub prompt: &'a PromptCache<B>,
    /// What each of them added.
    pub own: &'a mut SampleCache<B>,
}

impl<B: Backend> CachedRows<'_, B> {
    /// Where the keys and values of the current tokens go.
    pub(super) fn token_rows(&mut self, layer: usize) -> CacheRows<'_, B> {
        let SampleCache { layers, tokens, capacity, .. } = &mut *self.own;
        let Layer { k, v } = &mut layers[layer];
        CacheRows { k: k.view_mut(), v: v.view_mut(), filled: Some(tokens.first(1)), step: *capacity }
    }

    pub(super) fn layer(&self, layer: usize) -> CachedKv<'_, B> {
        let (prompt, own) = (&self.prompt.layers[layer], &self.own.layers[layer]);
        let len = self.rows * self.own.capacity * self.own.width;
        CachedKv {
            prompt_k: prompt.k.view(),
            prompt_v: prompt.v.view(),
            sample_k: own.k.first(len),
            sample_v: own.v.first(len),
            filled: self.own.tokens.first(1),
        }
    }
}
