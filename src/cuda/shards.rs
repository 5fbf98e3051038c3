//! Blocks whose weights the GPUs of a machine share: each keeps a part of every block, and copies the parts
//! of the others into memory of its own before it computes with the block (ZeRO-3 for weights that are
//! frozen).
//!
//! Weights are written once, before anybody computes. So there is nothing to wait for: a device reads the
//! memory of the others when it likes, by its copy engines, and a gather is N copies in its own graph rather
//! than a collective. Two slots take turns; while one block is computed with, the next fills the other slot.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, sys};
use half::bf16;

use super::Cuda;
use super::branch::Branch;
use super::driver::complaint;
use super::graph::Side;
use super::launch::weight_stride;
use super::lock::lock;
use crate::error::{Error, Result};
use crate::ops::buffer::ALIGNMENT;
use crate::ops::{Arena, Buffer, Ref};

/// What another process opens a device's part with.
pub type ShareHandle = [u8; 64];

/// Blocks that take turns in a device's memory.
const SLOTS: usize = 2;

/// Where the matrices of a block are in a slot, and which device keeps which elements of it.
pub(super) struct Layout {
    pub(super) matrices: Vec<Place>,
    /// Elements of a slot.
    len: usize,
    /// By rank; each starts with a row.
    pub(super) parts: Vec<Range<usize>>,
}

/// A matrix in a slot.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
    /// Its first element.
    pub(super) first: usize,
}

impl Place {
    /// The rows that start in a part, which itself starts with a row.
    pub(super) fn rows_in(&self, part: &Range<usize>) -> Range<usize> {
        let before = |at: usize| at.saturating_sub(self.first).div_ceil(self.stride.max(1)).min(self.rows);
        before(part.start)..before(part.end)
    }
}

impl Layout {
    fn new(shapes: &[[usize; 2]], ranks: usize) -> Self {
        let mut len = 0;
        let place = |&[rows, columns]: &[usize; 2]| {
            let (stride, first) = (weight_stride(columns), len);
            len = (first + rows * stride).next_multiple_of(ALIGNMENT / size_of::<bf16>());
            Place { rows, columns, stride, first }
        };
        let matrices: Vec<Place> = shapes.iter().map(place).collect();
        let cut = |rank: usize| row_at(&matrices, len, len * rank / ranks);
        let parts = (0..ranks).map(|rank| cut(rank)..cut(rank + 1)).collect();
        Layout { matrices, len, parts }
    }

    /// Elements of a device's part of a block, at most.
    pub(super) fn part_len(&self) -> usize {
        let longest = self.parts.iter().map(Range::len).max().unwrap_or(0);
        longest.next_multiple_of(ALIGNMENT / size_of::<bf16>())
    }
}

/// The first element from `at` on with which a row starts, or the end.
fn row_at(matrices: &[Place], end: usize, at: usize) -> usize {
    let behind = matrices.iter().rev().find(|place| place.first <= at);
    behind.map_or(0, |place| {
        let start = place.first + (at - place.first).next_multiple_of(place.stride.max(1));
        let next = matrices.iter().map(|next| next.first).find(|&first| first > place.first);
        start.min(next.unwrap_or(end))
    })
}

/// A device's part of all blocks, before it knows those of the others.
pub struct Share {
    cuda: Cuda,
    layout: Layout,
    own: Buffer<Cuda, bf16>,
    slots: [Buffer<Cuda, bf16>; SLOTS],
    rank: usize,
}

