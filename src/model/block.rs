//! One Transformer block: forward, recompute and backward beside each other, the last reversing the first.

use crate::error::{Error, Result};
use crate::model::activations::{ActivationGrads, Activations, LayerStack, Recompute, Rows};
use crate::model::config::Config;
use crate::model::kv_cache::{CachedRows, PromptCache};
use crate::model::lora::{Lora, LoraPair, Projection};
use crate::model::params::{Grads, Params};
use crate::model::prefix::{PrefixPlace, PrefixTuning};
use crate::model::weights::Weights;
use crate::ops::attention::{Qkv, QkvMut, Segment};
use crate::ops::linear::{LoraBackward, LoraDown, LoraTerm, Write};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::philox::DropoutKey;
use crate::ops::{Backend, Buffer, Dropout, Mut, Ref};

use Projection::{Down, Gate, K, O, Q, Up, V};

/// The matrices of a block, each of which is one or several projections that are stacked.
const MATRICES: [&[Projection]; 4] = [&[Q, K, V], &[O], &[Gate, Up], &[Down]];

/// Shapes `[out_features, in_features]` of the matrices of every block, as
/// [`Device::load_block`](crate::ops::Device::load_block) gets them.
pub fn matrix_shapes(config: &Config) -> [[usize; 2]; 4] {
    MATRICES.map(|stacked| {
        let shapes = stacked.iter().map(|projection| projection.shape(config));
        shapes.fold([0, 0], |[rows, _], (out, columns)| [rows + out, columns])
    })
}

/// The frozen weights of one block.
pub struct Block<B: Backend> {
    input_layernorm: Buffer<B, f32>,
    qkv: B::Weight,
    qkv_bias: Option<Buffer<B, f32>>,
    o: B::Weight,
    post_attention_layernorm: Buffer<B, f32>,
    gate_up: B::Weight,
    down: B::Weight,
}

/// Adapters and what they need in one pass.
pub struct Adapter<'a, B: Backend> {
    /// Where their parameters lie.
    pub lora: &'a Lora,
    /// Values of the adapters' parameters.
    pub params: &'a Params<B>,
    /// The first rows of the batch, those with adapters.
    pub rows: usize,
    /// Dropout on the adapters' inputs; none when not training.
    pub dropout: Option<AdapterDropout<'a, B>>,
}

/// The dropout of all adapters in one pass.
pub struct AdapterDropout<'a, B: Backend> {
    /// The run's seed.
    pub seed: u64,
    /// Optimiser step.
    pub step: u32,
    /// `[adapter rows]`.
    pub row_keys: Ref<'a, B, u32>,
}

/// What a pass through the blocks reads besides the activations.
pub struct Pass<'a, B: Backend> {
    /// Rows of the batch.
    pub rows: Rows,
    /// `[rows]` positions for RoPE; with [`Keys::Cache`], of every sample's first token that the cache holds.
    pub positions: Ref<'a, B, u32>,
    /// Adapters, if any.
    pub adapter: Option<Adapter<'a, B>>,
    /// Prefixes, if any.
    pub prefix: Option<PrefixPass<'a, B>>,
}

/// Prefixes and what they need in one pass.
pub struct PrefixPass<'a, B: Backend> {
    /// Where their parameters lie.
    pub prefix: &'a PrefixTuning,
    /// Values of the parameters.
    pub params: &'a Params<B>,
    /// Where in the batch they are. The rows are the first ones of a sequence, whose other rows see them.
    pub places: &'a [PrefixPlace],
    /// Dropout; none when not training.
    pub dropout: Option<AdapterDropout<'a, B>>,
}

/// `Clone` and `Copy` without asking them of the backend, as `derive` would.
macro_rules! copyable {
    ($($name:ident),*) => { $(
        impl<B: Backend> Clone for $name<'_, B> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<B: Backend> Copy for $name<'_, B> {}
    )* };
}
copyable!(Adapter, AdapterDropout, Pass, PrefixPass);

