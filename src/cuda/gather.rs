//! Loading and gathering blocks that several devices [share](super::shards).

use std::sync::Arc;

use cudarc::driver::result;

use super::Cuda;
use super::lock::lock;
use super::shards::{Place, Shards};
use super::weights::Weight;
use crate::error::{Error, Result};
use crate::ops::TensorView;

impl Cuda {
    /// Loads this device's part of a block, and makes the block's weights in the slot that it will be in.
    pub(super) fn load_share(
        &self,
        shards: &Arc<Shards>,
        layer: usize,
        matrices: &[Vec<TensorView>],
    ) -> Result<Vec<Weight>> {
        let (layout, mut own) = (&shards.layout, lock(&shards.own));
        let (part, first) = (&layout.parts[shards.rank], layer * layout.part_len());
        if matrices.len() != layout.matrices.len() || first + layout.part_len() > own.len() {
            return Err(Error::internal("blocks of another model than the one that is shared"));
        }
        let load = |(place, parts): (&Place, &Vec<TensorView>)| {
            let (rows, shape) = (place.rows_in(part), [place.rows, place.columns]);
            if !rows.is_empty() {
                let start = first + place.first + rows.start * place.stride - part.start;
                let to = own.slice_mut(start..start + rows.len() * place.stride);
                self.load_rows(to, parts, rows, shape)?;
            }
            let slot = shards.slot(layer).slice(place.first..place.first + place.rows * place.stride);
            Ok(Weight::shared(slot.address(), shape, shards.clone(), layer))
        };
        layout.matrices.iter().zip(matrices).map(load).collect()
    }

    /// See [`Device::gather_block`](crate::ops::Device::gather_block).
    pub(super) fn gather_shares(&self, block: &Weight, next: Option<&Weight>) -> Result<()> {
        let Some((shards, layer)) = block.shards() else { return Ok(()) };
        self.fetch_block(shards, layer)?;
        self.join_branch(&mut lock(&shards.branch))?;
        match next.and_then(Weight::shards) {
            Some((shards, next)) => self.fetch_block(shards, next),
            None => Ok(()),
        }
    }

    /// Starts to copy a block into its slot, unless it is there.
    fn fetch_block(&self, shards: &Shards, layer: usize) -> Result<()> {
        if shards.fill(layer) {
            return Ok(());
        }
        let copies = shards.copies(layer);
        if copies.is_empty() {
            return Err(Error::internal("weights of other ranks, which are closed"));
        }
        let mut branch = lock(&shards.branch);
        copies.into_iter().try_for_each(|(from, to, bytes)| {
            self.beside(&mut branch, |stream| {
                // SAFETY: as many bytes are in the part and in the slot. The branch comes after whatever
                // used the slot before, and is joined before the weights are used.
                unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }
            })
        })
    }

    /// Orders the copies of blocks before what follows, if there are any.
    pub(super) fn join_gathered(&self) -> Result<()> {
        self.shards().map_or(Ok(()), |shards| self.join_branch(&mut lock(&shards.branch)))
    }

    /// Recordings are done at another time than that at which they are made: what the slots hold is unknown.
    pub(super) fn forget_gathered(&self) {
        if let Some(shards) = self.shards() {
            shards.forget();
        }
    }

    /// Closes the parts of other devices, after all work; blocks cannot be computed with any more. A device's
    /// own part must not be freed before all others have done that.
    ///
    /// # Errors
    /// Those of earlier work.
    pub fn close_shares(&self) -> Result<()> {
        let waited = self.wait();
        self.graphs().forget();
        if let Some(shards) = self.shards() {
            shards.close();
        }
        waited
    }

    /// Bytes of this device's memory that the blocks take which it shares with others, if it does.
    pub fn shared_bytes(&self) -> Option<usize> {
        self.shards().map(|shards| shards.bytes())
    }
}
