//! Activation memory of the forward and backward passes, planned once for the largest batch.

use crate::error::Result;
use crate::model::config::Config;
use crate::ops::attention::Heads;
use crate::ops::{Arena, Backend, Buffer, Element, Mut, Ref};

/// Rows of a packed batch: `[saved | the rest]`. Only the first `saved` rows get a backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows of the pass.
    pub total: usize,
    /// Rows whose activations the backward needs.
    pub saved: usize,
}

impl Rows {
    /// Rows of a forward pass without a backward.
    pub fn forward_only(total: usize) -> Self {
        Rows { total, saved: 0 }
    }
}

/// How much of the forward pass is kept for the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Keep everything.
    Nothing,
    /// Keep all but the gate and up projections.
    GateUp,
    /// Keep the inputs of the blocks only.
    Block,
    /// Keep nothing: there is no backward.
    Forward,
}

/// One tensor of every layer.
///
/// Layer `l` starts at row `l · saved`, so the rows beyond `saved`, which only the forward pass of that layer reads,
/// lie where the next layer will be written. A tensor that is not kept uses the same rows for every layer.
pub struct LayerStack<B: Backend, T> {
    buffer: Buffer<B, T>,
    width: usize,
    kept: bool,
}

impl<B: Backend, T: Element> LayerStack<B, T> {
    fn new(
        arena: &mut Arena<B>,
        name: &str,
        layers: usize,
        capacity: Rows,
        width: usize,
        kept: bool,
    ) -> Result<Self> {
        let earlier = if kept { (layers - 1) * capacity.saved } else { 0 };
        Ok(LayerStack { buffer: arena.buffer(name, &[earlier + capacity.total, width])?, width, kept })
    }

    fn range(&self, layer: usize, rows: Rows) -> std::ops::Range<usize> {
        let start = if self.kept { layer * rows.saved * self.width } else { 0 };
        start..start + rows.total * self.width
    }

    /// The tensor of a layer, with all rows.
    pub fn get(&self, layer: usize, rows: Rows) -> Ref<'_, B, T> {
        self.buffer.slice(self.range(layer, rows))
    }

    /// The tensor of a layer, with all rows, for writing.
    pub fn get_mut(&mut self, layer: usize, rows: Rows) -> Mut<'_, B, T> {
        self.buffer.slice_mut(self.range(layer, rows))
    }

    /// The rows of a layer that the backward reads.
    pub fn saved(&self, layer: usize, rows: Rows) -> Ref<'_, B, T> {
        self.get(layer, Rows { total: rows.saved, saved: rows.saved })
    }
}

/// Everything the blocks write.
pub struct Activations<B: Backend> {
    /// `[layers + 1][rows, hidden_size]` residual stream entering each block; the last entry leaves the last block.
    pub x: LayerStack<B, B::Act>,
    /// `[layers][rows]` 1/rms before attention.
    pub rstd_attention: LayerStack<B, f32>,
    /// `[layers][rows, qkv_width]` after RoPE.
    pub qkv: LayerStack<B, B::Act>,
    /// `[layers][rows, q_width]` attention output.
    pub o: LayerStack<B, B::Act>,
    /// `[layers][rows, query heads]` log-sum-exp of the attention scores.
    pub lse: LayerStack<B, f32>,
    /// `[layers][rows, hidden_size]` residual stream between attention and feed-forward.
    pub x_mid: LayerStack<B, B::Act>,
    /// `[layers][rows]` 1/rms before the feed-forward.
    pub rstd_mlp: LayerStack<B, f32>,
    /// `[layers][rows, 2 · intermediate_size]` gate and up projections; a backend may write those of saved rows only.
    pub gate_up: LayerStack<B, B::Act>,
    /// `[adapters per layer][layers][rows, rank]` what each adapter's A made of its input.
    pub xa: Vec<LayerStack<B, B::Act>>,
    /// `[rows, hidden_size]` output of a block's norm.
    pub normed: Buffer<B, B::Act>,
    /// `[rows, intermediate_size]` SwiGLU's output.
    pub mlp: Buffer<B, B::Act>,
    /// `[rows, hidden_size]` after the final norm: the last tap, and the head's input.
    pub hidden: Buffer<B, B::Act>,
    /// `[rows]` 1/rms of the final norm.
    pub rstd_final: Buffer<B, f32>,
    /// `[N, adapter rows, hidden_size]` hidden states for the guard.
    pub taps: Buffer<B, B::Act>,
    /// What is kept.
    pub recompute: Recompute,
}