/// What the queries of a pass attend to.
pub enum Keys<'a, B: Backend> {
    /// The rows of the batch itself.
    Packed(&'a [Segment]),
    /// As `Packed` with a single sequence, whose keys and values also become those of a prompt.
    Prompt(&'a [Segment], &'a mut PromptCache<B>),
    /// Caches, whose rows follow each other; every row is the next token of one sample. Rows beyond them
    /// attend to nothing, and nobody reads them.
    Cache(Vec<CachedRows<'a, B>>),
}

impl<B: Backend> Block<B> {
    /// Reads block `layer` of a checkpoint.
    pub fn load(backend: &B, weights: &Weights, config: &Config, layer: usize) -> Result<Self> {
        let tensor = |name: &str| weights.tensor(&format!("model.layers.{layer}.{name}"));
        let projection = |p: Projection| tensor(&format!("{}.weight", p.path()));
        let bias = |p: Projection| tensor(&format!("{}.bias", p.path()));
        let qkv_bias = if config.attention_bias {
            let parts = [bias(Q)?, bias(K)?, bias(V)?];
            Some(backend.load_vectors(&parts)?)
        } else {
            None
        };
        let stacked = |projections: &[Projection]| projections.iter().map(|&p| projection(p)).collect();
        let matrices = MATRICES.map(stacked).into_iter().collect::<Result<Vec<_>>>()?;
        let [qkv, o, gate_up, down] = <[B::Weight; 4]>::try_from(backend.load_block(layer, &matrices)?)
            .map_err(|found| Error::internal(format!("a block of {} weights", found.len())))?;
        Ok(Block {
            input_layernorm: backend.load_vectors(&[tensor("input_layernorm.weight")?])?,
            qkv,
            qkv_bias,
            o,
            post_attention_layernorm: backend.load_vectors(&[tensor("post_attention_layernorm.weight")?])?,
            gate_up,
            down,
        })
    }

    /// Has the weights there, and starts to get those of `next`: see
    /// [`Device::gather_block`](crate::ops::Device::gather_block).
    pub fn gather(&self, backend: &B, next: Option<&Block<B>>) {
        backend.gather_block(&self.qkv, next.map(|next| &next.qkv));
    }
}

/// One block in one pass.
pub struct BlockPass<'a, B: Backend> {
    /// The device that the pass runs on.
    pub backend: &'a B,
    /// The model's configuration.
    pub config: &'a Config,
    /// The block's weights.
    pub block: &'a Block<B>,
    /// The block's index.
    pub layer: usize,
    /// RoPE's frequencies `[head_dim / 2]`.
    pub inv_freq: Ref<'a, B, f32>,
    /// What the pass reads.
    pub pass: Pass<'a, B>,
}

impl<'a, B: Backend> BlockPass<'a, B> {
    /// `x[layer]` → `x[layer + 1]`.
    pub fn forward(&self, acts: &mut Activations<B>, keys: &mut Keys<'_, B>) {
        self.project_qkv(acts);
        self.attend(acts, keys);
        self.attention_residual(acts);
        let kept = if acts.recompute == Recompute::Nothing { self.pass.rows.saved } else { 0 };
        self.gated(acts, kept);
        self.mlp_residual(acts);
    }

    /// Makes again what [`Recompute`] did not keep, for the rows that get a backward.
    fn recompute(&self, acts: &mut Activations<B>, segments: &[Segment]) {
        match acts.recompute {
            Recompute::Block => {
                self.project_qkv(acts);
                self.attend(acts, &mut Keys::Packed(segments));
                self.attention_residual(acts);
                self.gated(acts, self.pass.rows.saved);
                self.project_down_a(acts);
            }
            Recompute::GateUp => self.project_gate_up(acts),
            Recompute::Nothing | Recompute::Forward => {}
        }
    }

