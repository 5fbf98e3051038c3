//! Bulk copies, with and without tensor maps (TMA): issued here, completed when somebody waits or nobody can
//! move.

use std::sync::Arc;

use crate::decode::operands::{PARAM_WINDOW, WINDOW_MASK};
use crate::decode::program::{Address, Bulk, BulkDirection, NONE, Space, TensorMapReplace};
use crate::memory::clock::WarpClock;
use crate::memory::footprint::Usage;
use crate::memory::global::GlobalMemory;
use crate::memory::l2::SECTOR;
use crate::report::{Fault, FaultKind};
use crate::schedule::state::Cluster;
use crate::tensor::reduce::{self, Reduction};
use crate::tensor::tensor_map::{self, Field, MAP_BYTES, TensorMap};
use crate::tensor::tma::{Piece, SHARED_ALIGNMENT};

use super::atomics::update_global;
use super::copies::Pending;
use super::{Exec, Result, lanes};

/// What sizes and addresses of bulk copies must be multiples of.
const ALIGN: u32 = 16;
/// Bytes of a mbarrier.
const MBARRIER: u32 = 8;

/// Where the bytes of a load come from.
#[derive(Clone, Debug)]
enum Origin {
    /// Global memory, or nowhere: then the tensor map's filling.
    Global(Option<Box<TensorMap>>),
    /// Shared memory of a block; read by the actor at an epoch.
    Shared(usize, Box<WarpClock>),
}

/// A bulk copy into the shared memory of a block; a multicast is one for each of its blocks, whose bytes
/// arrive at different times.
#[derive(Clone, Debug)]
pub struct BulkLoad {
    origin: Origin,
    pieces: Arc<[Piece]>,
    /// The block that gets the bytes.
    block: usize,
    /// The mbarrier that it completes on: block and offset.
    mbarrier: (usize, u32),
    bytes: u32,
    /// `%ctaid` and kernel are those of the issuer, for faults.
    place: Box<Fault>,
}

/// A bulk copy out of shared memory, or a reduction.
#[derive(Clone, Debug)]
pub struct BulkStore {
    lane: usize,
    group: Option<u32>,
    block: usize,
    pieces: Vec<Piece>,
    reduction: Option<Reduction>,
    /// The bytes, once read.
    data: Option<Vec<u8>>,
}

impl BulkStore {
    /// Whether shared memory is free again.
    pub(super) fn was_read(&self) -> bool {
        self.data.is_some()
    }

    fn read(&mut self, cluster: &mut Cluster, clock: &WarpClock) {
        if self.data.is_some() {
            return;
        }
        let shared = &mut cluster.blocks[self.block].shared;
        let mut data = Vec::new();
        for piece in &self.pieces {
            data.extend_from_slice(
                &shared.bytes()[piece.shared as usize..(piece.shared + piece.bytes) as usize],
            );
            shared.end_read(piece.shared, piece.bytes, clock);
        }
        self.data = Some(data);
    }

    /// Writes what was read to global memory.
    pub(super) fn write(self, memory: &GlobalMemory, cluster: &mut Cluster) -> Result<()> {
        let data = self.data.unwrap_or_default();
        let mut from = 0;
        for piece in &self.pieces {
            let bytes = &data[from..from + piece.bytes as usize];
            from += piece.bytes as usize;
            let Some(address) = piece.global else { continue };
            match self.reduction {
                None => cluster.write_global(memory, address, bytes)?,
                Some(reduction) => reduce_global(memory, address, bytes, reduction)?,
            }
        }
        Ok(())
    }
}

/// Address and bytes of the pieces that lie in global memory.
fn there(pieces: &[Piece]) -> impl Iterator<Item = (u64, u64)> {
    pieces.iter().filter_map(|piece| piece.global.map(|address| (address, u64::from(piece.bytes))))
}

/// Sectors of pieces in the order of their addresses, as those of a box are.
fn piece_sectors(pieces: &[Piece]) -> u64 {
    let (mut count, mut last) = (0, None);
    for (address, bytes) in there(pieces) {
        let (first, end) = (address / SECTOR, (address + bytes - 1) / SECTOR);
        count += end - first + 1 - u64::from(last == Some(first));
        last = Some(end);
    }
    count
}