/// What activations are sized for.
#[derive(Clone, Copy, Debug)]
pub struct ActivationShape {
    /// The largest number of rows.
    pub rows: Rows,
    /// The largest number of rows with adapters (those that are tapped).
    pub adapter_rows: usize,
    /// Number of taps, 0 without a guard.
    pub taps: usize,
    /// Adapters per layer.
    pub adapters: usize,
    /// LoRA rank.
    pub rank: usize,
    /// What is kept for the backward.
    pub recompute: Recompute,
}

impl<B: Backend> Activations<B> {
    /// Plans all buffers.
    pub fn new(arena: &mut Arena<B>, config: &Config, shape: ActivationShape) -> Result<Self> {
        let (layers, heads) = (config.num_hidden_layers, config.heads());
        let (rows, hidden) = (shape.rows, config.hidden_size);
        let keep_inputs = shape.recompute != Recompute::Forward;
        let keep_block = matches!(shape.recompute, Recompute::Nothing | Recompute::GateUp);
        let keep_mlp = shape.recompute == Recompute::Nothing;
        let adapter_rows = Rows { total: shape.adapter_rows, saved: rows.saved };
        let xa = |arena: &mut Arena<B>| {
            LayerStack::new(arena, "lora xa", layers, adapter_rows, shape.rank, keep_block)
        };
        let total = rows.total;
        let wide = heads.qkv_width();
        Ok(Activations {
            x: LayerStack::new(arena, "x", layers + 1, rows, hidden, keep_inputs)?,
            rstd_attention: LayerStack::new(arena, "rstd attention", layers, rows, 1, keep_block)?,
            qkv: LayerStack::new(arena, "qkv", layers, rows, wide, keep_block)?,
            o: LayerStack::new(arena, "o", layers, rows, heads.q_width(), keep_block)?,
            lse: LayerStack::new(arena, "lse", layers, rows, heads.query, keep_block)?,
            x_mid: LayerStack::new(arena, "x mid", layers, rows, hidden, keep_block)?,
            rstd_mlp: LayerStack::new(arena, "rstd mlp", layers, rows, 1, keep_block)?,
            gate_up: LayerStack::new(arena, "gate up", layers, rows, 2 * config.intermediate_size, keep_mlp)?,
            xa: (0..shape.adapters).map(|_| xa(arena)).collect::<Result<_>>()?,
            normed: arena.buffer("normed", &[total, hidden])?,
            mlp: arena.buffer("mlp", &[total, config.intermediate_size])?,
            hidden: arena.buffer("hidden", &[total, hidden])?,
            rstd_final: arena.buffer("rstd final", &[total])?,
            taps: arena.buffer("taps", &[shape.taps, shape.adapter_rows, hidden])?,
            recompute: shape.recompute,
        })
    }
}

/// Gradients on their way down, `[saved rows, …]`, one block at a time.
pub struct ActivationGrads<B: Backend> {
    /// `[rows, hidden_size]` of the residual stream.
    pub dx: Buffer<B, B::Act>,
    /// `[rows, hidden_size]` of a norm's output.
    pub dnormed: Buffer<B, B::Act>,
    /// `[rows, q_width]` of the attention output.
    pub dout: Buffer<B, B::Act>,
    /// `[rows, qkv_width]`.
    pub dqkv: Buffer<B, B::Act>,
    /// `[rows, intermediate_size]`.
    pub dmlp: Buffer<B, B::Act>,
    /// `[rows, 2 · intermediate_size]`.
    pub dgate_up: Buffer<B, B::Act>,
    /// `[N, rows, hidden_size]` of the taps.
    pub dtaps: Buffer<B, B::Act>,
    /// `[rows, hidden_size]` of the final norm's output.
    pub dhidden: Buffer<B, B::Act>,
}

impl<B: Backend> ActivationGrads<B> {
    /// Plans all buffers for at most `rows` rows.
    pub fn new(arena: &mut Arena<B>, config: &Config, rows: usize, taps: usize) -> Result<Self> {
        let (heads, hidden, wide) = (config.heads(), config.hidden_size, config.intermediate_size);
        Ok(ActivationGrads {
            dx: arena.buffer("dx", &[rows, hidden])?,
            dnormed: arena.buffer("dnormed", &[rows, hidden])?,
            dout: arena.buffer("dout", &[rows, heads.q_width()])?,
            dqkv: arena.buffer("dqkv", &[rows, heads.qkv_width()])?,
            dmlp: arena.buffer("dmlp", &[rows, wide])?,
            dgate_up: arena.buffer("dgate up", &[rows, 2 * wide])?,
            dtaps: arena.buffer("dtaps", &[taps, rows, hidden])?,
            dhidden: arena.buffer("dhidden", &[rows, hidden])?,
        })
    }
}

impl Config {
    /// The attention heads.
    pub fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, key_value: self.num_key_value_heads, dim: self.head_dim }
    }
}
