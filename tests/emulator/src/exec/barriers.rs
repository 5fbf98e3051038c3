//! Barriers of a warp, a block and a cluster, and fences.

use crate::decode::program::{Barrier, BarrierKind, Fence, NONE};
use crate::memory::clock::Clock;
use crate::report::{Fault, FaultKind};
use crate::schedule::state::State;
use cuda_emulator_alu::row::LANES;

use super::{Exec, Flow, Result};

/// Barriers of a block.
const BARRIERS: u32 = 16;

impl Exec<'_> {
    pub(super) fn warp_barrier(&mut self, members: u32, current: usize, active: u32) -> Result<Flow> {
        let members = self.value32(members, active.trailing_zeros() as usize);
        if !self.converge(members, current, active)? {
            return Ok(Flow::Moved);
        }
        self.warp.clock.warp_barrier();
        Ok(Flow::Next)
    }

    /// Fences order what surrounds them: the locations that threads synchronise through carry what was
    /// released.
    pub(super) fn fence(&mut self, fence: Fence) {
        match fence {
            Fence::ProxyAsync => self.warp.clock.proxy_fence(),
            Fence::Memory | Fence::Near | Fence::MbarrierInit => {
                // Blocks run on several threads: their accesses to global memory must not pass each other
                // either.
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                let mut fenced = Clock::new(self.warp.clock.known.visible.len(), 0);
                self.warp.clock.release(&mut fenced);
                self.warp.fenced = Some(Box::new(fenced));
                if fence == Fence::Memory {
                    self.fence_blocks();
                }
            }
            Fence::Other => {}
        }
    }

    pub(super) fn barrier(&mut self, barrier: &Barrier, active: u32) -> Result<Flow> {
        let first = active.trailing_zeros() as usize;
        let id = self.value32(barrier.id, first);
        if id >= BARRIERS {
            return Err(Fault::new(
                FaultKind::Barrier,
                format!("expected a barrier below {BARRIERS}, found {id}"),
            ));
        }
        let count = self.barrier_count(barrier, first)?;
        let votes = match barrier.src {
            NONE => (0, 0),
            p => ((self.warp.predicates[p as usize] & active).count_ones(), active.count_ones()),
        };
        self.arrive(id as usize, count, barrier.kind, votes)?;
        if self.complete_barrier(id as usize) {
            self.reduction_result(barrier);
            return Ok(Flow::Next);
        }
        match barrier.kind {
            BarrierKind::Arrive => Ok(Flow::Next),
            kind => {
                self.cluster.counters.barrier_waits += 1;
                self.warp.barrier_reduction = (barrier.dst != NONE).then_some((kind, barrier.dst));
                Ok(Flow::Wait(State::Barrier))
            }
        }
    }

    /// Threads the barrier waits for; 0 for all of the block.
    fn barrier_count(&self, barrier: &Barrier, lane: usize) -> Result<u32> {
        if barrier.count == NONE {
            return Ok(0);
        }
        let count = self.value32(barrier.count, lane);
        let threads = (self.grid.warps() * LANES) as u32;
        if count == 0 || !count.is_multiple_of(LANES as u32) || count > threads {
            let message =
                format!("expected a multiple of {LANES} threads up to {threads} at a barrier, found {count}");
            return Err(Fault::new(FaultKind::Barrier, message));
        }
        Ok(count)
    }

    fn arrive(
        &mut self,
        id: usize,
        count: u32,
        kind: BarrierKind,
        (trues, voters): (u32, u32),
    ) -> Result<()> {
        let all = (self.grid.warps() * LANES) as u32;
        let actors = self.warp.clock.known.visible.len();
        let block = &mut self.cluster.blocks[self.warp.block];
        let barrier = &mut block.barriers[id];
        let expected = *barrier.expected.get_or_insert(count);
        let threads = |n: u32| if n == 0 { all } else { n };
        if threads(expected) != threads(count) {
            let what = |n: u32| if n == 0 { "all threads".to_owned() } else { format!("{n} threads") };
            let message = format!("barrier {id} waits for {}, found {}", what(expected), what(count));
            return Err(Fault::new(FaultKind::Barrier, message));
        }
        barrier.arrived += LANES as u32;
        barrier.trues += trues;
        barrier.voters += voters;
        if count != 0 && barrier.arrived > count {
            let message =
                format!("{} threads arrived at barrier {id}, which waits for {count}", barrier.arrived);
            return Err(Fault::new(FaultKind::Barrier, message));
        }
        let clock = barrier.clock.get_or_insert_with(|| Clock::new(actors, 0));
        self.warp.clock.release(clock);
        if kind != BarrierKind::Arrive {
            barrier.waiting.push(self.warp.index);
        }
        Ok(())
    }

    /// If all have arrived, lets those that wait go on; whether they had.
    fn complete_barrier(&mut self, id: usize) -> bool {
        let block = &mut self.cluster.blocks[self.warp.block];
        let needed = match block.barriers[id].expected {
            None => return false,
            Some(0) => (block.live_warps * LANES) as u32,
            Some(count) => count,
        };
        if block.barriers[id].arrived < needed {
            return false;
        }
        let barrier = std::mem::take(&mut block.barriers[id]);
        let Some(clock) = barrier.clock else { return false };
        for index in barrier.waiting {
            let warp = match &mut self.cluster.warps[index] {
                Some(warp) => warp,
                None => &mut *self.warp,
            };
            warp.clock.acquire(&clock);
            warp.state = State::Ready;
            warp.barrier_result = (barrier.trues, barrier.voters);
            if let Some((kind, dst)) = warp.barrier_reduction.take() {
                set_reduction(warp, kind, dst);
            }
        }
        true
    }

    /// The result of a reduction for the warp that completed it.
    fn reduction_result(&mut self, barrier: &Barrier) {
        if barrier.dst != NONE {
            set_reduction(self.warp, barrier.kind, barrier.dst);
        }
    }

    /// All lanes have exited: barriers wait no longer for this warp.
    pub(super) fn exited(&mut self) -> Result<()> {
        self.finish_copies()?;
        self.wgmma_commit();
        self.wgmma_wait(0)?;
        self.check_warpgroup()?;
        self.check_all_registers()?;
        self.warp.state = State::Done;
        self.cluster.blocks[self.warp.block].live_warps -= 1;
        if self.cluster.blocks[self.warp.block].live_warps == 0 {
            self.block_ended();
        }
        for id in 0..BARRIERS as usize {
            if self.cluster.blocks[self.warp.block].barriers[id].expected == Some(0) {
                self.complete_barrier(id);
            }
        }
        // An arrival of a warp that is gone is not waited for any more, nor does it count.
        if self.warp.cluster_arrival == Some(self.cluster.barrier.phase) {
            self.cluster.barrier.arrived -= 1;
        }
        self.complete_cluster_barrier();
        Ok(())
    }

    pub(super) fn cluster_arrive(&mut self, relaxed: bool) -> Result<()> {
        if self.warp.cluster_arrival.is_some() {
            let message = "barrier.cluster.arrive twice without a wait between";
            return Err(Fault::new(FaultKind::Barrier, message));
        }
        self.warp.cluster_arrival = Some(self.cluster.barrier.phase);
        self.cluster.barrier.arrived += 1;
        match &self.warp.fenced {
            _ if !relaxed => self.warp.clock.release(&mut self.cluster.barrier.clock),
            Some(fenced) => self.cluster.barrier.clock.join(fenced),
            None => {}
        }
        self.complete_cluster_barrier();
        Ok(())
    }

    fn complete_cluster_barrier(&mut self) {
        let live: usize = self.cluster.blocks.iter().map(|block| block.live_warps).sum();
        let barrier = &mut self.cluster.barrier;
        if live == 0 || barrier.arrived < live {
            return;
        }
        barrier.arrived = 0;
        barrier.phase += 1;
        barrier.completed.join(&barrier.clock);
        for warp in self.cluster.warps.iter_mut().flatten() {
            if warp.state == State::ClusterBarrier {
                warp.state = State::Ready;
            }
        }
    }

    pub(super) fn cluster_wait(&mut self) -> Result<Flow> {
        let Some(phase) = self.warp.cluster_arrival else {
            return Err(Fault::new(FaultKind::Barrier, "barrier.cluster.wait without an arrive before"));
        };
        if self.cluster.barrier.phase == phase {
            self.cluster.counters.barrier_waits += 1;
            return Ok(Flow::Retry(State::ClusterBarrier));
        }
        self.warp.cluster_arrival = None;
        self.warp.clock.acquire(&self.cluster.barrier.completed);
        Ok(Flow::Next)
    }
}

fn set_reduction(warp: &mut crate::schedule::state::Warp, kind: BarrierKind, dst: u32) {
    let (trues, voters) = warp.barrier_result;
    let predicate = |yes: bool| if yes { u32::MAX } else { 0 };
    match kind {
        BarrierKind::Popc => warp.rows[dst as usize].0 = [trues; LANES],
        BarrierKind::And => warp.predicates[dst as usize] = predicate(trues == voters),
        _ => warp.predicates[dst as usize] = predicate(trues > 0),
    }
}
