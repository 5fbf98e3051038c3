//! What blocks do to global memory, and what they know of each other, in launches where one may wait for
//! another or ask who is the last.
//!
//! A block hands values to another by a release at a location and an acquire there: `.release`, or a fence
//! before a strong write; `.acquire`, or a fence behind a strong read. Weak accesses of different blocks to
//! the same bytes, at least one of them a write, need such an order, in whatever order they have run here.
//! Blocks of a cluster count as one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::numbers::Numbered;

/// Bytes that share a record.
const CHUNK: u64 = 16;
/// Bytes whose records lie together, as accesses do.
const PAGE: u64 = 1024;

/// An access, or rather all that a warp did in one epoch of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Number of its cluster.
    pub cluster: u32,
    /// Number of the warp in the cluster.
    pub warp: u32,
    /// Its epoch.
    pub epoch: u32,
}

/// For clusters, the latest epoch of each warp whose accesses are behind.
#[derive(Clone, Debug, Default)]
pub struct Knowledge(BTreeMap<u32, Arc<[u32]>>);

impl Knowledge {
    /// Of one cluster.
    pub fn of(cluster: u32, epochs: &[u32]) -> Self {
        Knowledge(BTreeMap::from([(cluster, epochs.into())]))
    }

    /// Learns what another knows; whether there was anything new.
    pub fn join(&mut self, other: &Knowledge) -> bool {
        let mut learned = false;
        for (&cluster, theirs) in &other.0 {
            let mine = self.0.entry(cluster).or_insert_with(|| vec![0; theirs.len()].into());
            if mine.iter().zip(theirs.iter()).any(|(mine, theirs)| theirs > mine) {
                *mine = mine.iter().zip(theirs.iter()).map(|(a, b)| *a.max(b)).collect();
                learned = true;
            }
        }
        learned
    }

    /// Whether an access is behind.
    pub fn covers(&self, actor: Actor) -> bool {
        let epochs = self.0.get(&actor.cluster);
        epochs.is_some_and(|epochs| epochs[actor.warp as usize] >= actor.epoch)
    }
}

/// What a warp learned, and when: others of its cluster know it too when they know that epoch of the warp.
#[derive(Debug)]
pub struct Lesson {
    /// The warp.
    pub warp: usize,
    /// Its epoch.
    pub epoch: u32,
    /// All that it knew from then on.
    pub knowledge: Knowledge,
}

/// Accesses to some bytes of a chunk, with a bit for each.
type Accesses = SmallVec<[(Actor, u16); 1]>;

/// Weak accesses to a chunk.
#[derive(Default)]
struct Chunk {
    writes: Accesses,
    reads: Accesses,
}

/// Records of chunks by page.
type Pages = Numbered<Box<[Chunk]>>;

/// What all blocks of a launch share.
#[derive(Default)]
pub struct Exchange {
    /// What was released at each address.
    locations: Mutex<Numbered<Knowledge>>,
    pages: Mutex<Pages>,
}

/// The weak accesses so far, for those of one instruction to join.
pub struct Accessed<'a>(MutexGuard<'a, Pages>);

/// A panic elsewhere leaves the tables usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// Releases knowledge at an address.
    pub fn release(&self, address: u64, knowledge: &Knowledge) {
        lock(&self.locations).entry(address).or_default().join(knowledge);
    }

    /// Adds to `knowledge` what was released at an address.
    pub fn acquire(&self, address: u64, knowledge: &mut Knowledge) {
        if let Some(released) = lock(&self.locations).get(&address) {
            knowledge.join(released);
        }
    }

    /// The weak accesses so far; nobody else records any meanwhile.
    pub fn accessed(&self) -> Accessed<'_> {
        Accessed(lock(&self.pages))
    }
}

