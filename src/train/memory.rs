//! Working memory of training: one plan, made before the first step.

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::guard::GuardActivations;
use crate::model::activations::{ActivationGrads, ActivationShape, Activations, Recompute, Rows};
use crate::model::config::Config;
use crate::model::params::Grads;
use crate::model::transformer::Transformer;
use crate::ops::buffer::ALIGNMENT;
use crate::ops::{Arena, Backend, Buffer, PlanRow};
use crate::train::objective::Objective;
use crate::train::results::Results;

/// What helps where training does not fit.
pub(super) const ADVICE: &str = "lower `batch_size` (and raise `gradient_accumulation_steps` by as much: the result is the \
                                 same) or `max_seq_len`, set or lower `micro_batch_tokens`, or choose another `device`";

/// What helps where the base model's states have no room on the device after all.
pub(super) const CACHE_ADVICE: &str =
    "set `base_cache_device_mib` to 0: they are kept in memory of the host then";

/// Most bytes of one chunk of logits, and most rows. Every chunk reads the head's weights three times, so
/// that few rows take longer than their products; there is room for as many with a vocabulary of 152,000.
const LOGITS_BYTES: usize = 336 << 20;
const LOGITS_ROWS: usize = 1152;
/// Rows of a tile of a product: other numbers of rows would be multiplied in vain.
const TILE_ROWS: usize = 128;

/// Device copies of a plan.
pub(super) struct PlanBuffers<B: Backend> {
    pub(super) ids: Buffer<B, u32>,
    pub(super) positions: Buffer<B, u32>,
    pub(super) row_keys: Buffer<B, u32>,
    pub(super) targets: Buffer<B, i32>,
    pub(super) w_ce: Buffer<B, f32>,
    pub(super) w_kl: Buffer<B, f32>,
    pub(super) weights_taps: Buffer<B, f32>,
    pub(super) weights_params: Buffer<B, f32>,
}

impl<B: Backend> PlanBuffers<B> {
    fn new(arena: &mut Arena<B>, rows: Rows, adapter_rows: usize, scored_rows: usize) -> Result<Self> {
        Ok(PlanBuffers {
            ids: arena.buffer("ids", &[rows.total])?,
            positions: arena.buffer("positions", &[rows.total])?,
            row_keys: arena.buffer("row keys", &[adapter_rows])?,
            targets: arena.buffer("targets", &[adapter_rows])?,
            w_ce: arena.buffer("weights of the cross-entropy", &[adapter_rows])?,
            w_kl: arena.buffer("weights of the KL divergence", &[adapter_rows])?,
            weights_taps: arena.buffer("score weights, taps", &[scored_rows])?,
            weights_params: arena.buffer("score weights, parameters", &[scored_rows])?,
        })
    }

    /// Bytes of all of them.
    fn bytes(&self) -> usize {
        let of_rows = [self.ids.len(), self.positions.len()];
        // A second sweep brings its own weights of the cross-entropy.
        let losses = [self.targets.len(), self.w_ce.len(), self.w_ce.len(), self.w_kl.len()];
        let weights = [self.weights_taps.len(), self.weights_params.len()];
        let lengths = of_rows.into_iter().chain([self.row_keys.len()]).chain(losses).chain(weights);
        lengths.map(|len| (len * size_of::<u32>()).next_multiple_of(ALIGNMENT)).sum()
    }
}

/// All working memory of training.
pub(super) struct Memory<B: Backend> {
    pub(super) plan: PlanBuffers<B>,
    pub(super) acts: Activations<B>,
    pub(super) grads: ActivationGrads<B>,
    /// Where there is a guard.
    pub(super) guard: Option<GuardActivations<B>>,
    /// Gradients of a micro-batch, then those of the step.
    pub(super) dparams: Grads<B>,
    /// `[parameters + 1]` exact sums of the micro-batches' gradients, see
    /// [`exact_add`](crate::ops::optim::Optim::exact_add).
    pub(super) sums: Buffer<B, i64>,
    pub(super) results: Results<B>,
    /// `[chunk, vocab_size]` logits with adapters, then their gradient.
    pub(super) logits: Buffer<B, B::Act>,
    /// Where there is a KL term.
    pub(super) base: Option<BaseBuffers<B>>,
}

