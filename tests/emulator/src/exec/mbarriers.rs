//! `mbarrier`: barriers in shared memory that count arrivals and bytes.

use crate::decode::program::{Mbarrier, MbarrierKind, NONE, Slot};
use crate::memory::clock::Clock;
use crate::report::{Fault, FaultKind};
use crate::schedule::state::{Cluster, MbarrierObject, State};
use cuda_emulator_alu::row::Kind;

use super::{Exec, Flow, Result, lanes};

/// Bytes of a mbarrier.
const SIZE: u32 = 8;
/// Arrivals, and bytes, that a phase may wait for.
const LIMIT: u32 = (1 << 20) - 1;

impl Exec<'_> {
    pub(super) fn mbarrier(&mut self, op: &Mbarrier, active: u32) -> Result<Flow> {
        if op.kind == MbarrierKind::PendingCount {
            for lane in lanes(active) {
                let pending = MbarrierObject::pending_of(self.value64(op.count, lane));
                self.set(Slot { row: op.dst, kind: Kind::B32 }, lane, u128::from(pending));
            }
            return Ok(Flow::Next);
        }
        let (_, addresses) = self.resolve(&op.address, active)?;
        let waits = matches!(
            op.kind,
            MbarrierKind::TestWait
                | MbarrierKind::TestWaitParity
                | MbarrierKind::TryWait
                | MbarrierKind::TryWaitParity
        );
        if waits {
            return self.mbarrier_wait(op, &addresses, active);
        }
        for lane in lanes(active) {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            self.mbarrier_lane(op, block, at, lane).map_err(|fault| self.blame(fault, lane))?;
        }
        Ok(Flow::Next)
    }

    fn mbarrier_lane(&mut self, op: &Mbarrier, block: usize, at: u32, lane: usize) -> Result<()> {
        self.cluster.blocks[block].shared.check_place(at, SIZE, SIZE)?;
        let optional =
            |exec: &Self, row: u32, default: u32| if row == NONE { default } else { exec.value32(row, lane) };
        match op.kind {
            MbarrierKind::Init => return self.mbarrier_init(block, at, self.value32(op.count, lane), lane),
            MbarrierKind::Invalidate => {
                self.mbarrier_visible(block, at, lane)?;
                self.cluster.mbarrier(block, at)?;
                self.cluster.blocks[block].mbarriers.remove(&at);
                return Ok(());
            }
            _ => {}
        }
        self.mbarrier_visible(block, at, lane)?;
        let state = self.cluster.mbarrier(block, at)?.state();
        match op.kind {
            MbarrierKind::ExpectTx => self.cluster.expect_bytes(block, at, self.value32(op.bytes, lane))?,
            MbarrierKind::CompleteTx => {
                self.cluster.complete_bytes(block, at, self.value32(op.bytes, lane))?
            }
            _ => {
                let count = optional(self, op.count, 1);
                if op.bytes != NONE {
                    self.cluster.expect_bytes(block, at, self.value32(op.bytes, lane))?;
                }
                let object = self.cluster.mbarrier(block, at)?;
                self.warp.clock.release(&mut object.clock);
                if op.kind == MbarrierKind::ArriveDrop {
                    object.expected = object.expected.saturating_sub(count);
                }
                if op.no_complete && count >= object.pending {
                    let message =
                        format!("{count} arrivals with .noComplete where {} are left", object.pending);
                    return Err(Fault::new(FaultKind::Barrier, message).at(u64::from(at)));
                }
                self.cluster.arrive(block, at, count)?;
            }
        }
        if op.dst != NONE {
            self.set(Slot { row: op.dst, kind: Kind::B64 }, lane, u128::from(state));
        }
        Ok(())
    }

    fn mbarrier_init(&mut self, block: usize, at: u32, count: u32, lane: usize) -> Result<()> {
        if count == 0 || count > LIMIT {
            return Err(Fault::new(
                FaultKind::Barrier,
                format!("expected 1 to {LIMIT} arrivals, found {count}"),
            ));
        }
        if self.cluster.blocks[block].mbarriers.contains_key(&at) {
            let message = "initialised again without mbarrier.inval";
            return Err(Fault::new(FaultKind::Barrier, message).at(u64::from(at)));
        }
        let clock = Clock::new(self.warp.clock.known.visible.len(), 0);
        let shared = &mut self.cluster.blocks[block].shared;
        shared.write(at, SIZE, lane, &self.warp.clock, crate::memory::shared::Order::Weak, |_| false)?;
        let object = MbarrierObject {
            expected: count,
            pending: count,
            bytes: 0,
            phase: 0,
            completed: clock.clone(),
            clock,
        };
        self.cluster.blocks[block].mbarriers.insert(at, object);
        Ok(())
    }

    /// The initialisation must be ordered before every use.
    fn mbarrier_visible(&self, block: usize, at: u32, lane: usize) -> Result<()> {
        self.cluster.blocks[block].shared.check_visible(at, SIZE, lane, &self.warp.clock)
    }

    /// All lanes have the same answer if they ask for the same phase of the same barrier, as they do.
    fn mbarrier_wait(
        &mut self,
        op: &Mbarrier,
        addresses: &super::memory::Addresses,
        active: u32,
    ) -> Result<Flow> {
        let mut done = 0;
        for lane in lanes(active) {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            let shared = &self.cluster.blocks[block].shared;
            let checked = shared
                .check_place(at, SIZE, SIZE)
                .and_then(|()| self.mbarrier_visible(block, at, lane))
                .and_then(|()| self.cluster.mbarrier(block, at).map(|object| object.phase));
            let phase = checked.map_err(|fault| self.blame(fault, lane))?;
            let completed = match op.kind {
                MbarrierKind::TestWaitParity | MbarrierKind::TryWaitParity => {
                    phase & 1 != u64::from(self.value32(op.count, lane) & 1)
                }
                _ => {
                    MbarrierObject::phase_bits(phase)
                        != MbarrierObject::phase_of(self.value64(op.count, lane))
                }
            };
            if completed {
                done |= 1 << lane;
                let object = self.cluster.mbarrier(block, at)?;
                self.warp.clock.acquire(&object.completed);
            } else if matches!(op.kind, MbarrierKind::TryWait | MbarrierKind::TryWaitParity)
                && !self.warp.give_up
            {
                self.cluster.counters.barrier_waits += 1;
                return Ok(Flow::Retry(State::Mbarrier(block, at)));
            }
        }
        self.warp.give_up = false;
        self.set_predicate(op.dst, done, active);
        Ok(if done == active { Flow::Next } else { Flow::Yield })
    }
}