impl Accessed<'_> {
    /// Records a read. The write of another cluster that `knows` does not have behind it, if there is one.
    pub fn read(
        &mut self,
        by: Actor,
        address: u64,
        bytes: u64,
        knows: impl Fn(Actor) -> bool,
    ) -> Option<Actor> {
        self.in_each(address, bytes, |chunk, mask| {
            if let Some(writer) = stranger(&chunk.writes, by, mask, &knows) {
                return Some(writer);
            }
            // Of a cluster's reads of the same bytes, the last has to do.
            match chunk.reads.iter_mut().find(|(actor, bytes)| actor.cluster == by.cluster && *bytes == mask)
            {
                Some((actor, _)) => *actor = by,
                None => chunk.reads.push((by, mask)),
            }
            None
        })
    }

    /// The same for a write. One that `changes` nothing is in nobody's way.
    pub fn write(
        &mut self,
        by: Actor,
        address: u64,
        bytes: u64,
        changes: bool,
        knows: impl Fn(Actor) -> bool,
    ) -> Option<Actor> {
        self.in_each(address, bytes, |chunk, mask| {
            if !changes && chunk.writes.iter().any(|(_, bytes)| bytes & mask == mask) {
                return None;
            }
            for list in [&mut chunk.writes, &mut chunk.reads] {
                if let (true, Some(other)) = (changes, stranger(list, by, mask, &knows)) {
                    return Some(other);
                }
                list.iter_mut().for_each(|(_, bytes)| *bytes &= !mask);
                list.retain(|(_, bytes)| *bytes != 0);
            }
            chunk.writes.push((by, mask));
            None
        })
    }

    /// Does `work` with every chunk of an access, and the bytes in it, until it finds something.
    fn in_each(
        &mut self,
        address: u64,
        bytes: u64,
        mut work: impl FnMut(&mut Chunk, u16) -> Option<Actor>,
    ) -> Option<Actor> {
        let end = address + bytes;
        for number in address / PAGE..end.div_ceil(PAGE) {
            let new = || (0..PAGE / CHUNK).map(|_| Chunk::default()).collect();
            let page = self.0.entry(number).or_insert_with(new);
            let (from, to) = (address.max(number * PAGE), end.min((number + 1) * PAGE));
            for (chunk, mask) in parts(from, to - from) {
                let found = work(&mut page[(chunk % (PAGE / CHUNK)) as usize], mask);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

/// Another cluster's access to some of these bytes that is not known to be over.
fn stranger(list: &[(Actor, u16)], by: Actor, mask: u16, knows: impl Fn(Actor) -> bool) -> Option<Actor> {
    let others = list.iter().filter(|(actor, bytes)| bytes & mask != 0 && actor.cluster != by.cluster);
    others.map(|(actor, _)| *actor).find(|actor| !knows(*actor))
}

/// Chunks of `bytes` from `address`, with the bytes in each.
fn parts(address: u64, bytes: u64) -> impl Iterator<Item = (u64, u16)> {
    let end = address + bytes;
    (address / CHUNK..end.div_ceil(CHUNK)).map(move |number| {
        let (from, to) = (address.max(number * CHUNK), end.min((number + 1) * CHUNK));
        let ones = ((1u32 << (to - from)) - 1) as u16;
        (number, ones << (from % CHUNK))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(cluster: u32, epoch: u32) -> Actor {
        Actor { cluster, warp: 0, epoch }
    }

    #[test]
    fn chunks_of_an_access() {
        assert_eq!(parts(32, 16).collect::<Vec<_>>(), [(2, 0xFFFF)]);
        assert_eq!(parts(14, 4).collect::<Vec<_>>(), [(0, 0xC000), (1, 3)]);
    }

    #[test]
    fn accesses_of_others_need_an_order() {
        let exchange = Exchange::default();
        let nothing = |_| false;
        assert_eq!(exchange.accessed().write(actor(0, 1), 64, 16, true, nothing), None);
        assert_eq!(exchange.accessed().read(actor(0, 2), 64, 4, nothing), None);
        assert_eq!(exchange.accessed().read(actor(1, 1), 68, 4, nothing), Some(actor(0, 1)));

        let mut knowledge = Knowledge::default();
        exchange.release(8, &Knowledge::of(0, &[1]));
        exchange.acquire(8, &mut knowledge);
        assert!(!knowledge.join(&Knowledge::of(0, &[1])) && knowledge.join(&Knowledge::of(1, &[1])));
        let knows = |actor| knowledge.covers(actor);
        assert_eq!(exchange.accessed().read(actor(1, 1), 68, 4, knows), None);
        // The read of epoch 2 is not covered.
        assert_eq!(exchange.accessed().write(actor(1, 1), 64, 4, true, knows), Some(actor(0, 2)));
        assert_eq!(exchange.accessed().write(actor(1, 1), 64, 4, false, knows), None);
        assert_eq!(exchange.accessed().write(actor(1, 1), 80, 4, true, nothing), None);
        // From one page to the next.
        assert_eq!(exchange.accessed().write(actor(0, 3), PAGE - 8, 16, true, nothing), None);
        assert_eq!(exchange.accessed().read(actor(1, 1), PAGE + 4, 4, nothing), Some(actor(0, 3)));
        assert_eq!(exchange.accessed().read(actor(1, 1), PAGE - 12, 4, nothing), None);
        assert_eq!(exchange.accessed().read(actor(1, 1), PAGE - 12, 8, nothing), Some(actor(0, 3)));
    }
}
