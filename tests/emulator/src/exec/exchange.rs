//! Order among blocks. See [`crate::memory::exchange`].

use smallvec::SmallVec;

use crate::decode::program::{Access, Order};
use crate::memory::clock::Clock;
use crate::memory::exchange::{Actor, Exchange, Knowledge, Lesson};
use crate::report::FaultKind;
use cuda_emulator_alu::row::LANES;

use super::{Exec, Result, lanes};

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
        for lane in lanes(active) {
            let knows = |actor| self.knows(actor);
            if let Some(writer) = accessed.read(self.actor(), addresses[lane], bytes, knows) {
                return Err(self.race(writer, addresses[lane], lane));
            }
        }
        Ok(())
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
        for lane in lanes(active) {
            for (address, bytes, changes) in self.changes(access, addresses[lane], lane)? {
                let knows = |actor| self.knows(actor);
                if let Some(other) = accessed.write(self.actor(), address, bytes, changes, knows) {
                    return Err(self.race(other, address, lane));
                }
            }
        }
        Ok(())
    }

    /// What a lane is about to store, in pieces that change something and pieces that do not: address, bytes,
    /// and which it is.
    fn changes(&self, access: &Access, address: u64, lane: usize) -> Result<SmallVec<[(u64, u64, bool); 4]>> {
        let (width, mut old) = (access.width.bytes(), [0; 64]);
        let old = &mut old[..access.slots.len() * width];
        self.grid.memory.read(address, old).map_err(|fault| self.blame(fault, lane))?;
        let mut pieces: SmallVec<[(u64, u64, bool); 4]> = SmallVec::new();
        for (n, (slot, old)) in access.slots.iter().zip(old.chunks(width)).enumerate() {
            let changes = self.value(*slot, lane).to_le_bytes()[..width] != *old;
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
