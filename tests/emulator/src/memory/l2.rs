//! What the L2 cache and the DRAM behind it see of a launch.
//!
//! The emulator runs blocks one after another, a device runs a wave of them at once. So the accesses of each
//! cluster are recorded, and those of a wave replayed in turns, one access of every cluster at a time,
//! through a cache that evicts the line used least recently. The cache is empty before the launch and is
//! written back after it. L1 caches are left out: what hits there would hit in L2 too.

use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::numbers::{NumberHasher, Numbered};
use crate::counters::Counters;

/// Bytes of a sector, in which the cache fetches and writes back.
pub const SECTOR: u64 = 32;
/// Sectors of a line, which is what the cache evicts.
const LINE_SECTORS: u64 = 4;

/// An access to some sectors of a line: the line's number, whether it writes, a bit per sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touch(u64);

impl Touch {
    const WRITES: u64 = 1 << LINE_SECTORS;

    fn new(sector: u64, writes: bool) -> Self {
        let line = sector / LINE_SECTORS;
        Touch(line << (LINE_SECTORS + 1) | u64::from(writes) << LINE_SECTORS | 1 << (sector % LINE_SECTORS))
    }

    fn line(self) -> u64 {
        self.0 >> (LINE_SECTORS + 1)
    }

    fn sectors(self) -> u8 {
        (self.0 & (Self::WRITES - 1)) as u8
    }

    fn writes(self) -> bool {
        self.0 & Self::WRITES != 0
    }

    /// Whether both are the same but for the sectors.
    fn joins(self, other: Touch) -> bool {
        (self.0 ^ other.0) & !(Self::WRITES - 1) == 0
    }
}

/// The accesses of a cluster in their order.
#[derive(Debug, Default)]
pub struct Trace(Vec<Touch>);

impl Trace {
    /// Records an access to `bytes` bytes, at least one.
    pub fn record(&mut self, address: u64, bytes: u64, writes: bool) {
        for sector in address / SECTOR..=(address + bytes - 1) / SECTOR {
            let touch = Touch::new(sector, writes);
            match self.0.last_mut() {
                Some(last) if last.joins(touch) => last.0 |= touch.0,
                _ => self.0.push(touch),
            }
        }
    }
}

/// Sectors of a line that the cache has, and those that it has to write back.
#[derive(Clone, Copy, Default)]
struct Line {
    valid: u8,
    dirty: u8,
}

impl Line {
    /// Does an access; the sectors that it needs from DRAM. A write needs nothing: the cache knows which
    /// bytes of a sector it has.
    fn touch(&mut self, touch: Touch) -> u64 {
        let missing = touch.sectors() & !self.valid;
        self.valid |= touch.sectors();
        if touch.writes() {
            self.dirty |= touch.sectors();
            return 0;
        }
        u64::from(missing.count_ones())
    }
}

/// The cache during a launch.
pub struct L2 {
    /// Clusters that run at the same time, and all of them.
    wave: u64,
    clusters: u64,
    replay: Mutex<Replay>,
}

struct Replay {
    /// Traces of waves that are not complete.
    waiting: BTreeMap<u64, Vec<(u64, Trace)>>,
    /// The wave to be replayed next.
    next: u64,
    cache: LruCache<u64, Line, BuildHasherDefault<NumberHasher>>,
    /// Sectors.
    loaded: u64,
    stored: u64,
    distinct: u64,
}

impl L2 {
    /// A cache of `bytes` bytes for `clusters` clusters, of which `wave` run at the same time.
    pub fn new(bytes: u64, clusters: u64, wave: u64) -> Self {
        let lines = NonZeroUsize::new((bytes / (SECTOR * LINE_SECTORS)) as usize);
        let replay = Replay {
            waiting: BTreeMap::new(),
            next: 0,
            cache: LruCache::with_hasher(lines.unwrap_or(NonZeroUsize::MIN), BuildHasherDefault::default()),
            loaded: 0,
            stored: 0,
            distinct: 0,
        };
        L2 { wave: wave.max(1), clusters, replay: Mutex::new(replay) }
    }

    /// Takes what cluster number `n` did; replays the waves that are complete.
    pub fn submit(&self, n: u64, trace: Trace) {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        replay.waiting.entry(n / self.wave).or_default().push((n, trace));
        while let Some(traces) = replay.take_complete(self.wave, self.clusters) {
            replay.wave(&traces);
        }
    }

    /// Adds what DRAM saw, once all clusters have been submitted.
    pub fn add_to(&self, counters: &mut Counters) {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        replay.write_back();
        counters.wave_bytes += replay.distinct * SECTOR;
        counters.dram_load_bytes += replay.loaded * SECTOR;
        counters.dram_store_bytes += replay.stored * SECTOR;
    }
}

