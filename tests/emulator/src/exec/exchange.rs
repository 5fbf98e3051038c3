//! Order among blocks. See [`crate::memory::exchange`].

use std::ops::Range;

use smallvec::SmallVec;

use crate::decode::program::{Access, Order};
use crate::memory::clock::Clock;
use crate::memory::exchange::{Accessed, Actor, Exchange, Knowledge, Lesson};
use crate::report::FaultKind;
use cuda_emulator_alu::row::LANES;

use super::{Exec, Result, lanes};

/// Lanes whose accesses of `bytes` bytes lie one behind the other, so that they can be noted as one. If one
/// of them is to blame, they are noted again, one by one.
fn runs(addresses: &[u64; LANES], mut active: u32, bytes: u64) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        let start = lanes(active).next()?;
        let follows =
            |lane: &usize| active >> lane & 1 == 1 && addresses[*lane] == addresses[lane - 1] + bytes;
        let end = start + 1 + (start + 1..LANES).take_while(follows).count();
        (start..end).for_each(|lane| active &= !(1 << lane));
        Some(start..end)
    })
}

impl<'a> Exec<'a> {
    #[inline(always)]
    pub(super) fn exchange(&self) -> Option<&'a Exchange> {
        self.grid.exchange.as_ref()
    }

    fn actor(&self) -> Actor {
        let (warp, epoch) = (self.warp.index as u32, self.warp.clock.epoch);
        Actor { cluster: self.cluster.number, warp, epoch }
    }

    /// Whether another cluster's access is behind this warp.
    fn knows(&self, actor: Actor) -> bool {
        self.lessons().any(|lesson| lesson.knowledge.covers(actor))
    }

    /// What this warp, or one that it has heard of since, has learned; the latest first.
    fn lessons(&self) -> impl Iterator<Item = &Lesson> {
        let visible = &self.warp.clock.known.visible;
        let heard = |l: &&Lesson| l.warp == self.warp.index || visible[l.warp] >= l.epoch;
        self.cluster.lessons.iter().rev().filter(heard)
    }

    /// All that this warp knows.
    fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::default();
        for lesson in self.lessons() {
            knowledge.join(&lesson.knowledge);
        }
        knowledge
    }

    /// All that is behind this warp, for whoever will acquire it.
    fn released(&mut self) -> Knowledge {
        let mut clock = Clock::new(self.warp.clock.known.visible.len(), 0);
        self.warp.clock.release(&mut clock);
        let mut knowledge = self.knowledge();
        knowledge.join(&Knowledge::of(self.cluster.number, &clock.visible));
        knowledge
    }

    fn learn(&mut self, new: &Knowledge) {
        let mut knowledge = self.knowledge();
        if knowledge.join(new) {
            let (warp, epoch) = (self.warp.index, self.warp.clock.epoch);
            self.cluster.lessons.push(Lesson { warp, epoch, knowledge });
        }
    }

    /// A fence that orders accesses of other blocks too.
    pub(super) fn fence_blocks(&mut self) {
        if self.exchange().is_none() {
            return;
        }
        if let Some(seen) = self.warp.seen.take() {
            self.learn(&seen);
        }
        self.warp.released = Some(Box::new(self.released()));
    }

    /// Before a strong write.
    #[cold]
    pub(super) fn release_blocks(&mut self, exchange: &Exchange, order: Order, address: u64) {
        if order.release {
            let released = self.released();
            exchange.release(address, &released);
        } else if let (true, Some(released)) = (order.across, &self.warp.released) {
            exchange.release(address, released);
        }
    }

    /// After a strong read.
    #[cold]
    pub(super) fn acquire_blocks(&mut self, exchange: &Exchange, order: Order, address: u64) {
        if !order.across {
            return;
        }
        let mut seen = self.warp.seen.take().unwrap_or_default();
        exchange.acquire(address, &mut seen);
        match order.acquire {
            true => self.learn(&seen),
            false => self.warp.seen = Some(seen),
        }
    }

    /// A load that has been done.
    #[cold]
    pub(super) fn exchanged_load(
        &mut self,
        exchange: &Exchange,
        access: &Access,
        addresses: &[u64; LANES],
        active: u32,
    ) -> Result<()> {
        if access.order.across {
            lanes(active).for_each(|lane| self.acquire_blocks(exchange, access.order, addresses[lane]));
            return Ok(());
        }
        let (mut accessed, bytes) = (exchange.accessed(), u64::from(access.bytes()));
        for run in runs(addresses, active, bytes) {
            let (first, all) = (run.start, bytes * run.len() as u64);
            if self.note_load(&mut accessed, addresses[first], all, first).is_err() {
                run.into_iter()
                    .try_for_each(|lane| self.note_load(&mut accessed, addresses[lane], bytes, lane))?;
            }
        }
        Ok(())
    }

    fn note_load(&self, accessed: &mut Accessed<'_>, address: u64, bytes: u64, lane: usize) -> Result<()> {
        match accessed.read(self.actor(), address, bytes, |actor| self.knows(actor)) {
            Some(writer) => Err(self.race(writer, address, lane)),
            None => Ok(()),
        }
    }

    /// A store that is about to be done.
    #[cold]
    pub(super) fn exchanged_store(
        &mut self,
        exchange: &Exchange,
        access: &Access,
        addresses: &[u64; LANES],
        active: u32,
    ) -> Result<()> {
        if access.order.across {
            lanes(active).for_each(|lane| self.release_blocks(exchange, access.order, addresses[lane]));
            return Ok(());
        }
        let mut accessed = exchange.accessed();
        for run in runs(addresses, active, u64::from(access.bytes())) {
            if self.note_store(&mut accessed, access, addresses, run.clone()).is_err() {
                run.into_iter()
                    .try_for_each(|lane| self.note_store(&mut accessed, access, addresses, lane..lane + 1))?;
            }
        }
        Ok(())
    }

    fn note_store(
        &self,
        accessed: &mut Accessed<'_>,
        access: &Access,
        addresses: &[u64; LANES],
        run: Range<usize>,
    ) -> Result<()> {
        let lane = run.start;
        for (address, bytes, changes) in self.changes(access, addresses[lane], run)? {
            let knows = |actor| self.knows(actor);
            if let Some(other) = accessed.write(self.actor(), address, bytes, changes, knows) {
                return Err(self.race(other, address, lane));
            }
        }
        Ok(())
    }

    /// What a run of lanes is about to store from `address` on, in pieces that change something and pieces
    /// that do not: address, bytes, and which it is.
    fn changes(
        &self,
        access: &Access,
        address: u64,
        run: Range<usize>,
    ) -> Result<SmallVec<[(u64, u64, bool); 4]>> {
        let (width, mut old) = (access.width.bytes(), [0; 64 * LANES]);
        let old = &mut old[..access.slots.len() * width * run.len()];
        self.grid.memory.read(address, old).map_err(|fault| self.blame(fault, run.start))?;
        let mut pieces: SmallVec<[(u64, u64, bool); 4]> = SmallVec::new();
        let slots = run.flat_map(|lane| access.slots.iter().map(move |slot| (lane, *slot)));
        for (n, ((lane, slot), old)) in slots.zip(old.chunks(width)).enumerate() {
            let changes = self.value(slot, lane).to_le_bytes()[..width] != *old;
            match pieces.last_mut() {
                Some((_, bytes, same)) if *same == changes => *bytes += width as u64,
                _ => pieces.push((address + (n * width) as u64, width as u64, changes)),
            }
        }
        Ok(pieces)
    }

    fn race(&self, other: Actor, address: u64, lane: usize) -> Box<crate::report::Fault> {
        let message = format!(
            "warp {} of block {} accesses the same bytes of global memory, and no release and acquire order the two",
            other.warp, other.cluster
        );
        self.lane_fault(FaultKind::Race, message, lane).at(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_lie_one_behind_the_other_are_noted_as_one() {
        let mut addresses: [u64; LANES] = std::array::from_fn(|lane| 4096 + 4 * lane as u64);
        let found = |addresses: &[u64; LANES], active| -> Vec<(usize, usize)> {
            runs(addresses, active, 4).map(|run| (run.start, run.end)).collect()
        };
        assert_eq!(found(&addresses, u32::MAX), [(0, 32)]);
        assert_eq!(found(&addresses, 0xF000_00F7), [(0, 3), (4, 8), (28, 32)]);
        // Two lanes at the same place, and one elsewhere.
        (addresses[1], addresses[30]) = (4096, 0);
        assert_eq!(found(&addresses, u32::MAX), [(0, 1), (1, 2), (2, 30), (30, 31), (31, 32)]);
        assert_eq!(found(&addresses, 0), []);
    }
}
