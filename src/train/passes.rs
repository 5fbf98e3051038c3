//! The passes of a micro-batch through language model and guard.

use crate::attached::Attached;
use crate::error::Result;
use crate::guard::{GuardPass, GuardUpstream};
use crate::model::activations::Activations;
use crate::model::block::{AdapterDropout, Keys, Pass};
use crate::model::transformer::Upstream;
use crate::ops::Backend;
use crate::train::batch::BatchPlan;
use crate::train::memory::{Memory, PlanBuffers};
use crate::train::step::Stepper;

impl<B: Backend> Stepper<'_, B> {
    /// Uploads the plan, runs the language model and the guard, and has the base hidden states in place.
    pub(super) fn forward(&mut self, plan: &BatchPlan, step: Option<u32>) -> Result<()> {
        let (model, backend) = (self.model, &self.model.backend);
        let Memory { plan: buffers, .. } = &mut self.memory;
        let rows = plan.rows();
        backend.upload(buffers.ids.first_mut(rows.total), &plan.ids);
        backend.upload(buffers.positions.first_mut(rows.total), &plan.positions);
        backend.upload(buffers.row_keys.first_mut(plan.adapter_rows), &plan.row_keys);
        backend.upload(buffers.targets.first_mut(plan.adapter_rows), &plan.targets);
        backend.upload(buffers.w_ce.first_mut(plan.adapter_rows), &plan.w_ce);
        backend.upload(buffers.w_kl.first_mut(plan.adapter_rows), &plan.w_kl);
        self.recall_base_hidden(plan)?;

        let Memory { plan: buffers, acts, guard: guard_acts, .. } = &mut self.memory;
        let pass = pass(&self.attached, buffers, plan, dropout(buffers, self.objective.seed, step));
        let ids = buffers.ids.first(rows.total);
        let taps = self.attached.taps();
        model.forward(acts, ids, pass, &mut Keys::Packed(&plan.segments), taps, plan.adapter_rows);
        if let (Some(guard), Some(guard_acts)) = (&self.guard, guard_acts) {
            let seed = self.objective.seed;
            guard.forward(&guard_pass(&self.attached, backend, buffers, acts, plan, seed, step), guard_acts);
        }
        backend.join_prefetches();
        self.collect_base_hidden(plan);
        self.keep_base_hidden(plan)
    }

    pub(super) fn backward(&mut self, plan: &BatchPlan, step: Option<u32>) {
        let (model, backend) = (self.model, &self.model.backend);
        let Memory { plan: buffers, acts, grads, guard: guard_acts, dparams, .. } = &mut self.memory;
        let n = plan.saved_rows;
        let taps = if self.expected.hinge_active { self.attached.taps() } else { 0 };
        if let (Some(guard), Some(guard_acts), true) = (&self.guard, guard_acts, taps > 0) {
            let guard_pass =
                guard_pass(&self.attached, backend, buffers, acts, plan, self.objective.seed, step);
            let upstream = GuardUpstream {
                dtaps: grads.dtaps.first_mut(taps * n * model.config.hidden_size),
                dtap_rows: n,
                row_weight_params: buffers.weights_params.first(plan.adapter_rows),
                row_weight_taps: buffers.weights_taps.first(plan.adapter_rows),
            };
            guard.backward(&guard_pass, guard_acts, dparams, upstream);
        }
        let pass =
            pass(&self.attached, buffers, plan, dropout(buffers, self.objective.seed, step)).saved_only();
        model.backward(acts, grads, dparams, pass, &Upstream { segments: plan.saved_segments(), taps });
    }
}

fn dropout<B: Backend>(
    buffers: &PlanBuffers<B>,
    seed: u64,
    step: Option<u32>,
) -> Option<AdapterDropout<'_, B>> {
    step.map(|step| AdapterDropout { seed, step, row_keys: buffers.row_keys.view() })
}

fn pass<'a, B: Backend>(
    attached: &'a Attached<B>,
    buffers: &'a PlanBuffers<B>,
    plan: &'a BatchPlan,
    dropout: Option<AdapterDropout<'a, B>>,
) -> Pass<'a, B> {
    let rows = plan.rows();
    Pass {
        rows,
        positions: buffers.positions.first(rows.total),
        adapter: attached.adapter(plan.adapter_rows, dropout),
        prefix: attached.prefixes(&plan.prefixes, dropout),
    }
}

fn guard_pass<'a, B: Backend>(
    attached: &'a Attached<B>,
    backend: &'a B,
    buffers: &'a PlanBuffers<B>,
    acts: &'a Activations<B>,
    plan: &BatchPlan,
    seed: u64,
    step: Option<u32>,
) -> GuardPass<'a, B> {
    let n = plan.adapter_rows;
    let width = attached.guard.as_ref().map_or(0, |guard| guard.taps * guard.hidden_size());
    GuardPass {
        backend,
        params: &attached.params,
        taps: acts.taps.first(width * n),
        ids: buffers.ids.first(n),
        rows: n,
        dropout: dropout(buffers, seed, step),
    }
}
