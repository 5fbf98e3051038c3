//! What a grid does to global memory, for grids that may run beside it (programmatic dependent launch).

use std::sync::{Mutex, PoisonError};

use super::numbers::Numbered;

/// Bytes that share a record, with a bit for each.
const CHUNK: u64 = 64;

/// How bytes are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whether they are written.
    pub writes: bool,
    /// Whether the access is strong (an atomic, `.relaxed`, …): no data race with others of its kind.
    pub strong: bool,
}

/// Bytes of a chunk that were accessed: read and written, weakly and strongly.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk([[u64; 2]; 2]);

impl Chunk {
    fn add(&mut self, usage: Usage, bytes: u64) {
        self.0[usize::from(usage.writes)][usize::from(usage.strong)] |= bytes;
    }

    /// Bytes for which an access of this kind needs an order: one of the two writes, and one is weak.
    fn conflicts(&self, usage: Usage) -> u64 {
        let [[weak_reads, strong_reads], [weak_writes, strong_writes]] = self.0;
        match (usage.writes, usage.strong) {
            (false, false) => weak_writes | strong_writes,
            (false, true) => weak_writes,
            (true, false) => weak_reads | strong_reads | weak_writes | strong_writes,
            (true, true) => weak_reads | weak_writes,
        }
    }
}

/// All accesses of a grid so far.
#[derive(Debug, Default)]
pub struct Footprint(Mutex<Numbered<Chunk>>);

impl Footprint {
    /// Adds accesses: address and bytes.
    pub fn add(&self, accesses: impl Iterator<Item = (u64, u64)>, usage: Usage) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, bytes) in accesses.flat_map(parts) {
            chunks.entry(number).or_default().add(usage, bytes);
        }
    }

    /// Which of the accesses, if any, is in conflict with one of this grid.
    pub fn conflict(&self, mut accesses: impl Iterator<Item = (u64, u64)>, usage: Usage) -> Option<usize> {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accesses.position(|access| {
            parts(access).any(|(number, bytes)| {
                chunks.get(&number).is_some_and(|chunk| chunk.conflicts(usage) & bytes != 0)
            })
        })
    }
}

/// Chunks of an access, with the bytes in each.
fn parts((address, bytes): (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    let end = address + bytes;
    (address / CHUNK..end.div_ceil(CHUNK)).map(move |number| {
        let (from, to) = (address.max(number * CHUNK), end.min((number + 1) * CHUNK));
        (number, (u64::MAX >> (CHUNK - (to - from))) << (from % CHUNK))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Usage = Usage { writes: false, strong: false };
    const WRITE: Usage = Usage { writes: true, strong: false };
    const POLL: Usage = Usage { writes: false, strong: true };
    const ATOMIC: Usage = Usage { writes: true, strong: true };

    #[test]
    fn an_order_is_needed_where_one_writes_and_one_is_weak() {
        let needed = |first: Usage, second: Usage| {
            let footprint = Footprint::default();
            footprint.add([(100, 8)].into_iter(), first);
            footprint.conflict([(104, 16)].into_iter(), second).is_some()
        };
        let all = [READ, WRITE, POLL, ATOMIC];
        for first in all {
            for second in all {
                let expected = (first.writes || second.writes) && !(first.strong && second.strong);
                assert_eq!(needed(first, second), expected, "{first:?}, then {second:?}");
            }
        }
    }

    #[test]
    fn only_the_same_bytes_are_in_conflict() {
        let footprint = Footprint::default();
        footprint.add([(60, 8), (1024, 128)].into_iter(), WRITE);
        let at = |accesses: &[(u64, u64)]| footprint.conflict(accesses.iter().copied(), READ);
        assert_eq!(at(&[(56, 4), (68, 4), (0, 60), (1023, 1), (1152, 64)]), None);
        assert_eq!(at(&[(56, 4), (60, 1)]), Some(1));
        assert_eq!(at(&[(64, 4)]), Some(0));
        assert_eq!(at(&[(68, 4), (1100, 1), (1000, 200)]), Some(1));
    }
}
