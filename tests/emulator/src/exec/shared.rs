//! Shared memory, of the own block and of others of the cluster.

use crate::decode::program::Access;
use crate::memory::access::Width;
use crate::memory::shared::{Order, Shared};
use crate::report::{Fault, FaultKind};

use super::memory::{Addresses, RANK_SHIFT};
use super::{Exec, Result, lanes};

impl Exec<'_> {
    /// Block and offset of an address in shared memory.
    #[inline(always)]
    pub(super) fn shared_place(&self, address: u64) -> Result<(usize, u32)> {
        let rank = (address >> RANK_SHIFT) as usize;
        let offset = (address & ((1 << RANK_SHIFT) - 1)) as u32;
        match rank {
            0 => Ok((self.warp.block, offset)),
            _ if rank - 1 == self.warp.block => Ok((rank - 1, offset)),
            _ if rank <= self.cluster.blocks.len() && self.cluster.blocks[rank - 1].live_warps > 0 => {
                Ok((rank - 1, offset))
            }
            _ => Err(self.outside_cluster(address)),
        }
    }

    #[cold]
    fn outside_cluster(&self, address: u64) -> Box<Fault> {
        let rank = (address >> RANK_SHIFT) as usize;
        let message = match self.cluster.blocks.len() {
            blocks if rank <= blocks => {
                format!("shared memory of block {} of the cluster, which has exited", rank - 1)
            }
            blocks => format!("an address in shared memory of none of the cluster's {blocks} blocks"),
        };
        Fault::new(FaultKind::OutOfBounds, message).at(address)
    }

    #[inline(always)]
    pub(super) fn count_shared(&mut self, addresses: &Addresses, bytes: u32, active: u32) {
        let (taken, ideal) = self.cluster.patterns.wavefronts(self.pc, addresses, bytes, active);
        self.cluster.counters.shared_requests += 1;
        self.cluster.counters.shared_wavefronts += taken;
        self.cluster.counters.shared_wavefronts_ideal += ideal;
    }

    #[inline(always)]
    pub(super) fn load_shared(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        self.count_shared(addresses, bytes, active);
        let order = Self::shared_order(access.order.strong);
        for lane in lanes(active) {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            let shared = &mut self.cluster.blocks[block].shared;
            if let Err(fault) = shared.check_place(at, bytes, bytes) {
                return Err(self.blame(fault, lane));
            }
            if let Err(fault) = shared.read(at, bytes, lane, &self.warp.clock, order) {
                return Err(self.blame(fault, lane));
            }
            if access.words {
                for (n, slot) in access.slots.iter().enumerate() {
                    self.warp.rows[slot.row as usize].0[lane] = shared.word(at + 4 * n as u32);
                }
            } else {
                self.load_shared_elements(access, block, at, lane);
            }
            if order == Order::Strong {
                self.acquire_location(block, at);
            }
        }
        Ok(())
    }

    fn load_shared_elements(&mut self, access: &Access, block: usize, at: u32, lane: usize) {
        for n in 0..access.slots.len() {
            let from = at + (n * access.width.bytes()) as u32;
            let value = self.cluster.blocks[block].shared.load(from, access.width);
            self.set_loaded(access, n, lane, value);
        }
    }

    #[inline(always)]
    pub(super) fn store_shared(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        self.count_shared(addresses, bytes, active);
        let order = Self::shared_order(access.order.strong);
        for lane in lanes(active) {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            if order == Order::Strong {
                self.release_location(block, at);
            }
            let stored = match access.words {
                true => self.store_shared_words(access, block, at, lane, order),
                false => self.store_shared_elements(access, block, at, lane, order),
            };
            stored.map_err(|fault| self.blame(fault, lane))?;
        }
        Ok(())
    }

    /// Stores up to four words at once.
    #[inline(always)]
    fn store_shared_words(
        &mut self,
        access: &Access,
        block: usize,
        at: u32,
        lane: usize,
        order: Order,
    ) -> Result<()> {
        let bytes = access.bytes();
        let mut words = [0; 4];
        for (word, slot) in words.iter_mut().zip(&access.slots) {
            *word = self.warp.rows[slot.row as usize].0[lane];
        }
        let words = &words[..access.slots.len()];
        let shared = &mut self.cluster.blocks[block].shared;
        shared.check_place(at, bytes, bytes)?;
        let places = || (at..).step_by(4).zip(words);
        let same = |shared: &Shared| places().all(|(to, &word)| shared.word(to) == word);
        shared.write(at, bytes, lane, &self.warp.clock, order, same)?;
        places().for_each(|(to, &word)| shared.store(to, Width::B4, u128::from(word)));
        Ok(())
    }

    fn store_shared_elements(
        &mut self,
        access: &Access,
        block: usize,
        at: u32,
        lane: usize,
        order: Order,
    ) -> Result<()> {
        let width = access.width;
        self.cluster.blocks[block].shared.check_place(at, access.bytes(), access.bytes())?;
        for (n, slot) in access.slots.iter().enumerate() {
            let to = at + (n * width.bytes()) as u32;
            let value = self.value(*slot, lane) & width_mask(width.bytes());
            let shared = &mut self.cluster.blocks[block].shared;
            let same = |shared: &Shared| shared.load(to, width) == value;
            shared.write(to, width.bytes() as u32, lane, &self.warp.clock, order, same)?;
            shared.store(to, width, value);
        }
        Ok(())
    }

    /// Threads may synchronise through a location with strong accesses: whoever reads it learns what its
    /// writers knew. Only kernels that fence or order accesses explicitly do so.
    pub(super) fn acquire_location(&mut self, block: usize, at: u32) {
        if !self.grid.program.has_fences {
            return;
        }
        if let Some(clock) = self.cluster.blocks[block].locations.get(&at) {
            self.warp.clock.acquire(clock);
        }
    }

    /// See [`Exec::acquire_location`].
    pub(super) fn release_location(&mut self, block: usize, at: u32) {
        if !self.grid.program.has_fences {
            return;
        }
        let fresh = || crate::memory::clock::Clock::new(self.warp.clock.known.visible.len(), 0);
        let clock = self.cluster.blocks[block].locations.entry(at).or_insert_with(fresh);
        self.warp.clock.release(clock);
    }
}

fn width_mask(bytes: usize) -> u128 {
    if bytes == 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 }
}
