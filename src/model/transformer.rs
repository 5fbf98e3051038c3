//! The whole model: embedding, blocks, final norm and head, with taps for the guard.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::activations::{ActivationGrads, Activations, Rows};
use crate::model::block::{Block, BlockPass, Keys, Pass};
use crate::model::config::Config;
use crate::model::params::Grads;
use crate::model::weights::{Weights, expected_tensors};
use crate::ops::attention::Segment;
use crate::ops::linear::Write;
use crate::ops::{Arena, Backend, Buffer, Dtype, Mut, Ref};

/// What helps where the device has no room for a model.
const ADVICE: &str =
    "choose a smaller model, another device (`device` cuda:N), or compute on the CPU (`device` cpu)";

/// A frozen base model on a device.
pub struct Transformer<B: Backend> {
    /// The device that the model is on.
    pub backend: B,
    /// The model's configuration.
    pub config: Config,
    /// Element type of the checkpoint's embedding, and by convention of all its matrices.
    pub dtype: Dtype,
    weights: Weights,
    embed_tokens: B::Weight,
    blocks: Vec<Block<B>>,
    norm: Buffer<B, f32>,
    /// `None` where the head is the embedding.
    lm_head: Option<B::Weight>,
    inv_freq: Buffer<B, f32>,
    device_bytes: usize,
    notes: Vec<String>,
}

/// What flows into the blocks from above in a backward pass.
pub struct Upstream<'a> {
    /// Sequences whose rows are saved; they have no shared prefix.
    pub segments: &'a [Segment],
    /// Taps whose gradients are in `ActivationGrads::dtaps`; 0 where the guard sends none.
    pub taps: usize,
}

impl<B: Backend> Transformer<B> {
    /// Loads a Hugging Face directory. A head that is stored although `config.json` ties it to the embedding,
    /// from which it differs, is used.
    pub fn load(backend: B, dir: &Path) -> Result<Self> {
        let mut notes = Vec::new();
        let mut config = Config::with_notes(dir, &mut notes)?;
        let weights = Weights::open(dir)?;
        if weights.has_own_head(&config) {
            config.tie_word_embeddings = false;
            notes.push(format!(
                "{}: lm_head.weight differs from the embedding, although config.json has tie_word_embeddings = true; it \
                 is used as the head",
                dir.display()
            ));
        }
        notes.extend(weights.notes().iter().cloned());
        weights.check(&config)?;
        Ok(Transformer { notes, ..Self::from_weights(backend, config, &weights)? })
    }

    /// Loads checked weights.
    ///
    /// # Errors
    /// Kind `Device`: they do not fit the device's memory.
    pub fn from_weights(backend: B, config: Config, weights: &Weights) -> Result<Self> {
        backend.check_heads(config.heads())?;
        Self::loaded(backend, config, weights).map_err(|e: Error| e.memory_advice(ADVICE))
    }

    fn loaded(backend: B, config: Config, weights: &Weights) -> Result<Self> {
        let device_bytes = backend.room_for(&expected_tensors(&config))?;
        let blocks = (0..config.num_hidden_layers).map(|l| Block::load(&backend, weights, &config, l));
        let blocks = blocks.collect::<Result<_>>()?;
        let matrix = |name: &str| backend.load_weight(&[weights.tensor(name)?]);
        let embed_tokens = matrix("model.embed_tokens.weight")?;
        let lm_head = (!config.tie_word_embeddings).then(|| matrix("lm_head.weight")).transpose()?;
        let norm = backend.load_vectors(&[weights.tensor("model.norm.weight")?])?;
        let frequencies = config.rope_frequencies();
        let (mut inv_freq, _) =
            Arena::build(&backend, |arena| arena.buffer("inv_freq", &[frequencies.len()]))?;
        backend.upload(inv_freq.view_mut(), &frequencies);
        backend.finish()?;
        let dtype = weights.tensor("model.embed_tokens.weight")?.dtype();
        let weights = weights.clone();
        Ok(Transformer {
            dtype,
            weights,
            embed_tokens,
            blocks,
            norm,
            lm_head,
            inv_freq,
            device_bytes,
            notes: Vec::new(),
            backend,
            config,
        })
    }

    /// Bytes of the device's memory that it takes, with what the device needs for itself; 0 in the system's
    /// memory.
    pub fn device_bytes(&self) -> usize {
        self.device_bytes
    }

    /// What was found in the files and not used as it stands; one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directory that its weights are mapped from.
    pub fn dir(&self) -> &Path {
        self.weights.dir()
    }

    /// A hash of all weights, which are read for it.
    pub fn weights_hash(&self) -> blake3::Hash {
        self.weights.hash()
    }

    /// The index of `x[layer]` among the taps, for `1 ≤ layer < L`: they are the last `taps` of
    /// `(h_1, …, h_{L−1}, norm(h_L))` (METHOD §3).
    fn tap_of(&self, layer: usize, taps: usize) -> Option<usize> {
        let first = self.config.num_hidden_layers + 1 - taps;
        (taps > 0 && layer >= first).then(|| layer - first)
    }

