//! The step after the one that the device is at, recorded meanwhile: between two steps the host only reads
//! losses and starts the update and the next step.

use std::collections::HashSet;

use crate::dist::World;
use crate::error::{Error, Result};
use crate::ops::Backend;
use crate::train::batch::TokenPair;
use crate::train::setup::base_rows_of;
use crate::train::step::Stepper;
use crate::train::work::{Accumulated, Key, Prepared, STEP, Work};

impl<B: Backend> Stepper<'_, B> {
    fn key(&self, micro_batches: &[Vec<&TokenPair>], step: Option<u32>) -> Key {
        let pairs = micro_batches.iter().map(|pairs| pairs.iter().map(|pair| pair.id).collect()).collect();
        Key { objective: self.objective, regime: self.expected, step, pairs }
    }

    /// Records the `next` step (micro-batches, number) where the device does so beside other work.
    pub(super) fn prepare(&mut self, next: Option<(&[Vec<&TokenPair>], u32)>, world: &World) {
        self.withdraw_prepared();
        let Some((micro_batches, step)) = next else { return };
        let backend = self.model.backend.clone();
        // What depends on the losses of all rows is not known before they have been computed.
        if !backend.runs_behind() || self.objective.method.reads_vulnerable() {
            return;
        }
        let missing = self.missing(micro_batches.iter().flatten());
        if !self.has_room_for(micro_batches, &missing) {
            return;
        }
        let (step, totals) = (Some(step), self.totals(micro_batches));
        let key = self.key(micro_batches, step);
        let work = Work { micro_batches, step, totals, missing: &missing };
        let inputs = self.input_bytes(micro_batches.len());
        let recorded = backend.prepare(STEP, inputs, || self.accumulate(work, world, &mut |_| Ok(())));
        match recorded {
            Some((Ok(accumulated), recording)) => {
                self.prepared = Some(Prepared { recording, accumulated, key, missing });
            }
            Some((Err(_), _)) | None => self.retract(&missing),
        }
    }

    /// What was recorded, if it is this step.
    pub(super) fn prepared_for(
        &mut self,
        micro_batches: &[Vec<&TokenPair>],
        step: Option<u32>,
    ) -> Option<Prepared> {
        let prepared = self.prepared.take();
        if prepared.as_ref().is_some_and(|prepared| prepared.key == self.key(micro_batches, step)) {
            return prepared;
        }
        self.withdraw(prepared);
        None
    }

    /// Begins what was recorded; `None` where it has to be recorded again. A rank on its own asks `stop`
    /// before.
    pub(super) fn start(
        &mut self,
        prepared: Option<Prepared>,
        world: &World,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Accumulated>> {
        let Some(prepared) = prepared else { return Ok(None) };
        if world.is_alone() && stop() {
            self.withdraw(Some(prepared));
            return Err(Error::interrupted());
        }
        if self.model.backend.start(prepared.recording) {
            return Ok(Some(prepared.accumulated));
        }
        self.withdraw(Some(prepared));
        Ok(None)
    }

    /// Gives up what was recorded, if anything was: the base states that it would have kept are not there.
    pub(super) fn withdraw_prepared(&mut self) {
        let prepared = self.prepared.take();
        self.withdraw(prepared);
    }

    /// What was recorded will not be begun.
    fn withdraw(&mut self, prepared: Option<Prepared>) {
        if let Some(Prepared { missing, .. }) = prepared {
            self.retract(&missing);
        }
    }

    fn retract(&mut self, pairs: &HashSet<usize>) {
        if let Some(cache) = &mut self.base_cache {
            pairs.iter().for_each(|pair| cache.retract(*pair));
        }
    }

    /// Whether the base states of the `missing` pairs can be kept without a wait.
    fn has_room_for(&self, micro_batches: &[Vec<&TokenPair>], missing: &HashSet<usize>) -> bool {
        let pairs = micro_batches.iter().flatten().filter(|pair| missing.contains(&pair.id));
        let rows: usize = pairs.map(|pair| base_rows_of(self.objective.method, pair)).sum();
        let elements = rows * self.model.config.hidden_size;
        self.base_cache.as_ref().is_none_or(|cache| cache.has_room(elements))
    }
}
