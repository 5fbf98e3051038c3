//! Order among blocks. See [`crate::memory::exchange`].

use crate::decode::program::{Access, Order};
use crate::memory::clock::Clock;
use crate::memory::exchange::{Actor, Exchange, Knowledge, Lesson};
use crate::report::FaultKind;
use crate::row::LANES;

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
        for lane in lanes(active) {
            if access.order.across {
                self.acquire_blocks(exchange, access.order, addresses[lane]);
                continue;
            }
            let knows = |actor| self.knows(actor);
            let bytes = u64::from(access.bytes());
            if let Some(writer) = exchange.read(self.actor(), addresses[lane], bytes, knows) {
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
        for lane in lanes(active) {
            if access.order.across {
                self.release_blocks(exchange, access.order, addresses[lane]);
                continue;
            }
            for (n, slot) in access.slots.iter().enumerate() {
                let width = access.width.bytes();
                let address = addresses[lane] + (n * width) as u64;
                let mut old = [0; 16];
                let found = self.grid.memory.read(address, &mut old[..width]);
                found.map_err(|fault| self.blame(fault, lane))?;
                let changes = self.value(*slot, lane).to_le_bytes()[..width] != old[..width];
                let knows = |actor| self.knows(actor);
                let other = exchange.write(self.actor(), address, width as u64, changes, knows);
                if let Some(other) = other {
                    return Err(self.race(other, address, lane));
                }
            }
        }
        Ok(())
    }

    fn race(&self, other: Actor, address: u64, lane: usize) -> Box<crate::report::Fault> {
        let message = format!(
            "warp {} of block {} accesses the same bytes of global memory, and no release and acquire order the two",
            other.warp, other.cluster
        );
        self.lane_fault(FaultKind::Race, message, lane).at(address)
    }
}