impl Share {
    /// Memory for the part of device `rank` of `ranks`, of `blocks` blocks whose matrices have these shapes
    /// `[rows, columns]`, and for the blocks that it computes with.
    ///
    /// # Errors
    /// Of kind `Usage`: no such rank. Of kind `Device`: there is not so much memory.
    pub fn new(cuda: &Cuda, shapes: &[[usize; 2]], blocks: usize, rank: usize, ranks: usize) -> Result<Self> {
        if rank >= ranks {
            return Err(Error::usage(format!(
                "rank {rank} of {ranks} that share blocks: expected a lower one"
            )));
        }
        let layout = Layout::new(shapes, ranks);
        // An allocation of its own, as others open the whole of it.
        let (own, _) = Arena::build(cuda, |arena| {
            arena.buffer("part of the blocks' weights", &[blocks, layout.part_len()])
        })?;
        let (slots, _) = Arena::build(cuda, |arena| {
            let mut slot = |name| arena.buffer(name, &[layout.len]);
            Ok([slot("weights of a block")?, slot("weights of the next block")?])
        })?;
        Ok(Share { cuda: cuda.clone(), layout, own, slots, rank })
    }

    /// What the others open this part with.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn handle(&self) -> Result<ShareHandle> {
        let what = |e| complaint("showing weights to other ranks", e);
        self.cuda.stream().context().bind_to_thread().map_err(what)?;
        let mut handle = sys::CUipcMemHandle { reserved: [0; 64] };
        // SAFETY: the address is that of an allocation of the current context.
        unsafe { sys::cuIpcGetMemHandle(&raw mut handle, self.own.view().address() as u64) }
            .result()
            .map_err(what)?;
        Ok(handle.reserved.map(|byte| byte as u8))
    }

    /// Opens the parts of all devices, by rank, of which this one's is its own. From here on the device loads
    /// blocks into its part, and [gathers](crate::ops::Device::gather_block) them; all have to have loaded
    /// theirs before one does.
    ///
    /// # Errors
    /// Those of the driver, such as that of a device whose memory this one does not reach. Of kind `Usage`:
    /// another number of handles than of ranks, or a device that shares blocks already.
    pub fn open(self, handles: &[ShareHandle]) -> Result<()> {
        let Share { cuda, layout, own, slots, rank } = self;
        let (found, ranks) = (handles.len(), layout.parts.len());
        if found != ranks {
            return Err(Error::usage(format!(
                "parts of blocks: expected a handle of each of {ranks} ranks, found {found}"
            )));
        }
        let context = cuda.stream().context();
        context.bind_to_thread().map_err(|e| complaint("opening weights of other ranks", e))?;
        let opened = handles.iter().enumerate().map(|(of, handle)| match of == rank {
            true => Ok(Part::Own(own.view().address() as u64)),
            false => Opened::new(context, handle, of).map(Part::Opened),
        });
        let parts = opened.collect::<Result<_>>()?;
        let branch = Branch::new(Side::Weights, context)?;
        let shards = Shards {
            layout,
            own: Mutex::new(own),
            slots,
            rank,
            branch: Mutex::new(branch),
            parts: Mutex::new(parts),
            gathered: Mutex::default(),
        };
        match cuda.set_shards(shards) {
            true => Ok(()),
            false => {
                Err(Error::usage("a device that shares the blocks of a model: expected one model on it"))
            }
        }
    }
}

/// Memory of another process, while it is open.
struct Opened {
    address: u64,
    context: Arc<CudaContext>,
}

impl Opened {
    fn new(context: &Arc<CudaContext>, handle: &ShareHandle, rank: usize) -> Result<Self> {
        let handle = sys::CUipcMemHandle { reserved: handle.map(|byte| byte as _) };
        let flags = sys::CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
        let mut address = 0;
        // SAFETY: a context is current, and the address is written on success only.
        unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut address, handle, flags) }.result().map_err(|e| {
            let what = format!("opening weights on the GPU of rank {rank} among those that share them");
            complaint(what, e).advice(
                "GPUs have to reach each other's memory (nvidia-smi topo -p2p r), and every rank has to see all of them; \
                 or give --shard-base off",
            )
        })?;
        Ok(Opened { address, context: context.clone() })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // Copies may be on their way: also where an error is the end.
        let _ = self.context.synchronize();
        // SAFETY: opened by `new`, closed once, and nothing reads it any more.
        let _ = unsafe { sys::cuIpcCloseMemHandle(self.address) };
    }
}

