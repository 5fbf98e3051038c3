//! Split reductions (split-K and its like): several blocks write partial results of one tile to scratch
//! memory, and the one that arrives last, by an arrival counter, reduces them in a fixed order
//! (`kernels/arrival.h`).

use std::ops::Range;

use super::launch::{Launch, VECTOR};
use super::memory::{Counters, Scratch};
use super::{Cuda, params};
use crate::ops::Mut;

/// How a result is computed: tiles of `len` numbers each, the reduction of each tile split among `count`
/// blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub tiles: usize,
    pub count: usize,
    pub len: usize,
}

impl Split {
    /// Blocks that compute the result, one for each split of each tile.
    pub fn blocks(self) -> usize {
        self.tiles * self.count
    }

    /// f32 of scratch memory for partial results.
    pub fn partials(self) -> usize {
        if self.count > 1 { self.blocks() * self.len } else { 0 }
    }

    /// Arrival counters.
    pub fn counters(self) -> usize {
        if self.count > 1 { self.tiles } else { 0 }
    }
}

/// Ranges of memory of these lengths, each at a multiple of 256 bytes.
fn places(lens: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let place = |end: &mut usize, len| {
        let start = end.next_multiple_of(64);
        *end = start + len;
        Some(start..*end)
    };
    lens.scan(0, place).collect()
}

fn end(places: &[Range<usize>]) -> usize {
    places.last().map_or(0, |last| last.end)
}

/// Scratch memory beside that of the splits.
type Pieces<'a> = Vec<Mut<'a, Cuda, f32>>;

/// A split with its scratch memory.
pub(super) struct SplitWorkspace<'a> {
    pub split: Split,
    partials: Mut<'a, Cuda, f32>,
    arrivals: Mut<'a, Cuda, u32>,
}

impl<'a> SplitWorkspace<'a> {
    /// Workspaces of several results, and as many f32 of scratch memory as `beside` says for other things.
    /// `None`, with the failure kept, where there is no such memory.
    pub fn take(
        cuda: &Cuda,
        splits: &[Split],
        beside: &[usize],
        scratch: &'a mut Scratch,
        counters: &'a mut Counters,
    ) -> Option<(Vec<Self>, Pieces<'a>)> {
        let partials = places(splits.iter().map(|split| split.partials()).chain(beside.iter().copied()));
        let arrivals = places(splits.iter().map(|split| split.counters()));
        let mut partials = scratch.take::<f32>(cuda, end(&partials))?.ranges(partials.into_iter());
        let arrivals = counters.take(cuda, end(&arrivals))?.ranges(arrivals.into_iter());
        let beside = partials.split_off(splits.len());
        let shares = splits.iter().zip(partials).zip(arrivals);
        let workspace = |((&split, partials), arrivals)| SplitWorkspace { split, partials, arrivals };
        Some((shares.map(workspace).collect(), beside))
    }

    /// Addresses for a structure passed by value; null where nothing is split.
    pub fn pass<'l>(&self, to: &mut params::SplitWorkspace, launch: Launch<'l>) -> Launch<'l> {
        if self.split.count == 1 {
            return launch;
        }
        let launch =
            launch.writes(&mut to.partials, "partials", &self.partials, self.split.partials(), VECTOR);
        launch.writes(&mut to.arrivals, "arrivals", &self.arrivals, self.split.counters(), 4)
    }
}
