//! `cp.async`: copies by the lanes of a warp, completed as late as the ISA allows.

use crate::decode::program::{Address, CpAsync, NONE, Space};
use crate::memory::access::Width;
use crate::memory::clock::WarpClock;
use crate::memory::footprint::Usage;
use crate::memory::global::GlobalMemory;
use crate::report::{Fault, FaultKind};
use crate::schedule::state::Cluster;
use cuda_emulator_alu::row::LANES;

use super::bulk::{BulkLoad, BulkStore};
use super::remote_store::RemoteStore;
use super::{Exec, Result, lanes};

/// A group that has not been committed.
const OPEN: u32 = u32::MAX;

/// Copies of a warp under way.
#[derive(Clone, Debug, Default)]
pub struct CopyState {
    batches: Vec<Batch>,
    /// Instructions so far.
    issued: u64,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
    /// Bulk copies out of shared memory.
    pub(super) stores: Vec<BulkStore>,
    /// Bulk groups that each lane has committed.
    pub(super) bulk_committed: [u32; LANES],
}

/// The copies of one instruction.
#[derive(Clone, Debug)]
struct Batch {
    /// How many instructions came before.
    number: u64,
    lanes: u32,
    block: [u8; LANES],
    to: [u32; LANES],
    from: [u64; LANES],
    /// Bytes read; the rest of `size` is zero.
    read: [u8; LANES],
    size: u32,
    group: [u32; LANES],
}

/// An asynchronous operation that completes when nobody can move.
#[derive(Clone, Debug)]
pub enum Pending {
    /// A bulk copy into shared memory.
    Load(BulkLoad),
    /// A store to shared memory of the cluster.
    Store(RemoteStore),
    /// `cp.async.mbarrier.arrive` of a lane: its copies complete, then it arrives.
    Arrive {
        /// The warp.
        warp: usize,
        /// The lane.
        lane: usize,
        /// The block of the mbarrier.
        block: usize,
        /// Its offset there.
        at: u32,
        /// Copies of the warp that were issued before.
        copies: u64,
    },
}

impl Pending {
    /// The block where something arrives.
    pub(crate) fn block(&self) -> usize {
        match self {
            Pending::Load(load) => load.block(),
            Pending::Store(store) => store.block(),
            Pending::Arrive { block, .. } => *block,
        }
    }
}

