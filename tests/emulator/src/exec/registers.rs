//! `setmaxnreg`: warps that hand registers to others of their block.

use smallvec::SmallVec;

use crate::report::{Fault, FaultKind};
use crate::schedule::state::{State, Warp};
use cuda_emulator_alu::row::LANES;

use super::{Exec, Flow, Result};

/// Warps of a warpgroup.
const WARPGROUP: usize = 4;

/// Registers of a warp.
#[derive(Clone, Debug)]
pub struct Registers {
    /// Of each thread.
    each: u32,
    /// The instructions that changed them, and the warp's epoch at the time.
    changes: SmallVec<[(u32, u32); 2]>,
}

impl Registers {
    /// Of a warp that starts with `each` registers a thread.
    pub fn new(each: u32) -> Self {
        Registers { each, changes: SmallVec::new() }
    }
}

impl Exec<'_> {
    /// Changes the registers of a thread to `each`: gives the others back to the block, or waits until it has
    /// as many as are missing.
    pub(super) fn set_registers(&mut self, each: u32, more: bool) -> Result<Flow> {
        let before = self.warp.registers.each;
        if more && each < before || !more && each > before {
            let (verb, limit) = if more { ("an increase", "at least") } else { ("a decrease", "at most") };
            let message =
                format!("{verb} to {each} registers a thread, expected {limit} the {before} it has");
            return Err(Fault::new(FaultKind::Trap, message));
        }
        self.check_group_registers()?;
        let count = each.abs_diff(before) * LANES as u32;
        let spare = &mut self.cluster.blocks[self.warp.block].spare_registers;
        if !more {
            *spare += count;
            self.wake_for_registers();
        } else if *spare < count {
            self.cluster.counters.barrier_waits += 1;
            return Ok(Flow::Retry(State::Registers(count)));
        } else {
            *spare -= count;
        }
        self.warp.registers.each = each;
        self.warp.registers.changes.push((self.pc, self.warp.clock.epoch));
        Ok(Flow::Next)
    }

    fn wake_for_registers(&mut self) {
        let block = self.warp.block;
        for warp in self.cluster.warps.iter_mut().flatten().filter(|warp| warp.block == block) {
            if matches!(warp.state, State::Registers(_)) {
                warp.state = State::Ready;
            }
        }
    }

    /// Other warps of the same warpgroup, of those that there are.
    fn group_mates(&self) -> impl Iterator<Item = &Warp> {
        let first = self.warp.index - self.warp.in_block % WARPGROUP;
        let mates = self.cluster.warps.iter().skip(first).take(WARPGROUP).flatten();
        mates.map(|warp| &**warp).filter(|warp| warp.block == self.warp.block)
    }

    /// All warps of a warpgroup make the same changes, and know before each that all have made the last.
    fn check_group_registers(&self) -> Result<()> {
        let whole = self.warp.in_block / WARPGROUP * WARPGROUP + WARPGROUP <= self.grid.warps();
        let changes = &self.warp.registers.changes;
        let (done, last) = (changes.len(), changes.len().checked_sub(1));
        let refuse = |message: String| Err(Fault::new(FaultKind::NotConverged, message));
        if !whole {
            return refuse(format!("expected a warpgroup of {WARPGROUP} warps"));
        }
        for mate in self.group_mates() {
            let theirs = &mate.registers.changes;
            if theirs.get(done).is_some_and(|(pc, _)| *pc != self.pc)
                || mate.state == State::Done && theirs.len() <= done
            {
                return refuse(format!("warp {} of the same warpgroup did not execute it", mate.index));
            }
            let knows = |&(_, epoch): &(u32, u32)| self.warp.clock.known.visible[mate.index] >= epoch;
            if last.is_some_and(|last| !theirs.get(last).is_some_and(knows)) {
                return refuse(format!(
                    "no barrier says that warp {} of the same warpgroup has executed the setmaxnreg before",
                    mate.index
                ));
            }
        }
        Ok(())
    }

    /// A warp that exits has made all changes that others of its warpgroup made.
    pub(super) fn check_all_registers(&self) -> Result<()> {
        let done = self.warp.registers.changes.len();
        match self.group_mates().find(|mate| mate.registers.changes.len() > done) {
            None => Ok(()),
            Some(mate) => {
                let message = format!(
                    "exits without the setmaxnreg that warp {} of the same warpgroup executed",
                    mate.index
                );
                Err(Fault::new(FaultKind::NotConverged, message))
            }
        }
    }
}