    /// Gradient of `x[layer + 1]` in `grads.dx` → gradient of `x[layer]` there, and the adapters' gradients.
    /// The pass covers the saved rows only. Where `needs_dx` is false, nothing below is trained and dx is not
    /// finished.
    pub fn backward(
        &self,
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        dparams: &mut Grads<B>,
        segments: &[Segment],
        needs_dx: bool,
    ) {
        self.recompute(acts, segments);
        self.mlp_backward(acts, grads, dparams);
        self.attention_backward(acts, grads, dparams, segments, needs_dx);
    }

    fn project_qkv(&self, acts: &mut Activations<B>) {
        let (rows, l) = (self.pass.rows, self.layer);
        let backend = self.backend;
        self.norm(&mut acts.normed, &mut acts.rstd_attention, &acts.x, &self.block.input_layernorm);
        let normed = acts.normed.first(rows.total * self.config.hidden_size);
        self.lora_down(&mut acts.xa, normed, &[Q, K, V]);
        let lora = self.lora_terms(&acts.xa, &[Q, K, V]);
        let bias = self.block.qkv_bias.as_ref().map(Buffer::view);
        backend.linear(acts.qkv.get_mut(l, rows), normed, &self.block.qkv, bias, &lora, Write::Overwrite);
    }

    /// RoPE, then attention.
    fn attend(&self, acts: &mut Activations<B>, keys: &mut Keys<'_, B>) {
        let (rows, l, heads) = (self.pass.rows, self.layer, self.config.heads());
        let (backend, positions, inv_freq) = (self.backend, self.pass.positions, self.inv_freq);
        let qkv = acts.qkv.get_mut(l, rows);
        let segments = match keys {
            Keys::Cache(caches) => return self.attend_to_caches(acts, caches),
            Keys::Packed(segments) => {
                backend.rope(qkv, positions, inv_freq, heads);
                segments
            }
            Keys::Prompt(segments, cache) => {
                backend.rope_into_cache(qkv, cache.rows(l), positions, inv_freq, heads);
                self.prefix_into_cache(cache);
                segments
            }
        };
        self.place_prefixes(acts);
        let (o, lse, qkv) = (acts.o.get_mut(l, rows), acts.lse.get_mut(l, rows), acts.qkv.get(l, rows));
        backend.attention(o, lse, Qkv::packed(qkv, heads), segments, heads);
    }