    /// Embeds `ids` `[rows]`, runs the blocks and the final norm. Leaves the head's input in `acts.hidden`
    /// and `taps` taps of the first `tapped_rows` rows in `acts.taps` `[taps, tapped_rows, hidden_size]`.
    pub fn forward(
        &self,
        acts: &mut Activations<B>,
        ids: Ref<'_, B, u32>,
        pass: Pass<'_, B>,
        keys: &mut Keys<'_, B>,
        taps: usize,
        tapped_rows: usize,
    ) {
        let (rows, layers, width) = (pass.rows, self.config.num_hidden_layers, self.config.hidden_size);
        self.backend.embed(acts.x.get_mut(0, rows), &self.embed_tokens, ids);
        for layer in 0..layers {
            self.blocks[layer].gather(&self.backend, self.blocks.get(layer + 1));
            self.block_pass(layer, pass).forward(acts, keys);
            if layer + 1 < layers
                && let Some(tap) = self.tap_of(layer + 1, taps)
            {
                let x = acts.x.get(layer + 1, rows).slice(0..tapped_rows * width);
                self.backend.copy(tap_mut(&mut acts.taps, tap, tapped_rows * width), x);
            }
        }
        let (hidden, rstd) =
            (acts.hidden.first_mut(rows.total * width), acts.rstd_final.first_mut(rows.total));
        let x = acts.x.get(layers, rows);
        self.backend.rms_norm(hidden, rstd, x, self.norm.view(), self.config.rms_norm_eps);
        if taps > 0 {
            let hidden = acts.hidden.first(tapped_rows * width);
            self.backend.copy(tap_mut(&mut acts.taps, taps - 1, tapped_rows * width), hidden);
        }
    }

    /// Gradients of the adapters from `grads.dhidden` (of the head's input) and `grads.dtaps` `[taps, saved,
    /// hidden_size]`. `pass` covers the saved rows only.
    pub fn backward(
        &self,
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        dparams: &mut Grads<B>,
        pass: Pass<'_, B>,
        upstream: &Upstream<'_>,
    ) {
        let (n, layers, width) = (pass.rows.saved, self.config.num_hidden_layers, self.config.hidden_size);
        if let Some(last) = upstream.taps.checked_sub(1) {
            let dtap = grads.dtaps.slice(last * n * width..(last + 1) * n * width);
            self.backend.add(grads.dhidden.first_mut(n * width), dtap);
        }
        self.backend.zero(grads.dx.first_mut(n * width));
        let (dx, dhidden) = (grads.dx.first_mut(n * width), grads.dhidden.first(n * width));
        let (x, rstd) = (acts.x.saved(layers, pass.rows), acts.rstd_final.first(n));
        self.backend.rms_norm_backward(dx, dhidden, x, rstd, self.norm.view());
        for layer in (0..layers).rev() {
            let next = layer.checked_sub(1).and_then(|next| self.blocks.get(next));
            self.blocks[layer].gather(&self.backend, next);
            self.block_pass(layer, pass).backward(acts, grads, dparams, upstream.segments, layer > 0);
            if layer > 0
                && let Some(tap) = self.tap_of(layer, upstream.taps)
            {
                let dtap = grads.dtaps.slice(tap * n * width..(tap + 1) * n * width);
                self.backend.add(grads.dx.first_mut(n * width), dtap);
            }
        }
    }

    /// `logits = hidden Wᵀ`; logits `[rows, vocab_size]`, hidden `[rows, hidden_size]`.
    pub fn head(&self, logits: Mut<'_, B, B::Act>, hidden: Ref<'_, B, B::Act>) {
        self.backend.linear(logits, hidden, self.head_weight(), None, &[], Write::Overwrite);
    }

    /// Gradient of [`Self::head`]'s input.
    pub fn head_backward(&self, dhidden: Mut<'_, B, B::Act>, dlogits: Ref<'_, B, B::Act>) {
        self.backend.linear_backward(dhidden, dlogits, self.head_weight());
    }

    fn head_weight(&self) -> &B::Weight {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    fn block_pass<'a>(&'a self, layer: usize, pass: Pass<'a, B>) -> BlockPass<'a, B> {
        BlockPass {
            backend: &self.backend,
            config: &self.config,
            block: &self.blocks[layer],
            layer,
            inv_freq: self.inv_freq.view(),
            pass,
        }
    }
}

fn tap_mut<B: Backend>(taps: &mut Buffer<B, B::Act>, tap: usize, len: usize) -> Mut<'_, B, B::Act> {
    taps.slice_mut(tap * len..(tap + 1) * len)
}

impl<'a, B: Backend> Pass<'a, B> {
    /// The same pass over the saved rows only, as the backward makes it.
    pub fn saved_only(self) -> Self {
        let saved = self.rows.saved;
        let adapter = self.adapter.map(|a| crate::model::block::Adapter { rows: saved, ..a });
        let (rows, positions) = (Rows { total: saved, saved }, self.positions.slice(0..saved));
        Pass { rows, positions, adapter, prefix: self.prefix }
    }
}
