//! A forward pass of a batch plan whose intermediate values can be looked at.

use deepguard::attached::Attached;
use deepguard::error::Result;
use deepguard::guard::{GuardActivations, GuardPass};
use deepguard::model::Transformer;
use deepguard::model::activations::{ActivationShape, Activations, Recompute, Rows};
use deepguard::model::block::{Keys, Pass};
use deepguard::ops::{Arena, Backend, Buffer};
use deepguard::train::batch::{BatchPlan, Passes, PlanOptions, TokenPair};

/// The intermediate values of a forward pass.
pub struct Probe<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: &'a Attached<B>,
    plan: BatchPlan,
    acts: Activations<B>,
    guard: GuardActivations<B>,
    ids: Buffer<B, u32>,
}

impl<'a, B: Backend> Probe<'a, B> {
    /// Runs the three passes of `pairs` as training does, without dropout.
    pub fn of_pairs(
        model: &'a Transformer<B>,
        attached: &'a Attached<B>,
        pairs: &[TokenPair],
        share_prefix: bool,
    ) -> Result<Self> {
        let pairs: Vec<&TokenPair> = pairs.iter().collect();
        let longest = pairs.iter().map(|p| p.secure.len().max(p.vulnerable.len())).max();
        let options = PlanOptions {
            passes: Passes::Compared,
            share_prefix,
            predict_suffix: false,
            ignore_token: None,
            max_seq_len: longest.unwrap_or(0),
        };
        Self::of_plan(model, attached, BatchPlan::new(&pairs, 0, |_| true, options))
    }

    /// Runs one sequence with adapters.
    pub fn of_sequence(model: &'a Transformer<B>, attached: &'a Attached<B>, ids: &[u32]) -> Result<Self> {
        let pair = TokenPair::new(0, ids.to_vec(), ids.to_vec());
        let options = PlanOptions {
            passes: Passes::Compared,
            share_prefix: true,
            predict_suffix: false,
            ignore_token: None,
            max_seq_len: ids.len(),
        };
        Self::of_plan(model, attached, BatchPlan::new(&[&pair], 0, |_| false, options))
    }

    fn of_plan(model: &'a Transformer<B>, attached: &'a Attached<B>, plan: BatchPlan) -> Result<Self> {
        let (backend, rows) = (&model.backend, Rows::forward_only(plan.ids.len()));
        let shape = ActivationShape {
            rows,
            adapter_rows: plan.adapter_rows,
            taps: attached.taps(),
            adapters: attached.adapters_per_layer(),
            rank: attached.rank(),
            recompute: Recompute::Forward,
        };
        let ((mut acts, mut guard, mut ids, mut positions), _) = Arena::build(backend, |arena| {
            let acts = Activations::new(arena, &model.config, shape)?;
            let guard = GuardActivations::new(arena, attached.require_guard()?, plan.adapter_rows, false)?;
            Ok((acts, guard, arena.buffer("ids", &[rows.total])?, arena.buffer("positions", &[rows.total])?))
        })?;
        backend.upload(ids.view_mut(), &plan.ids);
        backend.upload(positions.view_mut(), &plan.positions);
        let adapter = attached.adapter(plan.adapter_rows, None);
        let pass = Pass { rows, positions: positions.view(), adapter, prefix: None };
        let mut keys = Keys::Packed(&plan.segments);
        model.forward(&mut acts, ids.view(), pass, &mut keys, attached.taps(), plan.adapter_rows);
        attached.require_guard()?.prepare(backend, &attached.params, &mut guard);
        let probe = Probe { model, attached, plan, acts, guard, ids };
        probe.scored()
    }

    fn scored(mut self) -> Result<Self> {
        let pass = guard_pass(self.model, self.attached, &self.plan, &self.acts, &self.ids);
        self.attached.require_guard()?.forward(&pass, &mut self.guard);
        Ok(self)
    }

    /// Rows of pair `i`'s secure function.
    pub fn secure_rows(&self, i: usize) -> Vec<usize> {
        self.plan.pairs[i].secure.clone().collect()
    }

    /// Rows of pair `i`'s vulnerable function.
    pub fn vulnerable_rows(&self, i: usize) -> Vec<usize> {
        self.plan.vulnerable_rows(&self.plan.pairs[i]).collect()
    }

    /// Rows of pair `i`'s base pass.
    pub fn base_rows(&self, i: usize) -> Vec<usize> {
        self.plan.pairs[i].base.clone().unwrap_or_default().collect()
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.attached.taps()
    }

    /// One tap of one row.
    pub fn tap(&self, tap: usize, row: usize) -> Vec<f32> {
        let width = self.model.config.hidden_size;
        let from = (tap * self.plan.adapter_rows + row) * width;
        self.model.backend.download_act(self.acts.taps.slice(from..from + width))
    }

    /// The aggregate of every row with adapters, `[rows, hidden_size]`.
    pub fn aggregates(&self) -> Vec<f32> {
        let pass = guard_pass(self.model, self.attached, &self.plan, &self.acts, &self.ids);
        self.attached
            .guard
            .as_ref()
            .map(|guard| guard.explicit_aggregate(&pass, &self.guard))
            .unwrap_or_default()
    }

    /// The score of every row with adapters.
    pub fn scores(&self) -> Vec<f32> {
        self.model.backend.to_host(self.guard.scores.first(self.plan.adapter_rows))
    }

    /// The logits of one row.
    pub fn logits(&self, row: usize) -> Result<Vec<f32>> {
        let (backend, config) = (&self.model.backend, &self.model.config);
        let (mut logits, _) = Arena::build(backend, |arena| arena.buffer("logits", &[config.vocab_size]))?;
        let width = config.hidden_size;
        self.model.head(logits.view_mut(), self.acts.hidden.slice(row * width..(row + 1) * width));
        Ok(backend.download_act(logits.view()))
    }
}

fn guard_pass<'x, B: Backend>(
    model: &'x Transformer<B>,
    attached: &'x Attached<B>,
    plan: &BatchPlan,
    acts: &'x Activations<B>,
    ids: &'x Buffer<B, u32>,
) -> GuardPass<'x, B> {
    GuardPass {
        backend: &model.backend,
        params: &attached.params,
        taps: acts.taps.first(attached.taps() * plan.adapter_rows * model.config.hidden_size),
        ids: ids.first(plan.adapter_rows),
        rows: plan.adapter_rows,
        dropout: None,
    }
}
