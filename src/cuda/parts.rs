//! Results in parts: several blocks leave one each in scratch memory, and the last of them puts them together
//! (`kernels/arrival.h`).

use std::ops::Range;

use super::Cuda;
use super::launch::{Launch, VECTOR};
use super::memory::{Counters, Scratch};
use crate::ops::Mut;

/// `Parts` of `kernels/gemm_tile.h`.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct KernelParts {
    sums: u64,
    arrived: u64,
}

/// How a result is computed: tiles of `len` numbers each, `count` parts of each tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub tiles: usize,
    pub count: usize,
    pub len: usize,
}

impl Split {
    /// Blocks that compute it, one for each part of each tile.
    pub fn blocks(self) -> usize {
        self.tiles * self.count
    }

    /// f32 of scratch memory that it needs.
    pub fn sums(self) -> usize {
        if self.count > 1 { self.blocks() * self.len } else { 0 }
    }

    /// Counters that it needs.
    pub fn counters(self) -> usize {
        if self.count > 1 { self.tiles } else { 0 }
    }
}

/// Where pieces of memory of these lengths lie, each at a multiple of 256 bytes.
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

/// Scratch memory for other things.
type Pieces<'a> = Vec<Mut<'a, Cuda, f32>>;

/// A split with the memory that it needs.
pub(super) struct Parts<'a> {
    pub split: Split,
    sums: Mut<'a, Cuda, f32>,
    arrived: Mut<'a, Cuda, u32>,
}

impl<'a> Parts<'a> {
    /// Memory for several results, and as many f32 of scratch memory as `beside` says for other things. `None`, with the
    /// failure kept, where there is none.
    pub fn take(
        cuda: &Cuda,
        splits: &[Split],
        beside: &[usize],
        scratch: &'a mut Scratch,
        counters: &'a mut Counters,
    ) -> Option<(Vec<Self>, Pieces<'a>)> {
        let sums = places(splits.iter().map(|split| split.sums()).chain(beside.iter().copied()));
        let arrived = places(splits.iter().map(|split| split.counters()));
        let mut sums = scratch.take::<f32>(cuda, end(&sums))?.ranges(sums.into_iter());
        let arrived = counters.take(cuda, end(&arrived))?.ranges(arrived.into_iter());
        let beside = sums.split_off(splits.len());
        let shares = splits.iter().zip(sums).zip(arrived);
        Some((shares.map(|((&split, sums), arrived)| Parts { split, sums, arrived }).collect(), beside))
    }

    /// Addresses for a structure passed by value, or none where there is but one part.
    pub fn pass<'l>(&self, to: &mut KernelParts, launch: Launch<'l>) -> Launch<'l> {
        if self.split.count == 1 {
            return launch;
        }
        let launch = launch.writes(&mut to.sums, "sums of parts", &self.sums, self.split.sums(), VECTOR);
        launch.writes(&mut to.arrived, "arrived", &self.arrived, self.split.counters(), 4)
    }
}
