//! Ranks as threads of one process.

use std::sync::mpsc::{Receiver, Sender, channel};

use deepguard::dist::fabric::Fabric;
use deepguard::{Error, Result};

/// The collectives of one thread.
pub struct Threads {
    rank: usize,
    /// By rank; its own is not used.
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// Collectives between so many threads. One that ends early fails those of the others.
pub fn threads(ranks: usize) -> Vec<Threads> {
    let mut all: Vec<Threads> =
        (0..ranks).map(|rank| Threads { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..ranks {
        for to in 0..ranks {
            let (sender, receiver) = channel();
            all[from].to.push(sender);
            all[to].from.push(receiver);
        }
    }
    all
}

impl Threads {
    fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut others = self.to.iter().enumerate().filter(|(rank, _)| *rank != self.rank);
        others.try_for_each(|(_, to)| to.send(bytes.to_vec())).map_err(|_| Error::cluster("a thread is gone"))
    }

    fn receive(&self, rank: usize) -> Result<Vec<u8>> {
        self.from[rank].recv().map_err(|_| Error::cluster(format!("thread {rank} is gone")))
    }
}

impl Fabric for Threads {
    fn name(&self) -> String {
        "threads".to_owned()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.to.len()
    }

    fn heed(&mut self, _: Box<dyn Fn() -> bool + Send>) {}

    /// In another order on every rank, as sums must not depend on it.
    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()> {
        self.send(bytemuck::cast_slice(values))?;
        for i in 1..self.world() {
            let others = self.receive((self.rank + i) % self.world())?;
            let (others, rest) = others.as_chunks();
            assert_eq!((others.len(), rest.len()), (values.len(), 0), "all ranks add up as many values");
            let others = others.iter().map(|bytes| i64::from_ne_bytes(*bytes));
            values.iter_mut().zip(others).for_each(|(value, other)| *value = value.wrapping_add(other));
        }
        Ok(())
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        if root == self.rank {
            return self.send(bytes);
        }
        *bytes = self.receive(root)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
