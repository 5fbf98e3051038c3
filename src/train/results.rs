//! What a step computes for the host: row losses, row scores and the gradient norm, fetched together, so that
//! a device is waited for once a step.

use std::ops::Range;

use crate::error::Result;
use crate::ops::{Arena, Backend, Buffer, Mut};
use crate::train::batch::BatchPlan;

/// Micro-batches of the largest size that are fetched together.
const MICRO_BATCHES: usize = 8;

/// Elements before those of the rows: the sum of squared gradients, an f64 in two f32.
const HEADER: usize = 2;

/// Per-row results of a micro-batch.
pub struct RowResults {
    /// `[adapter rows]` negative log-likelihood of each row's target.
    pub nll: Vec<f32>,
    /// `[saved rows]` KL divergence.
    pub kl: Vec<f32>,
    /// `[adapter rows]` scores; empty without a guard.
    pub scores: Vec<f32>,
    /// `[adapter rows, N]` the guard's attention over the taps, of an evaluation only; empty without
    /// attention.
    pub attention: Vec<f32>,
}

/// A micro-batch whose results have not been fetched yet, and where they lie.
pub(super) struct Pending {
    /// Which of its step it is.
    number: usize,
    pub(super) plan: BatchPlan,
    start: usize,
    scored: bool,
}

impl Pending {
    fn end(&self) -> usize {
        let [.., scores] = self.ranges();
        scores.end
    }

    fn ranges(&self) -> [Range<usize>; 3] {
        let adapter = self.plan.adapter_rows;
        let kl = self.start + adapter;
        let scores = kl + adapter;
        [self.start..kl, kl..scores, scores..scores + if self.scored { adapter } else { 0 }]
    }
}

/// A micro-batch whose results have been fetched.
pub(super) struct Fetched {
    /// Which of its step it is.
    pub(super) number: usize,
    pub(super) plan: BatchPlan,
    pub(super) results: RowResults,
}

/// Results on the device.
pub(super) struct Results<B: Backend> {
    buffer: Buffer<B, f32>,
    used: usize,
    scored: bool,
}

/// Where the results of one micro-batch go.
pub(super) struct Slot<'a, B: Backend> {
    pub(super) nll: Mut<'a, B, f32>,
    pub(super) kl: Mut<'a, B, f32>,
    pub(super) scores: Mut<'a, B, f32>,
}

impl<B: Backend> Results<B> {
    /// Room for micro-batches of `adapter_rows`, whose rows have scores if they are `scored`.
    pub(super) fn new(arena: &mut Arena<B>, adapter_rows: usize, scored: bool) -> Result<Self> {
        let each = if scored { 3 } else { 2 };
        let buffer = arena.buffer("row results", &[HEADER + MICRO_BATCHES * each * adapter_rows])?;
        Ok(Results { buffer, used: HEADER, scored })
    }

    /// Elements that the results of a plan take.
    fn len(&self, plan: &BatchPlan) -> usize {
        (if self.scored { 3 } else { 2 }) * plan.adapter_rows
    }

    /// Whether there is room for the results of another micro-batch.
    pub(super) fn fits(&self, plan: &BatchPlan) -> bool {
        self.used + self.len(plan) <= self.buffer.len()
    }

    /// Room for the results of micro-batch `number` of a step, whose `plan` must fit.
    pub(super) fn reserve(&mut self, number: usize, plan: BatchPlan) -> Pending {
        let start = self.used;
        self.used += self.len(&plan);
        Pending { number, plan, start, scored: self.scored }
    }

    /// Frees all room, as for work that comes after what is there has been fetched, or will not be.
    pub(super) fn free(&mut self) {
        self.used = HEADER;
    }

    pub(super) fn slot(&mut self, pending: &Pending) -> Slot<'_, B> {
        let [nll, kl, scores] = pending.ranges();
        let all = self.buffer.slice_mut(nll.start..scores.end);
        let (nll, rest) = all.split_at(nll.len());
        let (kl, scores) = rest.split_at(kl.len());
        Slot { nll, kl, scores }
    }

    /// Where the sum of squared gradients goes.
    pub(super) fn squares(&mut self) -> Mut<'_, B, f64> {
        self.buffer.first_mut(HEADER).cast()
    }

    /// Waits, and returns the results of `pending` and the sum of squared gradients; all room is free again.
    pub(super) fn fetch(&mut self, backend: &B, pending: Vec<Pending>) -> Result<(Vec<Fetched>, f64)> {
        let end = pending.iter().map(Pending::end).max().unwrap_or(HEADER);
        let mut host = vec![0.0; end];
        backend.fetch(&mut host, self.buffer.first(end))?;
        self.free();
        let results = |pending: Pending| {
            let [nll, kl, scores] = pending.ranges().map(|range| host[range].to_vec());
            let kl = kl[..pending.plan.saved_rows].to_vec();
            let results = RowResults { nll, kl, scores, attention: Vec::new() };
            Fetched { number: pending.number, plan: pending.plan, results }
        };
        let squares = bytemuck::cast([host[0], host[1]]);
        Ok((pending.into_iter().map(results).collect(), squares))
    }
}
