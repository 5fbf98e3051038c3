//! Collectives: what all ranks compute together. Every rank calls them in the same order.

use crate::error::{Error, Result};

/// What moves numbers and bytes between the ranks of a world.
pub trait Fabric: Send {
    /// The library behind it, for people.
    fn name(&self) -> String;

    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Ranks in all.
    fn world(&self) -> usize;

    /// Has every collective that waits ask whether all ranks have to end. One that is on its way then cannot
    /// be given up, as others may still write into its memory: it waits for the process to end.
    fn heed(&mut self, failed: Box<dyn Fn() -> bool + Send>);

    /// Adds up `values` over all ranks, in place. Sums wrap around, so they are the same for every order.
    ///
    /// # Errors
    /// Of kind `Cluster`, if the library refuses.
    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()>;

    /// Whether it [adds up what lies in memory of the ranks' GPUs](Self::all_reduce_on_gpu).
    fn reaches_gpus(&self) -> bool {
        false
    }

    /// [`all_reduce`](Self::all_reduce) of `len` values at `address` in memory of this rank's GPU.
    ///
    /// # Errors
    /// Of kind `Cluster`, if the library refuses, or doesn't reach GPUs.
    ///
    /// # Safety
    /// The values exist, all work on them is done, and nothing uses them until this returns.
    unsafe fn all_reduce_on_gpu(&mut self, _address: usize, _len: usize) -> Result<()> {
        Err(Error::cluster(format!("{} does not reach memory of GPUs", self.name())))
    }

    /// Gives every rank the bytes of rank `root`, of any number.
    ///
    /// # Errors
    /// Of kind `Cluster`, if the library refuses.
    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()>;

    /// The bytes of every rank, of any number, by rank.
    ///
    /// # Errors
    /// Of kind `Cluster`, if the library refuses.
    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (rank, world) = (self.rank(), self.world());
        let of_rank = |root| {
            let mut bytes = if root == rank { own.to_owned() } else { Vec::new() };
            self.broadcast(root, &mut bytes)?;
            Ok(bytes)
        };
        (0..world).map(of_rank).collect()
    }

    /// Ends it, after all ranks have done everything.
    ///
    /// # Errors
    /// Of kind `Cluster`, if the library refuses.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// One rank, which has nobody to share with.
pub struct Alone;

impl Fabric for Alone {
    fn name(&self) -> String {
        "one rank".to_owned()
    }

    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn heed(&mut self, _: Box<dyn Fn() -> bool + Send>) {}

    fn all_reduce(&mut self, _: &mut [i64]) -> Result<()> {
        Ok(())
    }

    fn broadcast(&mut self, _: usize, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
