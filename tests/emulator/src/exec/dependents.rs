//! `griddepcontrol`, and accesses of a grid that another may run beside. See [`crate::schedule::beside`].

use std::sync::atomic::Ordering::SeqCst;

use smallvec::SmallVec;

use crate::memory::footprint::Usage;
use crate::report::{Fault, FaultKind};
use crate::schedule::beside::Beside;
use crate::schedule::state::State;

use super::memory::Addresses;
use super::{Exec, Flow, Result, lanes};

/// An access: its lane, address and bytes.
type Accessed = (usize, u64, u64);

impl<'a> Exec<'a> {
    #[inline(always)]
    fn beside(&self) -> Option<&'a Beside> {
        self.grid.beside
    }

    /// `griddepcontrol.wait`
    pub(super) fn grid_wait(&mut self, active: u32) -> Flow {
        let Some(beside) = self.beside() else { return Flow::Next };
        if beside.is_pending() {
            self.cluster.counters.barrier_waits += 1;
            return Flow::Retry(State::GridWait);
        }
        self.warp.grid_waited |= active;
        self.cluster.grid_waits.push((self.warp.index, self.warp.clock.epoch));
        Flow::Next
    }

    /// `griddepcontrol.launch_dependents`: the first of a block counts. Others, and dependents, get the
    /// chance to run before what follows.
    pub(super) fn launch_dependents(&mut self, active: u32) -> Flow {
        let knows = self.early_lanes(active) == 0;
        self.trigger(knows);
        if self.beside().is_some() { Flow::Yield } else { Flow::Next }
    }

    /// A block that has ended has let dependents start too.
    pub(super) fn block_ended(&mut self) {
        let block = self.warp.block;
        let warps = self.grid.warps();
        let waited = self.cluster.grid_waits.iter().any(|(warp, _)| warp / warps == block);
        self.trigger(waited);
    }

    fn trigger(&mut self, knows: bool) {
        let Some(beside) = self.beside() else { return };
        if !std::mem::replace(&mut self.cluster.blocks[self.warp.block].triggered, true) {
            beside.triggered.fetch_add(1, SeqCst);
            beside.waited.fetch_or(knows, SeqCst);
        }
    }

    /// The lanes that do not know that the grids before have completed: they have not waited, nor has anybody
    /// that a barrier orders before them.
    fn early_lanes(&self, active: u32) -> u32 {
        let visible = &self.warp.clock.known.visible;
        let told = self.cluster.grid_waits.iter().any(|&(warp, epoch)| visible[warp] >= epoch);
        if told { 0 } else { active & !self.warp.grid_waited }
    }

    /// Checks accesses of lanes to global memory against those of grids that may run beside this one.
    #[inline(always)]
    pub(super) fn check_beside(
        &mut self,
        addresses: &Addresses,
        bytes: u32,
        active: u32,
        usage: Usage,
    ) -> Result<()> {
        let Some(beside) = self.beside() else { return Ok(()) };
        let accesses: SmallVec<[Accessed; 32]> =
            lanes(active).map(|lane| (lane, addresses[lane], u64::from(bytes))).collect();
        self.check_accesses(beside, &accesses, usage)
    }

    /// The same for copies of one lane: address and bytes.
    pub(super) fn check_copies_beside(
        &mut self,
        pieces: impl Iterator<Item = (u64, u64)>,
        lane: usize,
        usage: Usage,
    ) -> Result<()> {
        let Some(beside) = self.beside() else { return Ok(()) };
        let accesses: Vec<Accessed> = pieces.map(|(address, bytes)| (lane, address, bytes)).collect();
        self.check_accesses(beside, &accesses, usage)
    }

    #[cold]
    fn check_accesses(&mut self, beside: &Beside, accesses: &[Accessed], usage: Usage) -> Result<()> {
        let place = |&(_, address, bytes): &Accessed| (address, bytes);
        beside.all.add(accesses.iter().map(place), usage);
        if let Some(n) = beside.dependents_conflict(accesses.iter().map(place), usage) {
            let message = "a dependent grid accesses the same bytes before it waits for this one";
            return Err(self.beside_race(accesses[n], message));
        }
        if !beside.is_dependent {
            return Ok(());
        }
        let active = accesses.iter().fold(0, |mask, (lane, ..)| mask | 1 << lane);
        let early = self.early_lanes(active);
        let accesses: SmallVec<[Accessed; 32]> =
            accesses.iter().filter(|(lane, ..)| early & 1 << lane != 0).copied().collect();
        beside.early.add(accesses.iter().map(place), usage);
        match beside.primaries_conflict(|| accesses.iter().map(place), usage) {
            None => Ok(()),
            Some(n) => {
                let message = "a grid before this one accesses the same bytes and may still be running: \
                               griddepcontrol.wait is missing, or too late";
                Err(self.beside_race(accesses[n], message))
            }
        }
    }

    fn beside_race(&self, (lane, address, _): Accessed, message: &str) -> Box<Fault> {
        self.lane_fault(FaultKind::Race, message, lane).at(address)
    }
}