    /// RoPE, then attention, of the next tokens of samples, the rows of one cache after those of another.
    fn attend_to_caches(&self, acts: &mut Activations<B>, caches: &mut [CachedRows<'_, B>]) {
        let (rows, l, heads) = (self.pass.rows, self.layer, self.config.heads());
        let (backend, inv_freq) = (self.backend, self.inv_freq);
        let mut first = 0;
        for cache in caches {
            let own = first..first + cache.rows;
            let elements = |width: usize| own.start * width..own.end * width;
            let qkv = acts.qkv.get_mut(l, rows).slice(elements(heads.qkv_width()));
            let positions = self.pass.positions.slice(own.clone());
            backend.rope_into_cache(qkv, cache.token_rows(l), positions, inv_freq, heads);
            let qkv = acts.qkv.get(l, rows).slice(elements(heads.qkv_width()));
            let o = acts.o.get_mut(l, rows).slice(elements(heads.q_width()));
            backend.attention_decode(o, Qkv::packed(qkv, heads).q, &cache.layer(l), heads);
            first = own.end;
        }
    }

    /// Keys and values of the rows that stand for prefixes.
    fn place_prefixes(&self, acts: &mut Activations<B>) {
        let Some(prefixes) = self.pass.prefix else { return };
        let heads = self.config.heads();
        for place in prefixes.places {
            let qkv = acts.qkv.get_mut(self.layer, self.pass.rows);
            let from = prefixes.prefix.of_layer(prefixes.params, place.control, self.layer, heads);
            self.backend.place_prefix(
                self.prefix_rows(qkv, *place, from.rows),
                from,
                self.prefix_dropout(*place),
            );
        }
    }

    /// The prefix of the cache's prompt, which is that of its first rows.
    fn prefix_into_cache(&self, cache: &mut PromptCache<B>) {
        let Some(prefixes) = self.pass.prefix else { return };
        let (heads, width) = (self.config.heads(), self.config.heads().kv_width());
        for place in prefixes.places {
            let from = prefixes.prefix.of_layer(prefixes.params, place.control, self.layer, heads);
            let rows = place.row * width..(place.row + from.rows) * width;
            let to = cache.rows(self.layer);
            for (to, column) in [(to.k, 0), (to.v, width)] {
                let to = MatrixMut::new(to.slice(rows.clone()), from.rows, width);
                self.backend.place_prefix(to, from.columns(column, width), None);
            }
        }
    }

    /// Gradients of the prefixes; the rows that stand for them send none further down.
    fn prefix_backward(&self, mut dqkv: Mut<'_, B, B::Act>, dparams: &mut Grads<B>) {
        let Some(prefixes) = self.pass.prefix else { return };
        let width = 2 * self.config.heads().kv_width();
        for place in prefixes.places {
            let param = &prefixes.prefix.controls[place.control];
            let to = dparams.matrix_mut(param).columns(self.layer * width, width);
            let dkv = self.prefix_rows(dqkv.reborrow(), *place, to.rows);
            self.backend.prefix_backward(to, dkv, self.prefix_dropout(*place));
        }
    }

    /// Keys and values of the `len` rows at a place, `[len, 2 · kv_width]`.
    fn prefix_rows<'x>(
        &self,
        qkv: Mut<'x, B, B::Act>,
        place: PrefixPlace,
        len: usize,
    ) -> MatrixMut<'x, B, B::Act> {
        let (heads, width) = (self.config.heads(), self.config.heads().qkv_width());
        let rows = qkv.slice(place.row * width..(place.row + len) * width);
        MatrixMut::new(rows, len, width).columns(heads.q_width(), 2 * heads.kv_width())
    }

    fn prefix_dropout(&self, place: PrefixPlace) -> Option<Dropout<'a, B>> {
        let prefixes = self.pass.prefix?;
        let (d, config) = (prefixes.dropout?, prefixes.prefix.config);
        let key = DropoutKey::new(config.dropout, d.seed, d.step, self.layer as u32)?;
        Some(Dropout { key, row_keys: d.row_keys.slice(place.row..place.row + config.len) })
    }

    /// `x_mid = x + o Wᵀ`.
    fn attention_residual(&self, acts: &mut Activations<B>) {
        let (rows, l, backend) = (self.pass.rows, self.layer, self.backend);
        let o = acts.o.get(l, rows);
        self.lora_down(&mut acts.xa, o, &[O]);
        let lora = self.lora_terms(&acts.xa, &[O]);
        let residual = Write::Residual(acts.x.get(l, rows));
        backend.linear(acts.x_mid.get_mut(l, rows), o, &self.block.o, None, &lora, residual);
    }

    fn project_gate_up(&self, acts: &mut Activations<B>) {
        let (rows, l) = (self.pass.rows, self.layer);
        self.norm(&mut acts.normed, &mut acts.rstd_mlp, &acts.x_mid, &self.block.post_attention_layernorm);
        let normed = acts.normed.first(rows.total * self.config.hidden_size);
        self.lora_down(&mut acts.xa, normed, &[Gate, Up]);
        let lora = self.lora_terms(&acts.xa, &[Gate, Up]);
        let gate_up = acts.gate_up.get_mut(l, rows);
        self.backend.linear(gate_up, normed, &self.block.gate_up, None, &lora, Write::Overwrite);
    }

    /// [`Self::project_gate_up`] and [`Self::swiglu`]; the backward finds gate and up of the first `kept`
    /// rows.
    fn gated(&self, acts: &mut Activations<B>, kept: usize) {
        let (rows, l, wide) = (self.pass.rows, self.layer, self.config.intermediate_size);
        self.norm(&mut acts.normed, &mut acts.rstd_mlp, &acts.x_mid, &self.block.post_attention_layernorm);
        let normed = acts.normed.first(rows.total * self.config.hidden_size);
        self.lora_down(&mut acts.xa, normed, &[Gate, Up]);
        let lora = self.lora_terms(&acts.xa, &[Gate, Up]);
        let (h, gate_up) = (acts.mlp.first_mut(rows.total * wide), acts.gate_up.get_mut(l, rows));
        self.backend.gated(h, gate_up, kept, normed, &self.block.gate_up, &lora, wide);
    }

    /// `x[layer + 1] = x_mid + swiglu Wᵀ`.
    fn mlp_residual(&self, acts: &mut Activations<B>) {
        let (rows, l, backend) = (self.pass.rows, self.layer, self.backend);
        self.project_down_a(acts);
        let mlp = acts.mlp.first(rows.total * self.config.intermediate_size);
        let lora = self.lora_terms(&acts.xa, &[Down]);
        let residual = Write::Residual(acts.x_mid.get(l, rows));
        backend.linear(acts.x.get_mut(l + 1, rows), mlp, &self.block.down, None, &lora, residual);
    }

    /// Reverses [`Self::mlp_residual`] and [`Self::project_gate_up`].
    fn mlp_backward(
        &self,
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        dparams: &mut Grads<B>,
    ) {
        let (n, l, backend) = (self.pass.rows.saved, self.layer, self.backend);
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        self.swiglu_backward(acts, grads, dparams);
        let dgate_up = grads.dgate_up.first(2 * n * wide);
        backend.linear_backward(grads.dnormed.first_mut(n * hidden), dgate_up, &self.block.gate_up);
        if self.adapted(&[Gate, Up]) {
            self.norm(
                &mut acts.normed,
                &mut acts.rstd_mlp,
                &acts.x_mid,
                &self.block.post_attention_layernorm,
            );
            let (dnormed, dy) = (grads.dnormed.first_mut(n * hidden), Matrix::new(dgate_up, n, 2 * wide));
            self.lora_backward(
                dparams,
                Some(dnormed),
                dy,
                acts.normed.first(n * hidden),
                &acts.xa,
                &[Gate, Up],
            );
        }
        let (x, rstd) = (acts.x_mid.saved(l, self.pass.rows), acts.rstd_mlp.saved(l, self.pass.rows));
        let (dx, dnormed) = (grads.dx.first_mut(n * hidden), grads.dnormed.first(n * hidden));
        backend.rms_norm_backward(dx, dnormed, x, rstd, self.block.post_attention_layernorm.view());
    }

    /// The gradient of `[gate | up]`, through `down` and SwiGLU.
    fn swiglu_backward(
        &self,
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        dparams: &mut Grads<B>,
    ) {
        let (n, l, backend) = (self.pass.rows.saved, self.layer, self.backend);
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let (dx, down) = (grads.dx.first(n * hidden), &self.block.down);
        let (dgate_up, mut dmlp) = (grads.dgate_up.first_mut(2 * n * wide), grads.dmlp.first_mut(n * wide));
        if !self.adapted(&[Down]) {
            let gate_up = acts.gate_up.saved(l, self.pass.rows);
            return backend.gated_backward(dgate_up, dmlp, dx, down, gate_up, wide);
        }
        backend.linear_backward(dmlp.reborrow(), dx, down);
        self.swiglu(acts);
        let (dy, mlp) = (Matrix::new(dx, n, hidden), acts.mlp.first(n * wide));
        self.lora_backward(dparams, Some(dmlp.reborrow()), dy, mlp, &acts.xa, &[Down]);
        backend.swiglu_backward(dgate_up, dmlp.view(), acts.gate_up.saved(l, self.pass.rows), wide);
    }

    /// Reverses [`Self::attention_residual`], [`Self::attend`] and [`Self::project_qkv`].
    fn attention_backward(
        &self,
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        dparams: &mut Grads<B>,
        segments: &[Segment],
        needs_dx: bool,
    ) {
        let (n, l, backend, heads) = (self.pass.rows.saved, self.layer, self.backend, self.config.heads());
        let (hidden, rows) = (self.config.hidden_size, self.pass.rows);
        let dx = grads.dx.first(n * hidden);
        backend.linear_backward(grads.dout.first_mut(n * heads.q_width()), dx, &self.block.o);
        let o = acts.o.saved(l, rows);
        if self.adapted(&[O]) {
            let dout = grads.dout.first_mut(n * heads.q_width());
            self.lora_backward(dparams, Some(dout), Matrix::new(dx, n, hidden), o, &acts.xa, &[O]);
        }
        let (qkv, lse) = (acts.qkv.saved(l, rows), acts.lse.saved(l, rows));
        let dout = grads.dout.first(n * heads.q_width());
        let mut dqkv = grads.dqkv.first_mut(n * heads.qkv_width());
        let (qkv, to) = (Qkv::packed(qkv, heads), QkvMut::packed(dqkv.reborrow(), heads));
        backend.attention_backward(to, dout, o, lse, qkv, segments, heads);
        self.prefix_backward(dqkv.reborrow(), dparams);
        backend.rope_backward(dqkv, self.pass.positions, self.inv_freq, heads);

        let dqkv = grads.dqkv.first(n * heads.qkv_width());
        let mut dnormed = needs_dx.then(|| grads.dnormed.first_mut(n * hidden));
        if let Some(dnormed) = &mut dnormed {
            backend.linear_backward(dnormed.reborrow(), dqkv, &self.block.qkv);
        }
        if self.adapted(&[Q, K, V]) {
            self.norm(&mut acts.normed, &mut acts.rstd_attention, &acts.x, &self.block.input_layernorm);
            let dy = Matrix::new(dqkv, n, heads.qkv_width());
            self.lora_backward(dparams, dnormed, dy, acts.normed.first(n * hidden), &acts.xa, &[Q, K, V]);
        }
        if needs_dx {
            let (x, rstd) = (acts.x.saved(l, rows), acts.rstd_attention.saved(l, rows));
            let (dx, dnormed) = (grads.dx.first_mut(n * hidden), grads.dnormed.first(n * hidden));
            backend.rms_norm_backward(dx, dnormed, x, rstd, self.block.input_layernorm.view());
        }
    }

    /// The pre-norm of a half block, for all rows of the pass.
    fn norm(
        &self,
        normed: &mut Buffer<B, B::Act>,
        rstd: &mut LayerStack<B, f32>,
        x: &LayerStack<B, B::Act>,
        weight: &Buffer<B, f32>,
    ) {
        let (rows, l) = (self.pass.rows, self.layer);
        let normed = normed.first_mut(rows.total * self.config.hidden_size);
        let eps = self.config.rms_norm_eps;
        self.backend.rms_norm(normed, rstd.get_mut(l, rows), x.get(l, rows), weight.view(), eps);
    }

    /// What the adapter of the down projection makes of SwiGLU's output.
    fn project_down_a(&self, acts: &mut Activations<B>) {
        let mlp = acts.mlp.first(self.pass.rows.total * self.config.intermediate_size);
        self.lora_down(&mut acts.xa, mlp, &[Down]);
    }

    /// SwiGLU of all rows, into `acts.mlp`.
    fn swiglu(&self, acts: &mut Activations<B>) {
        let (rows, wide) = (self.pass.rows, self.config.intermediate_size);
        self.backend.swiglu(acts.mlp.first_mut(rows.total * wide), acts.gate_up.get(self.layer, rows), wide);
    }

    /// This block's adapters among `projections`.
    fn adapters(
        &self,
        projections: &'static [Projection],
    ) -> impl Iterator<Item = (Projection, &'a LoraPair)> {
        let (lora, layer) = (self.pass.adapter.map(|a| a.lora), self.layer);
        projections.iter().filter_map(move |&p| Some((p, lora?.get(layer, p)?)))
    }

    fn adapted(&self, projections: &'static [Projection]) -> bool {
        self.adapters(projections).next().is_some()
    }

    /// First output column of a projection in its fused layer.
    fn column(&self, projection: Projection) -> usize {
        let heads = self.config.heads();
        match projection {
            Q | O | Gate | Down => 0,
            K => heads.q_width(),
            V => heads.q_width() + heads.kv_width(),
            Up => self.config.intermediate_size,
        }
    }

    /// Rows of the adapters' saved `xa`.
    fn xa_rows(&self, adapter: &Adapter<'_, B>) -> Rows {
        Rows { total: adapter.rows, saved: self.pass.rows.saved }
    }

    fn dropout(&self, adapter: &Adapter<'a, B>, pair: &LoraPair) -> Option<Dropout<'a, B>> {
        let d = adapter.dropout?;
        let key = DropoutKey::new(adapter.lora.config.dropout, d.seed, d.step, pair.site)?;
        Some(Dropout { key, row_keys: d.row_keys.slice(0..adapter.rows) })
    }

    fn lora_down(
        &self,
        xa: &mut [LayerStack<B, B::Act>],
        x: Ref<'_, B, B::Act>,
        projections: &'static [Projection],
    ) {
        let Some(adapter) = &self.pass.adapter else { return };
        let (config, rows) = (&adapter.lora.config, self.xa_rows(adapter));
        let x = x.slice(0..x.len() / self.pass.rows.total.max(1) * adapter.rows);
        let first = self.adapters(projections).next().map_or(0, |(_, pair)| pair.index);
        let adapters = xa.iter_mut().skip(first).zip(self.adapters(projections));
        let adapters = adapters.map(|(xa, (_, pair))| LoraDown {
            xa: xa.get_mut(self.layer, rows),
            a: adapter.params.operand(&pair.a),
            dropout: self.dropout(adapter, pair),
        });
        self.backend.lora_down(adapters.collect(), x, config.rank, config.scale());
    }

    fn lora_terms<'x>(
        &self,
        xa: &'x [LayerStack<B, B::Act>],
        projections: &'static [Projection],
    ) -> Vec<LoraTerm<'x, B>>
    where
        'a: 'x,
    {
        let Some(adapter) = self.pass.adapter else { return Vec::new() };
        let term = |(projection, pair): (Projection, &'a LoraPair)| LoraTerm {
            xa: xa[pair.index].get(self.layer, self.xa_rows(&adapter)),
            b: adapter.params.operand(&pair.b),
            column: self.column(projection),
            out_features: pair.b.shape[0],
            rank: adapter.lora.config.rank,
        };
        self.adapters(projections).map(term).collect()
    }

    /// Gradients of the adapters among `projections`, whose layer has the input `x` and the output gradient
    /// `dy`.
    fn lora_backward(
        &self,
        dparams: &mut Grads<B>,
        dx_acc: Option<Mut<'_, B, B::Act>>,
        dy: Matrix<'_, B, B::Act>,
        x: Ref<'_, B, B::Act>,
        xa: &[LayerStack<B, B::Act>],
        projections: &'static [Projection],
    ) {
        let Some(adapter) = &self.pass.adapter else { return };
        let in_order = dparams.each_mut(self.adapters(projections).flat_map(|(_, pair)| [&pair.a, &pair.b]));
        let mut gradients = in_order.into_iter();
        let mut adapters = Vec::new();
        for (projection, pair) in self.adapters(projections) {
            let (Some(da_acc), Some(db_acc)) = (gradients.next(), gradients.next()) else { break };
            adapters.push(LoraBackward {
                da_acc,
                db_acc,
                xa: xa[pair.index].saved(self.layer, self.pass.rows),
                dy: dy.columns(self.column(projection), pair.b.shape[0]),
                a: adapter.params.operand(&pair.a),
                b: adapter.params.operand(&pair.b),
                dropout: self.dropout(adapter, pair),
            });
        }
        self.backend.lora_backward(dx_acc, adapters, x, adapter.lora.config.scale());
    }
}
