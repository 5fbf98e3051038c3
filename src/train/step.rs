//! One optimiser step (METHOD §6): micro-batches forward and backward, then AdamW.

use std::collections::HashSet;

use crate::attached::Attached;
use crate::dist::World;
use crate::error::{Error, Result};
use crate::guard::{Guard, TokenSecurityStats};
use crate::model::activations::{Recompute, Rows};
use crate::model::params::Grads;
use crate::model::transformer::Transformer;
use crate::ops::optim::AdamW;
use crate::ops::{Arena, Backend, PlanRow};
use crate::train::base_cache::BaseCache;
use crate::train::batch::{BatchPlan, TokenPair, Totals};
use crate::train::division;
use crate::train::memory::{ADVICE, CACHE_ADVICE, Memory, device_bytes, fitting_sizes};
use crate::train::objective::{Regime, Sums};
use crate::train::results::{Fetched, Pending};
use crate::train::work::{Accumulated, Prepared, STEP, Work};

pub use crate::train::memory::Moments;
pub use crate::train::objective::{Losses, Objective};
pub use crate::train::results::RowResults;

/// How much of AdamW's second moment a step keeps.
const BETA2: f64 = 0.999;

/// What an optimiser step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// The losses before the update.
    pub losses: Losses,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Whether the update was left out because a gradient was not finite, or [too
    /// large](crate::ops::optim::Optim::exact_add).
    pub skipped: bool,
    /// Whether a rank asks all of them to stop.
    pub stops: bool,
}

/// Losses and gradients of a step before its update.
struct Differentiated {
    losses: Losses,
    /// Norm of the gradients.
    norm: f64,
    stops: bool,
}

/// Hyper-parameters of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradients.
    pub max_grad_norm: f64,
}

/// Runs optimiser steps and evaluations of one model.
pub struct Stepper<'m, B: Backend> {
    pub(super) model: &'m Transformer<B>,
    /// What is trained.
    pub attached: Attached<B>,
    /// The guard of what is trained, if there is one.
    pub(super) guard: Option<Guard>,
    /// AdamW's state.
    pub moments: Moments<B>,
    /// Base hidden states; `None` computes them anew each time.
    pub base_cache: Option<BaseCache<B>>,
    /// The objective.
    pub objective: Objective,
    pub(super) memory: Memory<B>,
    pub(super) chunk: usize,
    plan_rows: Vec<PlanRow>,
    /// The regime of the last step, the best guess for the next.
    pub(super) expected: Regime,
    /// The next step, if it has been recorded.
    pub(super) prepared: Option<Prepared>,
}

impl<'m, B: Backend> Stepper<'m, B> {
    /// Plans memory for micro-batches of at most `capacity` rows (see [`BatchPlan::capacity`]), with the
    /// first of `policies` that fits the device's free memory.
    pub fn new(
        model: &'m Transformer<B>,
        attached: Attached<B>,
        objective: Objective,
        mut base_cache: Option<BaseCache<B>>,
        capacity: (Rows, usize),
        policies: &[Recompute],
    ) -> Result<Self> {
        if objective.method.has_guard() {
            attached.require_guard()?;
        }
        let guard = attached.guard.clone();
        let (sizes, _) = fitting_sizes(model, &attached, &objective, capacity, policies)?;
        let ((memory, moments), mut plan_rows) =
            Arena::build(&model.backend, |arena| sizes.allocate(arena, model, &attached))
                .map_err(|e| e.context("working memory of training").memory_advice(ADVICE))?;
        if let Some(cache) = &mut base_cache {
            plan_rows.extend(cache.allocate(&model.backend).map_err(|e| e.memory_advice(CACHE_ADVICE))?);
        }
        let expected = objective.first_regime();
        let chunk = sizes.chunk;
        Ok(Stepper {
            model,
            attached,
            guard,
            moments,
            base_cache,
            objective,
            memory,
            chunk,
            plan_rows,
            expected,
            prepared: None,
        })
    }