/// The part of a device.
enum Part {
    Own(u64),
    Opened(Opened),
}

impl Part {
    fn address(&self) -> u64 {
        match self {
            Part::Own(address) => *address,
            Part::Opened(opened) => opened.address,
        }
    }
}

/// The blocks that devices share, as one of them has them.
pub(super) struct Shards {
    pub(super) layout: Layout,
    pub(super) own: Mutex<Buffer<Cuda, bf16>>,
    slots: [Buffer<Cuda, bf16>; SLOTS],
    pub(super) rank: usize,
    /// Where parts are copied, beside other work.
    pub(super) branch: Mutex<Branch>,
    /// By rank; none once they are closed.
    parts: Mutex<Vec<Part>>,
    /// The block in each slot, as far as that is known where work is recorded.
    gathered: Mutex<[Option<usize>; SLOTS]>,
}

impl Shards {
    /// Bytes of the device's memory: its part and the slots.
    pub(super) fn bytes(&self) -> usize {
        let elements = lock(&self.own).len() + self.slots.iter().map(Buffer::len).sum::<usize>();
        elements * size_of::<bf16>()
    }

    /// The slot that a block takes turns in.
    pub(super) fn slot(&self, layer: usize) -> Ref<'_, Cuda, bf16> {
        self.slots[layer % SLOTS].view()
    }

    /// From here on the block is in its slot. `true` if it was there already.
    pub(super) fn fill(&self, layer: usize) -> bool {
        lock(&self.gathered)[layer % SLOTS].replace(layer) == Some(layer)
    }

    /// What the slots hold is unknown.
    pub(super) fn forget(&self) {
        *lock(&self.gathered) = [None; SLOTS];
    }

    /// Gives up the parts of the others.
    pub(super) fn close(&self) {
        lock(&self.parts).clear();
    }

    /// Where each part of a block is copied from, to and how many bytes, the next device's first: so no two
    /// begin with the same.
    pub(super) fn copies(&self, layer: usize) -> Vec<(u64, u64, usize)> {
        let (parts, to) = (lock(&self.parts), self.slot(layer).address() as u64);
        let offset = (layer * self.layout.part_len() * size_of::<bf16>()) as u64;
        let order = (0..parts.len()).map(|i| (self.rank + 1 + i) % parts.len());
        let copy = |rank: usize| {
            let part = &self.layout.parts[rank];
            let to = to + (part.start * size_of::<bf16>()) as u64;
            (parts[rank].address() + offset, to, part.len() * size_of::<bf16>())
        };
        order.map(copy).filter(|(.., bytes)| *bytes > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element has one owner, parts start with rows, and none is a row longer than its share.
    #[test]
    fn blocks_are_divided_by_rows() {
        for shapes in [&[[48, 64], [64, 40], [7, 3], [128, 64]][..], &[[1, 8]], &[[0, 8], [5, 1]]] {
            for ranks in 1..=9 {
                let layout = Layout::new(shapes, ranks);
                let mut next = 0;
                let mut rows = vec![0; shapes.len()];
                for part in &layout.parts {
                    assert_eq!(part.start, next);
                    next = part.end;
                    let longest = layout.matrices.iter().map(|place| place.stride).max().unwrap();
                    assert!(part.len() <= layout.len / ranks + longest + ALIGNMENT, "{part:?} of {ranks}");
                    for (place, seen) in layout.matrices.iter().zip(&mut rows) {
                        let found = place.rows_in(part);
                        assert!(found.is_empty() || found.start == *seen, "{found:?} after {seen}");
                        *seen += found.len();
                    }
                }
                assert_eq!(next, layout.len);
                assert!(rows.iter().zip(shapes).all(|(seen, [rows, _])| seen == rows), "{rows:?}");
            }
        }
    }
}
