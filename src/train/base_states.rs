//! The base model's states in a run: who has those of which pairs, and what is computed again after a resume.

use std::collections::HashSet;

use crate::dist::World;
use crate::error::{Error, Result};
use crate::ops::Backend;
use crate::train::batch::{BatchPlan, TokenPair};
use crate::train::division;
use crate::train::memory::Memory;
use crate::train::observer::{Observer, Stage};
use crate::train::ranks;
use crate::train::schedule::epoch_order;
use crate::train::setup::base_rows_of;
use crate::train::step::Stepper;
use crate::train::trainer::{Run, cut_step};

/// Has the base model's states of a micro-batch in the cache. Only a rank on its own may end meanwhile.
fn recall<B: Backend>(
    stepper: &mut Stepper<'_, B>,
    observer: &mut dyn Observer,
    world: &World,
    pairs: &[&TokenPair],
    evaluation: bool,
) -> Result<()> {
    if pairs.iter().all(|pair| stepper.knows_base(pair)) {
        return Ok(());
    }
    if world.is_alone() && observer.should_stop() {
        return Err(Error::interrupted());
    }
    world.go_on("base states");
    observer.on_stage(Stage::BaseStates);
    stepper.learn_base(pairs, evaluation)
}

impl<B: Backend> Run<'_, '_, B> {
    /// After the first epoch, gives every rank the base model's states that others have computed in it.
    pub(super) fn share_base_states(&mut self) -> Result<()> {
        let begins_second = self.state.global_step == self.steps_per_epoch();
        if self.world.is_alone() || !begins_second || self.config.kl_weight == 0.0 {
            return Ok(());
        }
        let pairs = self.train.iter().map(|pair| (pair.id, base_rows_of(self.config.method, pair)));
        ranks::share_base_states(self.world, &mut self.stepper, &pairs.collect::<Vec<_>>())
    }

    /// After a resume, computes what this rank had in its base cache, or another one, as it was computed in
    /// the first epoch: in the same micro-batches, as the last bit of a product may depend on what else is in
    /// one.
    pub(super) fn recall_base_states(&mut self, chosen: &[usize]) -> Result<()> {
        let unknown = self.unknown_base_states(chosen);
        if unknown.is_empty() {
            return Ok(());
        }
        let first_epoch = epoch_order(self.train.len(), self.config.seed, 0);
        for step in first_epoch.chunks(self.config.pairs_per_step()) {
            for pairs in cut_step(self.config, &self.train, step) {
                if pairs.iter().any(|pair| unknown.contains(&pair.id) && !self.stepper.knows_base(pair)) {
                    recall(&mut self.stepper, self.observer, self.world, &pairs, false)?;
                }
            }
        }
        Ok(())
    }

    /// Numbers of the pairs that this rank computes of a step without knowing the base model's states, after
    /// the first epoch, whose steps compute them.
    pub(super) fn unknown_base_states(&self, chosen: &[usize]) -> HashSet<usize> {
        if self.state.global_step < self.steps_per_epoch() {
            return HashSet::new();
        }
        let micro_batches = cut_step(self.config, &self.train, chosen);
        let owners = division::owners(&micro_batches, self.world);
        let own = micro_batches.iter().zip(owners).filter(|(_, owner)| *owner == self.world.rank());
        let pairs = own.flat_map(|(pairs, _)| pairs);
        pairs.filter(|pair| !self.stepper.knows_base(pair)).map(|pair| pair.id).collect()
    }

    /// After a resume, those of the first evaluation, as it computed them.
    pub(super) fn recall_base_states_of_validation(&mut self) -> Result<()> {
        if self.state.evaluations.is_empty() {
            return Ok(());
        }
        let micro_batches = self.config.packing().cut(&self.validation, &self.config.objective(), true);
        let owners = division::owners(&micro_batches, self.world);
        for (pairs, owner) in micro_batches.iter().zip(owners) {
            if owner == self.world.rank() {
                recall(&mut self.stepper, self.observer, self.world, pairs, true)?;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Stepper<'_, B> {
    /// Has the cache fill in the base model's hidden states of pairs without base rows, beside the forward
    /// pass where they come from memory of the host.
    pub(super) fn recall_base_hidden(&mut self, plan: &BatchPlan) -> Result<()> {
        let (backend, width) = (&self.model.backend, self.model.config.hidden_size);
        let (Some(base), Some(cache)) = (&mut self.memory.base, &self.base_cache) else { return Ok(()) };
        for pair in plan.pairs.iter().filter(|pair| pair.base.is_none()) {
            for (rows, first) in &pair.compared {
                let to = base.hidden.slice_mut(rows.start * width..rows.end * width);
                cache.recall(backend, pair.id, first * width, to)?;
            }
        }
        Ok(())
    }

    /// Fills in the base model's hidden states of pairs with base rows, from this pass.
    pub(super) fn collect_base_hidden(&mut self, plan: &BatchPlan) {
        let (backend, width) = (&self.model.backend, self.model.config.hidden_size);
        let Memory { acts, base: Some(base), .. } = &mut self.memory else { return };
        for pair in &plan.pairs {
            let Some(all) = &pair.base else { continue };
            for (rows, first) in &pair.compared {
                let from = (all.start + first) * width;
                let to = base.hidden.slice_mut(rows.start * width..rows.end * width);
                backend.copy(to, acts.hidden.slice(from..from + rows.len() * width));
            }
        }
    }

    /// Puts the base rows of this pass into the cache.
    pub(super) fn keep_base_hidden(&mut self, plan: &BatchPlan) -> Result<()> {
        let Some(cache) = &mut self.base_cache else { return Ok(()) };
        let (backend, width) = (&self.model.backend, self.model.config.hidden_size);
        for pair in &plan.pairs {
            if let Some(rows) = &pair.base {
                let states = self.memory.acts.hidden.slice(rows.start * width..rows.end * width);
                cache.insert(backend, pair.id, states)?;
            }
        }
        Ok(())
    }
}