impl Cluster {
    fn trace_pieces(&mut self, pieces: &[Piece], writes: bool) {
        if let Some(trace) = &mut self.trace {
            there(pieces).for_each(|(address, bytes)| trace.record(address, bytes, writes));
        }
    }
}

fn reduce_global(memory: &GlobalMemory, address: u64, bytes: &[u8], reduction: Reduction) -> Result<()> {
    let allocation = memory.find(address, bytes.len() as u64)?;
    if !allocation.is_written(address, bytes.len() as u64) {
        let message =
            format!("a reduction of {} bytes of global memory, not all of which were written", bytes.len());
        return Err(Fault::new(FaultKind::Uninitialised, message).at(address));
    }
    for (n, element) in bytes.chunks_exact(reduction.bytes).enumerate() {
        let mut copied = [0; 8];
        copied[..element.len()].copy_from_slice(element);
        let copied = u64::from_le_bytes(copied);
        let at = address + (n * reduction.bytes) as u64;
        let new = |old: u128| u128::from((reduction.apply)(old as u64, copied));
        update_global(&allocation, memory, at, reduction.bytes as u32, new);
    }
    Ok(())
}

impl BulkLoad {
    /// The block that gets the bytes.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Does the copy and completes its bytes on the mbarrier.
    pub(super) fn complete(self, memory: &GlobalMemory, cluster: &mut Cluster) -> Result<()> {
        let place = self.place.clone();
        self.copy(memory, cluster).map_err(|mut fault| {
            fault.kernel = place.kernel;
            fault.block = place.block;
            fault.thread = place.thread;
            fault.source = place.source;
            fault.ptx_line = place.ptx_line;
            fault.instruction = place.instruction;
            fault
        })
    }

    fn copy(self, memory: &GlobalMemory, cluster: &mut Cluster) -> Result<()> {
        let (actor, epoch) = (cluster.copy_actor(self.block), cluster.copy_epoch);
        cluster.copy_epoch += 1;
        let mut data = Vec::new();
        for piece in self.pieces.iter() {
            data.resize(piece.bytes as usize, 0);
            self.read_piece(memory, cluster, piece, &mut data)?;
            let shared = &mut cluster.blocks[self.block].shared;
            let at = piece.shared as usize;
            shared.bytes_mut()[at..at + data.len()].copy_from_slice(&data);
            shared.end_bulk_write(piece.shared, piece.bytes, actor, epoch);
        }
        let (block, at) = self.mbarrier;
        let object = cluster.mbarrier(block, at)?;
        object.clock.visible[actor] = object.clock.visible[actor].max(epoch);
        cluster.complete_bytes(block, at, self.bytes)
    }

    fn read_piece(
        &self,
        memory: &GlobalMemory,
        cluster: &mut Cluster,
        piece: &Piece,
        data: &mut [u8],
    ) -> Result<()> {
        match (&self.origin, piece.global) {
            (Origin::Global(_), Some(address)) => cluster.read_global(memory, address, data),
            (Origin::Global(map), None) => {
                data.fill(0);
                if let Some(map) = map {
                    map.fill(data);
                }
                Ok(())
            }
            (Origin::Shared(block, clock), from) => {
                let from = from.unwrap_or(0) as u32;
                let shared = &mut cluster.blocks[*block].shared;
                data.copy_from_slice(&shared.bytes()[from as usize..(from + piece.bytes) as usize]);
                shared.end_read(from, piece.bytes, clock);
                Ok(())
            }
        }
    }
}