/// What the base model makes of the same tokens.
pub(super) struct BaseBuffers<B: Backend> {
    /// `[saved rows, hidden_size]` head input.
    pub(super) hidden: Buffer<B, B::Act>,
    /// `[chunk, vocab_size]` logits.
    pub(super) logits: Buffer<B, B::Act>,
}

impl<B: Backend> Memory<B> {
    /// Most bytes that are uploaded for a micro-batch, without states of the base model or with them, as
    /// those are that come from a file.
    pub(super) fn input_bytes(&self, with_base: bool) -> usize {
        let base = self.base.as_ref().filter(|_| with_base).map_or(0, |base| base.hidden.len());
        self.plan.bytes() + (base * size_of::<B::Act>()).next_multiple_of(ALIGNMENT)
    }
}

/// Bytes that training takes of a device's own memory, at its peak: the model, what is trained, working
/// memory and what the device needs for itself. `None` in the system's memory.
pub(super) fn device_bytes<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    plan: &[PlanRow],
) -> Option<usize> {
    let all = model.device_bytes() + attached.params.bytes() + PlanRow::total(plan);
    (!B::IN_SYSTEM_MEMORY).then_some(all)
}

/// First and second moments of AdamW, laid out like the parameters.
pub struct Moments<B: Backend> {
    /// First moment.
    pub m: Buffer<B, f32>,
    /// Second moment.
    pub v: Buffer<B, f32>,
    /// Updates made.
    pub t: u32,
}

/// What the working memory is sized for.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) shape: ActivationShape,
    /// Rows of one chunk of logits.
    pub(super) chunk: usize,
    /// Whether the base model is compared with.
    with_base: bool,
}

impl Sizes {
    fn new<B: Backend>(
        model: &Transformer<B>,
        attached: &Attached<B>,
        objective: &Objective,
        (rows, adapter_rows): (Rows, usize),
        recompute: Recompute,
    ) -> Self {
        let row_bytes = model.config.vocab_size * size_of::<B::Act>();
        let shape = ActivationShape {
            rows,
            adapter_rows,
            taps: attached.taps(),
            adapters: attached.adapters_per_layer(),
            rank: attached.rank(),
            recompute,
        };
        let most = (LOGITS_BYTES / row_bytes).clamp(16, LOGITS_ROWS);
        // The gradient of the head's input, which has the fewest tiles of its products, and large k.
        let waves = |rows| model.backend.waves(rows, model.config.hidden_size);
        let chunk = logits_chunk(most, adapter_rows, waves);
        Sizes { shape, chunk: chunk.min(adapter_rows.max(1)), with_base: objective.kl_weight != 0.0 }
    }

    pub(super) fn allocate<B: Backend>(
        self,
        arena: &mut Arena<B>,
        model: &Transformer<B>,
        attached: &Attached<B>,
    ) -> Result<(Memory<B>, Moments<B>)> {
        let (config, shape, layout) = (&model.config, self.shape, attached.params.layout());
        let (rows, adapter_rows) = (shape.rows, shape.adapter_rows);
        let scored_rows = if attached.guard.is_some() { adapter_rows } else { 0 };
        let guard = attached.guard.as_ref();
        let memory = Memory {
            plan: PlanBuffers::new(arena, rows, adapter_rows, scored_rows)?,
            acts: Activations::new(arena, config, shape)?,
            grads: ActivationGrads::new(arena, config, rows.saved, shape.taps)?,
            guard: guard.map(|guard| GuardActivations::new(arena, guard, adapter_rows, true)).transpose()?,
            dparams: Grads::new(arena, layout)?,
            sums: arena.buffer("sums of gradients", &[layout.len() + 1])?,
            results: Results::new(arena, adapter_rows, guard.is_some())?,
            logits: arena.buffer("logits", &[self.chunk, config.vocab_size])?,
            base: self.with_base.then(|| self.base_buffers(arena, config)).transpose()?,
        };
        let m = arena.buffer("first moments", &[layout.len()])?;
        let v = arena.buffer("second moments", &[layout.len()])?;
        Ok((memory, Moments { m, v, t: 0 }))
    }