impl Exec<'_> {
    #[inline(always)]
    pub(super) fn cp_async(&mut self, copy: &CpAsync, active: u32) -> Result<()> {
        let to = self.addresses(&copy.to);
        let from = self.addresses(&copy.from);
        self.count_shared(&to, copy.size, active);
        let mut batch = Batch {
            number: self.warp.copies.issued,
            lanes: active,
            block: [0; LANES],
            to: [0; LANES],
            from,
            read: [copy.size as u8; LANES],
            size: copy.size,
            group: [OPEN; LANES],
        };
        let mut reading = 0;
        for lane in lanes(active) {
            batch.read[lane] = self.source_size(copy, lane)? as u8;
            reading |= u32::from(batch.read[lane] != 0) << lane;
            let (block, at) = self.shared_place(to[lane]).map_err(|fault| self.blame(fault, lane))?;
            (batch.block[lane], batch.to[lane]) = (block as u8, at);
            let shared = &mut self.cluster.blocks[block].shared;
            // Spelled out: closures here would not be compiled into the loop.
            if let Err(fault) = shared.check_place(at, copy.size, copy.size) {
                return Err(self.blame(fault, lane));
            }
            if let Err(fault) = shared.begin_write(at, copy.size, lane, &self.warp.clock) {
                return Err(self.blame(fault, lane));
            }
            if let Err(fault) = self.check_source(from[lane], u32::from(batch.read[lane]), copy.size) {
                return Err(self.blame(fault, lane));
            }
        }
        if reading != 0 {
            self.count_global_load(&from, copy.size, reading);
            self.check_beside(&from, copy.size, reading, Usage { writes: false, strong: false })?;
        }
        self.warp.copies.batches.push(batch);
        self.warp.copies.issued += 1;
        Ok(())
    }

    #[inline(always)]
    fn source_size(&self, copy: &CpAsync, lane: usize) -> Result<u32> {
        if copy.ignore_source != NONE && self.warp.predicates[copy.ignore_source as usize] & 1 << lane != 0 {
            return Ok(0);
        }
        if copy.source_size == NONE {
            return Ok(copy.size);
        }
        let size = self.value32(copy.source_size, lane);
        if size > copy.size {
            let message = format!("expected a source size of at most {}, found {size}", copy.size);
            return Err(self.lane_fault(FaultKind::Trap, message, lane));
        }
        Ok(size)
    }

    /// Whether the bytes can be read: alignment is that of the whole copy, also when it reads nothing.
    #[inline(always)]
    fn check_source(&mut self, address: u64, bytes: u32, align: u32) -> Result<()> {
        if !address.is_multiple_of(u64::from(align)) {
            let message = format!("expected a global address that is a multiple of {align}");
            return Err(Fault::new(FaultKind::Misaligned, message).at(address));
        }
        if bytes > 0 {
            let allocation = self.allocation(address, bytes)?;
            if !allocation.is_written(address, u64::from(bytes)) {
                let message = format!("{bytes} bytes of global memory, not all of which were written");
                return Err(Fault::new(FaultKind::Uninitialised, message).at(address));
            }
            self.keep(allocation);
        }
        Ok(())
    }

    pub(super) fn cp_commit(&mut self, active: u32) {
        let CopyState { batches, committed, .. } = &mut self.warp.copies;
        for lane in lanes(active) {
            for batch in batches.iter_mut().rev() {
                if batch.group[lane] == OPEN {
                    batch.group[lane] = committed[lane];
                }
            }
            committed[lane] += 1;
        }
    }

    /// Waits until at most `groups` of the newest groups are under way.
    #[inline(always)]
    pub(super) fn cp_wait(&mut self, groups: u32, active: u32) -> Result<()> {
        let committed = self.warp.copies.committed;
        let memory = self.grid.memory;
        self.cluster.complete_copies(
            memory,
            &mut self.warp.copies,
            &self.warp.clock,
            active,
            |lane, batch| {
                batch.group[lane] != OPEN && batch.group[lane].saturating_add(groups) < committed[lane]
            },
        )
    }

    /// `cp.async.wait_all`
    pub(super) fn cp_wait_all(&mut self, active: u32) -> Result<()> {
        let memory = self.grid.memory;
        self.cluster.complete_copies(memory, &mut self.warp.copies, &self.warp.clock, active, |_, _| true)
    }

    pub(super) fn cp_arrive(&mut self, address: &Address, noinc: bool, active: u32) -> Result<()> {
        let (space, addresses) = self.resolve(address, active)?;
        debug_assert_eq!(space, Space::Shared);
        let (warp, copies) = (self.warp.index, self.warp.copies.issued);
        for lane in lanes(active) {
            let (block, at) = self.shared_place(addresses[lane])?;
            if !noinc {
                self.cluster.mbarrier(block, at)?.pending += 1;
            }
            self.cluster.pending.push(Pending::Arrive { warp, lane, block, at, copies });
        }
        Ok(())
    }

    /// A warp that exits must not leave bulk copies that still read shared memory.
    pub(super) fn finish_copies(&mut self) -> Result<()> {
        if self.warp.copies.stores.iter().any(|store| !store.was_read()) {
            let message =
                "exited while a bulk copy still reads shared memory: cp.async.bulk.wait_group is missing";
            return Err(Fault::new(FaultKind::InFlight, message));
        }
        let index = self.warp.index;
        let arrives = |pending: &Pending| match pending {
            Pending::Arrive { warp, lane, .. } if *warp == index => 1 << lane,
            _ => 0,
        };
        // These will complete for a mbarrier.
        let awaited = self.cluster.pending.iter().map(arrives).fold(0, |a, b: u32| a | b);
        for mut batch in std::mem::take(&mut self.warp.copies.batches) {
            // Nobody waited for these: their bytes stay unknown, but the copies are over.
            let lost = batch.lanes & !awaited;
            batch.lanes &= awaited;
            if batch.lanes != 0 {
                self.warp.copies.batches.push(batch.clone());
            }
            for lane in lanes(lost) {
                let shared = &mut self.cluster.blocks[usize::from(batch.block[lane])].shared;
                shared.end_write(
                    batch.to[lane],
                    batch.size,
                    lane,
                    self.warp.clock.actor,
                    self.warp.clock.epoch,
                );
            }
        }
        let stores = std::mem::take(&mut self.warp.copies.stores);
        stores.into_iter().try_for_each(|store| store.write(self.grid.memory, self.cluster))
    }
}