    /// The base model.
    pub fn model(&self) -> &'m Transformer<B> {
        self.model
    }

    /// The memory plan: one row per tensor.
    pub fn plan(&self) -> &[PlanRow] {
        &self.plan_rows
    }

    /// What the backward pass recomputes.
    pub fn recompute(&self) -> Recompute {
        self.memory.acts.recompute
    }

    /// Bytes that training takes of a device's own memory, at its peak: the model, what is trained, working
    /// memory and what the device needs for itself. `None` in the system's memory.
    pub fn device_bytes(&self) -> Option<usize> {
        device_bytes(self.model, &self.attached, &self.plan_rows)
    }

    /// One optimiser step over `micro_batches`, whose losses are normalised together, so that cutting a step
    /// into more of them changes nothing. `step` keys the dropout masks.
    pub fn step(
        &mut self,
        micro_batches: &[Vec<&TokenPair>],
        step: u32,
        update: Update,
    ) -> Result<StepReport> {
        self.step_unless(micro_batches, None, step, update, &mut World::alone(), &mut || false)
    }

    /// [`Self::step`] of all ranks of `world`, each of which computes some of the micro-batches; parameters,
    /// statistics and moments are the same on all of them afterwards, and for any number of them. Every rank
    /// calls this with the same arguments.
    ///
    /// A device that can records the `next` step, whose number is `step` + 1, while it is at this one. It is
    /// begun when it is asked for; whatever is asked for instead has the same result as without.
    ///
    /// A rank on its own asks `stop` before every micro-batch and abandons the step if it says so;
    /// parameters, statistics and moments are then as they were. One of several asks it once, and all of
    /// them finish the step: see [`StepReport::stops`].
    ///
    /// # Errors
    /// Kind `Interrupted` if it was abandoned; kind `Cluster` if another rank fails.
    pub fn step_unless(
        &mut self,
        micro_batches: &[Vec<&TokenPair>],
        next: Option<&[Vec<&TokenPair>]>,
        step: u32,
        update: Update,
        world: &mut World,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<StepReport> {
        let next = next.map(|micro_batches| (micro_batches, step + 1));
        let Differentiated { losses, norm, stops } =
            self.differentiate(micro_batches, next, Some(step), world, stop)?;
        self.update_stats(micro_batches);
        let finite = norm.is_finite() && losses.total.is_finite();
        if finite {
            self.apply(update, norm);
        }
        Ok(StepReport { losses, grad_norm: norm, skipped: !finite, stops })
    }

    /// Losses and gradients of one step without an update; no dropout where `step` is `None`.
    pub fn gradients(&mut self, micro_batches: &[Vec<&TokenPair>], step: Option<u32>) -> Result<Losses> {
        let found = self.differentiate(micro_batches, None, step, &mut World::alone(), &mut || false)?;
        Ok(found.losses)
    }

    fn differentiate(
        &mut self,
        micro_batches: &[Vec<&TokenPair>],
        next: Option<(&[Vec<&TokenPair>], u32)>,
        step: Option<u32>,
        world: &mut World,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Differentiated> {
        let totals = self.totals(micro_batches);
        let prepared = self.prepared_for(micro_batches, step);
        let missing = match &prepared {
            Some(prepared) => prepared.missing.clone(),
            None => self.missing(micro_batches.iter().flatten()),
        };
        let mut prepared = self.start(prepared, world, stop)?;
        // Whether hinge and KL limit are active depends on means over the whole step. Guess from the last
        // step, and do the step again in the rare case that the guess was wrong: the means do not depend on
        // it.
        let mut stops = false;
        loop {
            let Accumulated { mut sums, pending } = match prepared.take() {
                Some(accumulated) => accumulated,
                None => {
                    let work = Work { micro_batches, step, totals, missing: &missing };
                    self.reserve_inputs(micro_batches.len());
                    let backend = self.model.backend.clone();
                    let before = &mut |number: usize| {
                        if world.is_alone() && stop() {
                            return Err(Error::interrupted());
                        }
                        world.go_on(&format!("micro-batch {}", number + 1));
                        Ok(())
                    };
                    backend.graph(STEP, || self.accumulate(work, world, before))?
                }
            };
            self.prepare(next, world);
            let mut squares = self.collect(pending, &mut sums)?;
            if !world.is_alone() {
                (squares, stops) = self.combine(world, &mut sums, stops || stop())?;
            }
            let losses = self.objective.losses(sums.into_iter().sum(), totals);
            let regime = self.objective.regime(&losses);
            if regime == self.expected || !losses.total.is_finite() {
                return Ok(Differentiated { losses, norm: squares.sqrt(), stops });
            }
            self.expected = regime;
        }
    }

    pub(super) fn totals(&self, micro_batches: &[Vec<&TokenPair>]) -> Totals {
        let ignore = self.objective.ignore_token;
        micro_batches.iter().flatten().map(|pair| pair.totals(ignore)).sum()
    }

    /// The gradients of the last step.
    pub fn grads(&self) -> &Grads<B> {
        &self.memory.dparams
    }

    /// Exact sums of the gradients of this rank's micro-batches; for a rank on its own the gradients of the
    /// step and the sum of their squares, too. `before` each of them is told its number.
    pub(super) fn accumulate(
        &mut self,
        Work { micro_batches, step, totals, missing }: Work<'_>,
        world: &World,
        before: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Accumulated> {
        let backend = &self.model.backend;
        self.memory.results.free();
        backend.zero(self.memory.dparams.all_mut());
        backend.zero(self.memory.sums.view_mut());
        self.prepare_guard();
        let owners = division::owners(micro_batches, world);
        let (mut sums, mut pending) = (vec![Sums::default(); micro_batches.len()], Vec::new());
        let mut first = 0;
        for (i, pairs) in micro_batches.iter().enumerate() {
            if owners[i] == world.rank() {
                before(i)?;
                let plan = self.make_plan(pairs, first, false, missing);
                if !self.memory.results.fits(&plan) {
                    self.collect(std::mem::take(&mut pending), &mut sums)?;
                }
                let batch = self.memory.results.reserve(i, plan);
                self.differentiate_batch(&batch, step, totals)?;
                let Memory { sums, dparams, .. } = &mut self.memory;
                backend.exact_add(sums.view_mut(), dparams.all_mut(), micro_batches.len());
                pending.push(batch);
            }
            first += pairs.len();
        }
        if world.is_alone() {
            self.take_gradients();
        }
        Ok(Accumulated { sums, pending })
    }

    /// Losses and gradients of one micro-batch.
    fn differentiate_batch(&mut self, batch: &Pending, step: Option<u32>, totals: Totals) -> Result<()> {
        self.upload_score_weights(&batch.plan, totals);
        self.forward(&batch.plan, step)?;
        self.sweep(batch)?;
        self.head(batch, totals, true);
        self.backward(&batch.plan, step);
        self.keep_scores(batch);
        Ok(())
    }

    /// The gradients of the step from their exact sums, and the sum of their squares.
    pub(super) fn take_gradients(&mut self) {
        let (backend, Memory { sums, results, dparams, .. }) = (&self.model.backend, &mut self.memory);
        backend.exact_take(dparams.all_mut(), sums.view());
        backend.sum_of_squares(results.squares(), dparams.all());
    }

    /// Fetches the results of some micro-batches and puts their losses into `sums`; returns the sum of
    /// squared gradients.
    fn collect(&mut self, pending: Vec<Pending>, sums: &mut [Sums]) -> Result<f64> {
        let (batches, squares) = self.memory.results.fetch(&self.model.backend, pending)?;
        for Fetched { number, plan, results } in &batches {
            sums[*number] = Sums::of(plan, results);
        }
        Ok(squares)
    }

    /// Puts the guard's scores with the other results.
    fn keep_scores(&mut self, batch: &Pending) {
        let Memory { results, guard: Some(guard), .. } = &mut self.memory else { return };
        let scores = results.slot(batch).scores;
        self.model.backend.copy(scores, guard.scores.first(batch.plan.adapter_rows));
    }

    /// Prepares what depends on the guard's parameters only.
    fn prepare_guard(&mut self) {
        if let (Some(guard), Some(acts)) = (&self.guard, &mut self.memory.guard) {
            guard.prepare(&self.model.backend, &self.attached.params, acts);
        }
    }

    fn upload_score_weights(&mut self, plan: &BatchPlan, totals: Totals) {
        if self.guard.is_none() {
            return;
        }
        let (backend, buffers) = (&self.model.backend, &mut self.memory.plan);
        let weights = plan.score_weights(totals, self.objective.security_weight);
        backend.upload(buffers.weights_taps.first_mut(plan.adapter_rows), &weights.taps);
        backend.upload(buffers.weights_params.first_mut(plan.adapter_rows), &weights.params);
    }

    /// Whether the base model's states of a pair need not be computed.
    pub fn knows_base(&self, pair: &TokenPair) -> bool {
        self.objective.kl_weight == 0.0
            || self.base_cache.as_ref().is_some_and(|cache| cache.contains(pair.id))
    }

    /// Keeps the base model's states of a micro-batch, which are those that it has without any in the cache,
    /// bit by bit.
    pub fn learn_base(&mut self, pairs: &[&TokenPair], evaluation: bool) -> Result<()> {
        self.withdraw_prepared();
        self.prepare_guard();
        let plan = BatchPlan::new(pairs, 0, |_| true, self.objective.plan_options(evaluation));
        self.forward(&plan, None)
    }

    /// Numbers of the pairs whose base states have to be computed. Found before a step, and not while it
    /// fills the cache: the last bit of a product may depend on what else is in a micro-batch, and a step may
    /// be done twice.
    pub(super) fn missing<'a>(&self, pairs: impl IntoIterator<Item = &'a &'a TokenPair>) -> HashSet<usize> {
        pairs.into_iter().filter(|pair| !self.knows_base(pair)).map(|pair| pair.id).collect()
    }

    fn make_plan(
        &self,
        pairs: &[&TokenPair],
        first_in_step: usize,
        evaluation: bool,
        missing: &HashSet<usize>,
    ) -> BatchPlan {
        let needs_base = |id: usize| missing.contains(&id);
        BatchPlan::new(pairs, first_in_step, needs_base, self.objective.plan_options(evaluation))
    }

    /// Makes room for the inputs of so many micro-batches, so that they do not wait for each other.
    fn reserve_inputs(&self, micro_batches: usize) {
        self.model.backend.reserve_inputs(self.input_bytes(micro_batches));
    }

    /// Bytes of the inputs of so many micro-batches, at most.
    pub(super) fn input_bytes(&self, micro_batches: usize) -> usize {
        let with_base = self.base_cache.as_ref().is_some_and(BaseCache::has_file);
        micro_batches * self.memory.input_bytes(with_base)
    }

    /// Forward only, without dropout: the row losses and scores of a batch and the plan they belong to.
    pub fn evaluate(&mut self, pairs: &[&TokenPair]) -> Result<(BatchPlan, RowResults)> {
        self.withdraw_prepared();
        self.memory.results.free();
        self.prepare_guard();
        self.reserve_inputs(1);
        let plan = self.make_plan(pairs, 0, true, &self.missing(pairs));
        let batch = self.memory.results.reserve(0, plan);
        self.forward(&batch.plan, None)?;
        let totals = Totals::default();
        self.head(&batch, totals, false);
        self.keep_scores(&batch);
        let guard = self.memory.guard.as_ref();
        let weights = guard.and_then(|guard| guard.attention(batch.plan.adapter_rows));
        let attention = weights.map(|weights| self.model.backend.to_host(weights)).unwrap_or_default();
        let (mut fetched, _) = self.memory.results.fetch(&self.model.backend, vec![batch])?;
        let Some(Fetched { plan, results, .. }) = fetched.pop() else {
            return Err(Error::internal("an evaluation without results"));
        };
        Ok((plan, RowResults { attention, ..results }))
    }

    /// Losses of evaluated batches.
    pub fn losses_of(&self, batches: &[(BatchPlan, RowResults)], totals: Totals) -> Losses {
        let sums = batches.iter().map(|(plan, results)| Sums::of(plan, results)).sum();
        self.objective.losses(sums, totals)
    }

    /// METHOD §7, for a whole optimiser step; a shared prefix cancels.
    fn update_stats(&mut self, micro_batches: &[Vec<&TokenPair>]) {
        if self.guard.is_none() {
            return;
        }
        let ignore = self.objective.ignore_token;
        let counted = |ids: &'_ [u32], from: usize| -> Vec<u32> {
            ids[from..].iter().copied().filter(|&t| Some(t) != ignore).collect()
        };
        let pairs = || micro_batches.iter().flatten();
        let vulnerable = pairs().flat_map(|pair| counted(&pair.vulnerable, pair.shared()));
        let secure = pairs().flat_map(|pair| counted(&pair.secure, pair.shared()));
        let vocab_size = self.model.config.vocab_size;
        let stats = self.attached.stats.get_or_insert_with(|| TokenSecurityStats::new(vocab_size));
        stats.update(vulnerable, secure);
    }

    fn apply(&mut self, update: Update, grad_norm: f64) {
        self.moments.t += 1;
        let step = AdamW {
            lr: update.lr,
            beta1: 0.9,
            beta2: BETA2,
            eps: self.objective.method.epsilon(self.moments.t, BETA2),
            weight_decay: update.weight_decay,
            t: self.moments.t,
            grad_scale: (update.max_grad_norm / (grad_norm + 1e-6)).min(1.0),
        };
        let Moments { m, v, .. } = &mut self.moments;
        let params = self.attached.params.master_mut();
        self.model.backend.adamw(params, m.view_mut(), v.view_mut(), self.memory.dparams.all(), step);
        self.attached.params.refresh();
    }
}