impl Exec<'_> {
    pub(super) fn bulk(&mut self, bulk: &Bulk, active: u32) -> Result<()> {
        for lane in lanes(active) {
            self.bulk_lane(bulk, lane).map_err(|fault| self.blame(fault, lane))?;
        }
        Ok(())
    }

    fn bulk_lane(&mut self, bulk: &Bulk, lane: usize) -> Result<()> {
        let (block, at) = self.shared_place(self.addresses(&bulk.shared)[lane])?;
        let far = self.addresses(&bulk.global)[lane];
        let map = if bulk.tensor { Some(self.tensor_map_at(far)?) } else { None };
        let pieces = self.bulk_pieces(bulk, map.as_ref(), at, far, lane)?;
        for piece in &pieces {
            self.cluster.blocks[block].shared.check_place(piece.shared, piece.bytes, 1)?;
            if let Some(address) = piece.global
                && bulk.direction != BulkDirection::SharedToCluster
            {
                let allocation = self.allocation(address, piece.bytes)?;
                self.keep(allocation);
            }
        }
        match bulk.direction {
            BulkDirection::Load => self.begin_load(bulk, map, pieces, block, lane),
            BulkDirection::SharedToCluster => self.begin_shared_copy(bulk, pieces, block, far, lane),
            BulkDirection::Store | BulkDirection::Reduce => self.begin_store(bulk, map, pieces, block, lane),
        }
    }

    /// The pieces of a copy; `shared` is its address in shared memory, `far` that of the other side or of the
    /// map.
    fn bulk_pieces(
        &mut self,
        bulk: &Bulk,
        map: Option<&TensorMap>,
        shared: u32,
        far: u64,
        lane: usize,
    ) -> Result<Vec<Piece>> {
        let trap = |message: String| Fault::new(FaultKind::Trap, message);
        if let Some(map) = map {
            if !shared.is_multiple_of(SHARED_ALIGNMENT) {
                let message = format!("expected a shared address that is a multiple of {SHARED_ALIGNMENT}");
                return Err(Fault::new(FaultKind::Misaligned, message).at(u64::from(shared)));
            }
            let coordinates: Vec<i32> =
                bulk.coordinates.iter().map(|&row| self.value32(row, lane) as i32).collect();
            return Ok(map.pieces(&coordinates, shared).map_err(trap)?.collect());
        }
        let size = self.value32(bulk.size, lane);
        if size == 0 || !size.is_multiple_of(ALIGN) {
            return Err(trap(format!("expected a size that is a multiple of {ALIGN}, found {size}")));
        }
        if !shared.is_multiple_of(ALIGN) || !far.is_multiple_of(u64::from(ALIGN)) {
            let message =
                format!("expected addresses that are multiples of {ALIGN}, found {shared:#x} and {far:#x}");
            return Err(Fault::new(FaultKind::Misaligned, message).at(far));
        }
        Ok(vec![Piece { shared, global: Some(far), bytes: size }])
    }

    fn begin_load(
        &mut self,
        bulk: &Bulk,
        map: Option<TensorMap>,
        pieces: Vec<Piece>,
        block: usize,
        lane: usize,
    ) -> Result<()> {
        let (barrier_block, barrier) = self.bulk_mbarrier(bulk, lane)?;
        let targets = match bulk.multicast {
            NONE => vec![(block, (barrier_block, barrier))],
            row => {
                let mask = self.value32(row, lane) & 0xFFFF;
                if mask >> self.cluster.blocks.len() != 0 || mask == 0 {
                    let message =
                        format!("multicast to {mask:#x} in a cluster of {}", self.cluster.blocks.len());
                    return Err(Fault::new(FaultKind::OutOfBounds, message));
                }
                lanes(mask).map(|block| (block, (block, barrier))).collect()
            }
        };
        for &(block, (barrier_block, barrier)) in &targets {
            let shared = &self.cluster.blocks[barrier_block].shared;
            shared.check_place(barrier, MBARRIER, MBARRIER)?;
            shared.check_visible(barrier, MBARRIER, lane, &self.warp.clock)?;
            self.cluster.mbarrier(barrier_block, barrier)?;
            for piece in &pieces {
                let shared = &mut self.cluster.blocks[block].shared;
                shared.begin_write(piece.shared, piece.bytes, lane, &self.warp.clock)?;
            }
        }
        let bytes = map.as_ref().map_or_else(|| pieces.iter().map(|p| p.bytes).sum(), TensorMap::box_bytes);
        self.check_copies_beside(there(&pieces), lane, Usage { writes: false, strong: false })?;
        self.count_bulk_load(&pieces, u64::from(bytes) * targets.len() as u64);
        let place = self.blame(self.locate(Fault::new(FaultKind::Trap, ""), 0), lane);
        let origin = Origin::Global(map.map(Box::new));
        let pieces: Arc<[Piece]> = pieces.into();
        let load = |(block, mbarrier)| {
            let (origin, pieces, place) = (origin.clone(), Arc::clone(&pieces), place.clone());
            Pending::Load(BulkLoad { origin, pieces, block, mbarrier, bytes, place })
        };
        self.cluster.pending.extend(targets.into_iter().map(load));
        Ok(())
    }

    /// Counts a request to the L2 cache, which answers it once, for however many blocks.
    fn count_bulk_load(&mut self, pieces: &[Piece], delivered: u64) {
        self.cluster.counters.bulk_load_requests += 1;
        self.cluster.counters.bulk_load_bytes += there(pieces).map(|(_, bytes)| bytes).sum::<u64>();
        self.cluster.counters.bulk_load_sectors += piece_sectors(pieces);
        self.cluster.counters.bulk_delivered_bytes += delivered;
        self.cluster.trace_pieces(pieces, false);
    }

    fn begin_shared_copy(
        &mut self,
        bulk: &Bulk,
        mut pieces: Vec<Piece>,
        block: usize,
        to: u64,
        lane: usize,
    ) -> Result<()> {
        let mbarrier = self.bulk_mbarrier(bulk, lane)?;
        let (target, at) = self.shared_place(to)?;
        for piece in &mut pieces {
            let from = piece.shared;
            self.cluster.blocks[block].shared.begin_read(from, piece.bytes, lane, &self.warp.clock)?;
            let shared = &mut self.cluster.blocks[target].shared;
            shared.check_place(at, piece.bytes, ALIGN)?;
            shared.begin_write(at, piece.bytes, lane, &self.warp.clock)?;
            *piece = Piece { shared: at, global: Some(u64::from(from)), bytes: piece.bytes };
        }
        let bytes = pieces.iter().map(|p| p.bytes).sum();
        let place = self.blame(self.locate(Fault::new(FaultKind::Trap, ""), 0), lane);
        let origin = Origin::Shared(block, Box::new(self.warp.clock.clone()));
        let (pieces, block) = (pieces.into(), target);
        self.cluster.pending.push(Pending::Load(BulkLoad { origin, pieces, block, mbarrier, bytes, place }));
        Ok(())
    }

    fn bulk_mbarrier(&mut self, bulk: &Bulk, lane: usize) -> Result<(usize, u32)> {
        match &bulk.mbarrier {
            Some(address) => self.shared_place(self.addresses(address)[lane]),
            None => Err(Fault::new(FaultKind::Unsupported, "a bulk load without a mbarrier")),
        }
    }

    fn begin_store(
        &mut self,
        bulk: &Bulk,
        map: Option<TensorMap>,
        pieces: Vec<Piece>,
        block: usize,
        lane: usize,
    ) -> Result<()> {
        let reduction = match (&bulk.reduction, &map) {
            (None, _) => None,
            (Some((operation, _)), Some(map)) => Some(reduce::for_tensor(operation, map.data_type)),
            (Some((operation, ty)), None) => Some(reduce::lookup(operation, ty)),
        };
        let unknown = || Fault::new(FaultKind::Unsupported, "a reduction of a type that it does not have");
        let reduction = reduction.map(|found| found.ok_or_else(unknown)).transpose()?;
        for piece in &pieces {
            let shared = &mut self.cluster.blocks[block].shared;
            shared.begin_read(piece.shared, piece.bytes, lane, &self.warp.clock)?;
        }
        self.check_copies_beside(there(&pieces), lane, Usage { writes: true, strong: reduction.is_some() })?;
        self.cluster.counters.bulk_store_bytes += there(&pieces).map(|(_, bytes)| bytes).sum::<u64>();
        self.cluster.counters.bulk_store_sectors += piece_sectors(&pieces);
        if reduction.is_some() {
            self.cluster.trace_pieces(&pieces, false);
        }
        self.cluster.trace_pieces(&pieces, true);
        self.warp.copies.stores.push(BulkStore { lane, group: None, block, pieces, reduction, data: None });
        Ok(())
    }

    pub(super) fn bulk_commit(&mut self, active: u32) {
        let copies = &mut self.warp.copies;
        for lane in lanes(active) {
            let group = copies.bulk_committed[lane];
            let open = copies.stores.iter_mut().filter(|s| s.lane == lane && s.group.is_none());
            open.for_each(|store| store.group = Some(group));
            copies.bulk_committed[lane] += 1;
        }
    }

    /// Waits until at most `groups` of the newest groups are under way, or only still writing for `read`.
    pub(super) fn bulk_wait(&mut self, groups: u32, read: bool, active: u32) -> Result<()> {
        let committed = self.warp.copies.bulk_committed;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.warp.copies.stores).into_iter().partition(|s| {
                active & 1 << s.lane != 0
                    && s.group.is_some_and(|group| group.saturating_add(groups) < committed[s.lane])
            });
        self.warp.copies.stores = rest;
        for mut store in due {
            store.read(self.cluster, &self.warp.clock);
            match read {
                true => self.warp.copies.stores.push(store),
                false => store.write(self.grid.memory, self.cluster)?,
            }
        }
        Ok(())
    }

    /// The tensor map at a generic address: in global memory or among the parameters.
    fn tensor_map_at(&mut self, address: u64) -> Result<TensorMap> {
        let mut bytes = [0; MAP_BYTES];
        if address & WINDOW_MASK == PARAM_WINDOW {
            let at = (address & !WINDOW_MASK) as usize;
            let Some(from) = self.grid.params.get(at..at + MAP_BYTES) else {
                return Err(
                    Fault::new(FaultKind::OutOfBounds, "a tensor map outside the parameters").at(address)
                );
            };
            bytes.copy_from_slice(from);
        } else {
            self.cluster.read_global(self.grid.memory, address, &mut bytes)?;
        }
        TensorMap::decode(&bytes).map_err(|message| Fault::new(FaultKind::Trap, message).at(address))
    }

    pub(super) fn tensor_map_replace(&mut self, op: &TensorMapReplace, active: u32) -> Result<()> {
        let lane = active.trailing_zeros() as usize;
        let (space, addresses) = self.resolve(&op.address, active)?;
        let field = Field::parse(&op.field);
        let field = field.ok_or_else(|| Fault::new(FaultKind::Unsupported, format!("field {}", op.field)))?;
        let value =
            if op.wide { self.value64(op.value, lane) } else { u64::from(self.value32(op.value, lane)) };
        let address = addresses[lane];
        let mut bytes = [0; MAP_BYTES];
        let failed = |message: String| Fault::new(FaultKind::Trap, message).at(address);
        if space == Space::Shared {
            let (block, at) = self.shared_place(address)?;
            let shared = &mut self.cluster.blocks[block].shared;
            shared.check_place(at, MAP_BYTES as u32, SHARED_ALIGNMENT)?;
            let range = at as usize..at as usize + MAP_BYTES;
            bytes.copy_from_slice(&shared.bytes()[range.clone()]);
            tensor_map::replace(&mut bytes, field, op.ordinal, value).map_err(failed)?;
            let order = crate::memory::shared::Order::Weak;
            shared.write(at, MAP_BYTES as u32, lane, &self.warp.clock, order, |_| false)?;
            shared.bytes_mut()[range].copy_from_slice(&bytes);
            return Ok(());
        }
        self.cluster.read_global(self.grid.memory, address, &mut bytes)?;
        tensor_map::replace(&mut bytes, field, op.ordinal, value).map_err(failed)?;
        self.cluster.write_global(self.grid.memory, address, &bytes)
    }

    /// `tensormap.cp_fenceproxy`
    pub(super) fn tensor_map_copy(&mut self, to: &Address, from: &Address, active: u32) -> Result<()> {
        let lane = active.trailing_zeros() as usize;
        let (block, at) = self.shared_place(self.addresses(from)[lane])?;
        let to = self.addresses(to)[lane];
        let shared = &mut self.cluster.blocks[block].shared;
        shared.check_place(at, MAP_BYTES as u32, SHARED_ALIGNMENT)?;
        let order = crate::memory::shared::Order::Weak;
        shared.read(at, MAP_BYTES as u32, lane, &self.warp.clock, order)?;
        let bytes = shared.bytes()[at as usize..at as usize + MAP_BYTES].to_vec();
        self.cluster.write_global(self.grid.memory, to, &bytes)
    }
}