/// Bits of a state that hold the arrivals that were pending.
const PENDING_BITS: u32 = 20;

impl MbarrierObject {
    /// What an arrival returns: the phase, and the arrivals that were pending before it.
    fn state(&self) -> u64 {
        self.phase << PENDING_BITS | u64::from(self.pending)
    }

    fn phase_of(state: u64) -> u64 {
        state >> PENDING_BITS
    }

    /// The bits of a phase that a state holds.
    fn phase_bits(phase: u64) -> u64 {
        phase & (u64::MAX >> PENDING_BITS)
    }

    fn pending_of(state: u64) -> u32 {
        state as u32 & LIMIT
    }
}

impl Cluster {
    /// The mbarrier at an offset.
    pub(crate) fn mbarrier(&mut self, block: usize, at: u32) -> Result<&mut MbarrierObject> {
        let found = self.blocks[block].mbarriers.get_mut(&at);
        let missing = || Fault::new(FaultKind::Barrier, "no mbarrier was initialised here").at(u64::from(at));
        found.ok_or_else(missing)
    }

    /// Adds bytes that the current phase waits for.
    pub(crate) fn expect_bytes(&mut self, block: usize, at: u32, bytes: u32) -> Result<()> {
        let object = self.mbarrier(block, at)?;
        object.bytes += i64::from(bytes);
        if object.bytes > i64::from(LIMIT) {
            let message = format!("a phase waits for {} bytes, at most {LIMIT} are possible", object.bytes);
            return Err(Fault::new(FaultKind::Barrier, message).at(u64::from(at)));
        }
        Ok(())
    }

    /// Takes bytes away that have arrived.
    pub(crate) fn complete_bytes(&mut self, block: usize, at: u32, bytes: u32) -> Result<()> {
        let object = self.mbarrier(block, at)?;
        object.bytes -= i64::from(bytes);
        if object.bytes < -i64::from(LIMIT) {
            let message = format!("{} bytes more than expected have arrived", -object.bytes);
            return Err(Fault::new(FaultKind::Barrier, message).at(u64::from(at)));
        }
        self.complete_phase(block, at)
    }

    /// Counts arrivals.
    pub(crate) fn arrive(&mut self, block: usize, at: u32, count: u32) -> Result<()> {
        let object = self.mbarrier(block, at)?;
        if count > object.pending {
            let message =
                format!("{count} arrivals where {} of {} are left", object.pending, object.expected);
            return Err(Fault::new(FaultKind::Barrier, message).at(u64::from(at)));
        }
        object.pending -= count;
        self.complete_phase(block, at)
    }

    fn complete_phase(&mut self, block: usize, at: u32) -> Result<()> {
        let object = self.mbarrier(block, at)?;
        if object.pending != 0 || object.bytes != 0 {
            return Ok(());
        }
        object.phase += 1;
        object.pending = object.expected;
        let MbarrierObject { clock, completed, .. } = object;
        completed.join(clock);
        self.stalls = 0;
        for warp in self.warps.iter_mut().flatten() {
            // Lanes of a warp that diverged may wait for different barriers.
            let diverged = matches!(warp.state, State::Mbarrier(..)) && warp.groups.len() > 1;
            if warp.state == State::Mbarrier(block, at) || diverged {
                warp.state = State::Ready;
            }
            warp.spun = false;
        }
        Ok(())
    }
}