impl Replay {
    /// The traces of the next wave, in the order of their clusters, if all are there.
    fn take_complete(&mut self, wave: u64, clusters: u64) -> Option<Vec<(u64, Trace)>> {
        let members = wave.min(clusters.saturating_sub(self.next * wave));
        let there = self.waiting.get(&self.next)?.len() as u64;
        if there < members {
            return None;
        }
        let mut traces = self.waiting.remove(&self.next)?;
        traces.sort_by_key(|(n, _)| *n);
        self.next += 1;
        Some(traces)
    }

    fn wave(&mut self, traces: &[(u64, Trace)]) {
        let mut seen: Numbered<u8> = Numbered::default();
        let longest = traces.iter().map(|(_, trace)| trace.0.len()).max().unwrap_or(0);
        for turn in 0..longest {
            for touch in traces.iter().filter_map(|(_, trace)| trace.0.get(turn)) {
                self.touch(*touch);
                *seen.entry(touch.line()).or_default() |= touch.sectors();
            }
        }
        self.distinct += seen.values().map(|sectors| u64::from(sectors.count_ones())).sum::<u64>();
    }

    fn touch(&mut self, touch: Touch) {
        if let Some(line) = self.cache.get_mut(&touch.line()) {
            self.loaded += line.touch(touch);
            return;
        }
        let mut line = Line::default();
        self.loaded += line.touch(touch);
        if let Some((_, evicted)) = self.cache.push(touch.line(), line) {
            self.stored += u64::from(evicted.dirty.count_ones());
        }
    }

    fn write_back(&mut self) {
        self.stored += self.cache.iter().map(|(_, line)| u64::from(line.dirty.count_ones())).sum::<u64>();
        self.cache.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(accesses: &[(u64, u64, bool)]) -> Trace {
        let mut trace = Trace::default();
        accesses.iter().for_each(|&(address, bytes, writes)| trace.record(address, bytes, writes));
        trace
    }

    fn counted(l2: &L2) -> [u64; 3] {
        let mut counters = Counters::default();
        l2.add_to(&mut counters);
        [counters.wave_bytes, counters.dram_load_bytes, counters.dram_store_bytes]
    }

    #[test]
    fn accesses_of_a_line_are_recorded_together() {
        let found = trace(&[(0, 32, false), (32, 64, false), (96, 64, false), (96, 4, true)]);
        let [line, next] = [0b01111, 0b100001];
        assert_eq!(found.0, [Touch(line), Touch(next), Touch(0b11000)]);
    }

    /// Two blocks read the same kilobyte, the second of them in the same wave or in the next.
    #[test]
    fn what_a_wave_shares_is_loaded_once() {
        for (wave, distinct) in [(2, 1024), (1, 2048)] {
            let l2 = L2::new(1 << 20, 2, wave);
            // The order in which they end does not matter.
            l2.submit(1, trace(&[(4096, 1024, false)]));
            l2.submit(0, trace(&[(4096, 1024, false)]));
            assert_eq!(counted(&l2), [distinct, 1024, 0]);
        }
    }

    /// A cache of two lines.
    #[test]
    fn the_line_used_least_recently_is_evicted() {
        let line = |n: u64| (128 * n, 128, false);
        let l2 = L2::new(256, 1, 1);
        l2.submit(0, trace(&[line(0), line(1), line(0), line(2), line(0), line(1)]));
        assert_eq!(counted(&l2), [3 * 128, 4 * 128, 0]);
    }

    /// A sector that is read and written is stored once; so is one that is evicted before it is written
    /// again.
    #[test]
    fn written_sectors_are_stored() {
        let l2 = L2::new(256, 1, 1);
        l2.submit(0, trace(&[(0, 32, false), (0, 4, true), (8, 4, true)]));
        assert_eq!(counted(&l2), [32, 32, 32]);
        let l2 = L2::new(128, 1, 1);
        l2.submit(0, trace(&[(0, 32, true), (128, 32, true), (0, 32, true)]));
        assert_eq!(counted(&l2), [64, 0, 96]);
    }

    /// Two blocks of which each fits into the cache alone, but not both.
    #[test]
    fn blocks_of_a_wave_compete() {
        let twice = |from: u64| trace(&[(from, 256, false), (from + 128, 128, false), (from, 128, false)]);
        for (wave, loaded) in [(1, 512), (2, 768)] {
            let l2 = L2::new(256, 2, wave);
            l2.submit(0, twice(0));
            l2.submit(1, twice(1024));
            assert_eq!(counted(&l2)[1], loaded, "{wave} at a time");
        }
    }
}
