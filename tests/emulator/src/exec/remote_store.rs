//! `st.async`: stores to shared memory of the cluster that complete on a mbarrier.

use crate::decode::program::StoreAsync;
use crate::report::{Fault, FaultKind};
use crate::schedule::state::Cluster;

use super::copies::Pending;
use super::{Exec, Result, lanes};

/// Bytes of a mbarrier.
const MBARRIER: u32 = 8;

/// A store of one lane under way.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    block: usize,
    at: u32,
    bytes: Vec<u8>,
    mbarrier: (usize, u32),
    /// Where it was issued, for faults.
    place: Box<Fault>,
}

impl RemoteStore {
    /// The block that it stores to.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Stores, then completes its bytes.
    pub(super) fn complete(self, cluster: &mut Cluster) -> Result<()> {
        let (actor, epoch) = (cluster.copy_actor(self.block), cluster.copy_epoch);
        cluster.copy_epoch += 1;
        let (at, bytes) = (self.at as usize, self.bytes.len());
        let shared = &mut cluster.blocks[self.block].shared;
        shared.bytes_mut()[at..at + bytes].copy_from_slice(&self.bytes);
        shared.end_bulk_write(self.at, bytes as u32, actor, epoch);
        let (block, at) = self.mbarrier;
        let arrived = cluster.mbarrier(block, at).map(|object| {
            object.clock.visible[actor] = object.clock.visible[actor].max(epoch);
        });
        let completed = arrived.and_then(|()| cluster.complete_bytes(block, at, bytes as u32));
        completed.map_err(|fault| Box::new(Fault { kind: fault.kind, message: fault.message, ..*self.place }))
    }
}

impl Exec<'_> {
    pub(super) fn store_async(&mut self, store: &StoreAsync, active: u32) -> Result<()> {
        let to = self.addresses(&store.address);
        let mbarriers = self.addresses(&store.mbarrier);
        for lane in lanes(active) {
            let begun = self.begin_store_async(store, to[lane], mbarriers[lane], lane);
            let pending = begun.map_err(|fault| self.blame(fault, lane))?;
            self.cluster.pending.push(Pending::Store(pending));
        }
        Ok(())
    }

    fn begin_store_async(
        &mut self,
        store: &StoreAsync,
        to: u64,
        mbarrier: u64,
        lane: usize,
    ) -> Result<RemoteStore> {
        let width = store.width.bytes();
        let values = store.slots.iter().map(|slot| self.value(*slot, lane).to_le_bytes());
        let bytes: Vec<u8> = values.flat_map(|value| value.into_iter().take(width)).collect();
        let size = bytes.len() as u32;
        let (block, at) = self.shared_place(to)?;
        let shared = &mut self.cluster.blocks[block].shared;
        shared.check_place(at, size, size)?;
        shared.begin_write(at, size, lane, &self.warp.clock)?;
        let mbarrier = self.shared_place(mbarrier)?;
        self.cluster.blocks[mbarrier.0].shared.check_place(mbarrier.1, MBARRIER, MBARRIER)?;
        self.cluster.mbarrier(mbarrier.0, mbarrier.1)?;
        let mut place = self.blame(self.locate(Fault::new(FaultKind::Trap, ""), 0), lane);
        place.address = Some(to);
        Ok(RemoteStore { block, at, bytes, mbarrier, place })
    }
}