impl Cluster {
    /// Completes the copies of some lanes whose groups are due.
    #[inline(always)]
    fn complete_copies(
        &mut self,
        memory: &GlobalMemory,
        copies: &mut CopyState,
        clock: &WarpClock,
        active: u32,
        due: impl Fn(usize, &Batch) -> bool,
    ) -> Result<()> {
        for batch in &mut copies.batches {
            for lane in lanes(batch.lanes & active) {
                if due(lane, batch) {
                    batch.lanes &= !(1 << lane);
                    self.complete_copy(memory, batch, lane, clock)?;
                }
            }
        }
        copies.batches.retain(|batch| batch.lanes != 0);
        Ok(())
    }

    #[inline(always)]
    fn complete_copy(
        &mut self,
        memory: &GlobalMemory,
        batch: &Batch,
        lane: usize,
        clock: &WarpClock,
    ) -> Result<()> {
        let (read, size) = (u32::from(batch.read[lane]), batch.size);
        let width = Width::of(size as usize).unwrap_or(Width::B16);
        let value = if read == size {
            self.load_global(memory, batch.from[lane], width)?
        } else {
            let mut bytes = [0; 16];
            if read > 0 {
                self.read_global(memory, batch.from[lane], &mut bytes[..read as usize])?;
            }
            u128::from_le_bytes(bytes)
        };
        let shared = &mut self.blocks[usize::from(batch.block[lane])].shared;
        shared.store(batch.to[lane], width, value);
        shared.end_write(batch.to[lane], size, lane, clock.actor, clock.epoch);
        Ok(())
    }

    /// Completes one operation that nobody has waited for explicitly.
    ///
    /// # Errors
    /// A fault of the copy.
    pub(crate) fn complete_pending(&mut self, memory: &GlobalMemory, n: usize) -> Result<()> {
        match self.pending.swap_remove(n) {
            Pending::Load(load) => load.complete(memory, self),
            Pending::Store(store) => store.complete(self),
            Pending::Arrive { warp, lane, block, at, copies } => {
                self.complete_copies_of(memory, warp, lane, copies, (block, at))?;
                self.arrive(block, at, 1)
            }
        }
    }

    /// Completes what a lane has issued before its arrival; who sees the arrival sees these copies.
    fn complete_copies_of(
        &mut self,
        memory: &GlobalMemory,
        index: usize,
        lane: usize,
        copies: u64,
        (block, at): (usize, u32),
    ) -> Result<()> {
        let Some(mut warp) = self.warps[index].take() else { return Ok(()) };
        let clock = warp.clock.clone();
        let before = |_: usize, batch: &Batch| batch.number < copies;
        let done = self.complete_copies(memory, &mut warp.copies, &clock, 1 << lane, before);
        let released = done.and_then(|()| {
            warp.clock.release(&mut self.mbarrier(block, at)?.clock);
            Ok(())
        });
        self.warps[index] = Some(warp);
        released
    }
}
