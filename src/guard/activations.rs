//! Memory of the guard's forward and backward.

use crate::error::Result;
use crate::guard::{Aggregation, EMBEDDING_WIDTH, Guard, HIDDEN_WIDTHS};
use crate::ops::{Arena, Backend, Buffer, Ref};

/// What the aggregator writes when it attends over the taps.
pub struct AggregatorActivations<B: Backend> {
    /// `[rows, hidden_size]` query.
    pub q: Buffer<B, B::Act>,
    /// `[rows, hidden_size]` `Wkᵀ q`.
    pub u: Buffer<B, B::Act>,
    /// `[rows, N]` attention weights over the taps.
    pub weights: Buffer<B, f32>,
    /// `[rows, hidden_size]` weighted sum of the taps.
    pub context: Buffer<B, B::Act>,
    /// `[512, hidden_size]` `W1h Wo`.
    pub first_output: Buffer<B, B::Act>,
    /// `[512, hidden_size]` `W1h Wo Wv`.
    pub folded: Buffer<B, B::Act>,
    /// `[hidden_size]` `Wo bv + bo`.
    pub constant: Buffer<B, B::Act>,
    /// `[512]` `W1h (Wo bv + bo) + b1`.
    pub folded_bias: Buffer<B, B::Act>,
    /// `[rows, N]`.
    pub dscores: Buffer<B, f32>,
    /// `[rows, hidden_size]`.
    pub du: Buffer<B, B::Act>,
    /// `[rows, hidden_size]`.
    pub dq: Buffer<B, B::Act>,
    /// `[rows, hidden_size]`.
    pub dmean: Buffer<B, B::Act>,
    /// `[512, hidden_size]` `G = Σ w δ cᵀ`.
    pub g: Buffer<B, B::Act>,
    /// `[512]` `d = Σ w δ`.
    pub d: Buffer<B, f32>,
    /// `[512, hidden_size]` `K = G Wvᵀ + d bvᵀ`.
    pub k: Buffer<B, B::Act>,
    /// `[512]` d as an operand.
    pub d_operand: Buffer<B, B::Act>,
}

/// Everything the guard writes, for at most `capacity` rows.
pub struct GuardActivations<B: Backend> {
    /// Present with the attention method.
    pub aggregator: Option<AggregatorActivations<B>>,
    /// `[rows, hidden_size]` mean of the taps.
    pub mean: Buffer<B, B::Act>,
    /// `[rows, 128]` security embeddings.
    pub embedded: Buffer<B, B::Act>,
    /// `[rows, 512]` and `[rows, 256]` inputs of the norms.
    pub z: [Buffer<B, B::Act>; 2],
    /// `[rows, 2]` of each norm.
    pub stats: [Buffer<B, f32>; 2],
    /// `[rows, 512]`, `[rows, 256]`, `[rows, 128]` outputs of the hidden layers.
    pub h: [Buffer<B, B::Act>; 3],
    /// `[rows]` scores.
    pub scores: Buffer<B, f32>,
    /// Gradients of `h`.
    pub dh: [Buffer<B, B::Act>; 3],
    /// Gradients of `z`.
    pub dz: [Buffer<B, B::Act>; 2],
    /// `[rows, 128]`.
    pub dembedded: Buffer<B, B::Act>,
    /// `[rows, hidden_size]` gradient of the aggregate (of the context, when attending).
    pub daggregate: Buffer<B, B::Act>,
    /// Number of taps N.
    taps: usize,
}

impl<B: Backend> AggregatorActivations<B> {
    fn new(arena: &mut Arena<B>, rows: usize, hidden: usize, taps: usize, backward: usize) -> Result<Self> {
        let first = HIDDEN_WIDTHS[0];
        let first_grad = if backward > 0 { first } else { 0 };
        Ok(AggregatorActivations {
            q: arena.buffer("aggregator q", &[rows, hidden])?,
            u: arena.buffer("aggregator u", &[rows, hidden])?,
            weights: arena.buffer("aggregator weights", &[rows, taps])?,
            context: arena.buffer("aggregator context", &[rows, hidden])?,
            first_output: arena.buffer("aggregator W1h Wo", &[first, hidden])?,
            folded: arena.buffer("aggregator W1h Wo Wv", &[first, hidden])?,
            constant: arena.buffer("aggregator constant", &[hidden])?,
            folded_bias: arena.buffer("aggregator folded bias", &[first])?,
            dscores: arena.buffer("aggregator dscores", &[backward, taps])?,
            du: arena.buffer("aggregator du", &[backward, hidden])?,
            dq: arena.buffer("aggregator dq", &[backward, hidden])?,
            dmean: arena.buffer("aggregator dmean", &[backward, hidden])?,
            g: arena.buffer("aggregator G", &[first_grad, hidden])?,
            d: arena.buffer("aggregator d", &[first_grad])?,
            k: arena.buffer("aggregator K", &[first_grad, hidden])?,
            d_operand: arena.buffer("aggregator d operand", &[first_grad])?,
        })
    }
}

impl<B: Backend> GuardActivations<B> {
    /// Plans all buffers for `rows` rows; those of the backward only when `training`.
    pub fn new(arena: &mut Arena<B>, guard: &Guard, rows: usize, training: bool) -> Result<Self> {
        let (hidden, [w1, w2, w3]) = (guard.hidden_size, HIDDEN_WIDTHS);
        let backward = if training { rows } else { 0 };
        let attends = guard.config.aggregation == Aggregation::Attention;
        let aggregator = attends
            .then(|| AggregatorActivations::new(arena, rows, hidden, guard.taps, backward))
            .transpose()?;
        Ok(GuardActivations {
            aggregator,
            mean: arena.buffer("tap mean", &[rows, hidden])?,
            embedded: arena.buffer("security embedding", &[rows, EMBEDDING_WIDTH])?,
            z: [arena.buffer("analyzer z1", &[rows, w1])?, arena.buffer("analyzer z2", &[rows, w2])?],
            stats: [
                arena.buffer("analyzer stats1", &[rows, 2])?,
                arena.buffer("analyzer stats2", &[rows, 2])?,
            ],
            h: [
                arena.buffer("analyzer h1", &[rows, w1])?,
                arena.buffer("analyzer h2", &[rows, w2])?,
                arena.buffer("analyzer h3", &[rows, w3])?,
            ],
            scores: arena.buffer("scores", &[rows])?,
            dh: [
                arena.buffer("analyzer dh1", &[backward, w1])?,
                arena.buffer("analyzer dh2", &[backward, w2])?,
                arena.buffer("analyzer dh3", &[backward, w3])?,
            ],
            dz: [
                arena.buffer("analyzer dz1", &[backward, w1])?,
                arena.buffer("analyzer dz2", &[backward, w2])?,
            ],
            dembedded: arena.buffer("analyzer dembedding", &[backward, EMBEDDING_WIDTH])?,
            daggregate: arena.buffer("daggregate", &[backward, hidden])?,
            taps: guard.taps,
        })
    }

    /// `[rows, N]` attention over the taps in the last forward; `None` unless the guard attends.
    pub fn attention(&self, rows: usize) -> Option<Ref<'_, B, f32>> {
        self.aggregator.as_ref().map(|aggregator| aggregator.weights.first(rows * self.taps))
    }
}