    fn base_buffers<B: Backend>(self, arena: &mut Arena<B>, config: &Config) -> Result<BaseBuffers<B>> {
        Ok(BaseBuffers {
            hidden: arena.buffer("base hidden", &[self.shape.rows.saved, config.hidden_size])?,
            logits: arena.buffer("base logits", &[self.chunk, config.vocab_size])?,
        })
    }
}

/// Rows of a chunk of logits, at most `most`, with which all `rows` take the fewest waves of tiles; the
/// largest of those. `waves` are those of a chunk.
fn logits_chunk(most: usize, rows: usize, waves: impl Fn(usize) -> usize) -> usize {
    let in_all = |chunk: &usize| rows.div_ceil(*chunk) * waves(*chunk);
    let chunks = (1..=most / TILE_ROWS).rev().map(|tiles| tiles * TILE_ROWS);
    chunks.min_by_key(in_all).unwrap_or(most)
}

/// Bytes of the system's memory for what a checkpoint is written from: copies of both moments.
fn saved_copies<B: Backend>(attached: &Attached<B>) -> usize {
    let values = attached.params.layout().parameter_count();
    if B::IN_SYSTEM_MEMORY { 2 * values * size_of::<f32>() } else { 0 }
}

/// The sizes of the first policy whose plan fits, and that plan.
pub(super) fn fitting_sizes<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    objective: &Objective,
    capacity: (Rows, usize),
    policies: &[Recompute],
) -> Result<(Sizes, Vec<PlanRow>)> {
    let free = model.backend.free_memory();
    let mut needed = 0;
    for &recompute in policies {
        let sizes = Sizes::new(model, attached, objective, capacity, recompute);
        let plan = Arena::<B>::plan(|arena| sizes.allocate(arena, model, attached))?;
        needed = PlanRow::total(&plan) + saved_copies(attached);
        if needed <= free {
            return Ok((sizes, plan));
        }
    }
    let (needed, free) = (needed.div_ceil(1 << 20), free >> 20);
    Err(Error::memory(format!("training needs {needed} MiB of memory, {free} MiB are free"))
        .memory_advice(ADVICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs of tiles of 128 × 256 that are neighbours along rows or columns, of which 66 are computed at the
    /// same time.
    fn waves(hidden_size: usize) -> impl Fn(usize) -> usize {
        move |rows| {
            let (along_rows, along_columns) = (rows.div_ceil(128), hidden_size.div_ceil(256));
            let pairs = [along_rows.div_ceil(2) * along_columns, along_rows * along_columns.div_ceil(2)];
            pairs[0].min(pairs[1]).div_ceil(66)
        }
    }

    #[test]
    fn chunks_of_logits_fill_waves() {
        // 9 × 7 pairs are one wave, six times; 8 × 7 are one, and are needed seven times.
        assert_eq!(logits_chunk(1152, 6912, waves(3584)), 1152);
        // 6 × 10 pairs are one wave, nine times; 9 × 10 are two, six times.
        assert_eq!(logits_chunk(1152, 6912, waves(5120)), 768);
        // The fewest chunks where tiles do not matter, or none fits.
        assert_eq!(logits_chunk(1100, 6912, |_| 1), 1024);
        assert_eq!(logits_chunk(100, 6912, |_| 1), 100);
    }
}
