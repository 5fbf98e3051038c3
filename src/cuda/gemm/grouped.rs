//! Grouped GEMM: several products in one launch. Those of LoRA's backward and the gradients of the guard's
//! weights are too small to fill a device one by one.

use super::plan::{SMALL_OCCUPANCY, TILES_PER_SPLIT, shared};
use super::{Gemm, Layout, alignment};
use crate::cuda::launch::{Launch, Shape};
use crate::cuda::split::{Split, SplitWorkspace};
use crate::cuda::tile::*;
use crate::cuda::{Cuda, params};
use crate::ops::Dropout;

/// A product of a group: `NN`, or `TN` with a dropout of b and split-K.
pub(in crate::cuda) struct GroupedGemm<'a> {
    pub gemm: Gemm<'a>,
    /// Dropout of b. The factor of what is kept is part of `alpha`.
    pub dropout: Option<Dropout<'a, Cuda>>,
    /// Workspace of split-K; without one, k is not split.
    pub workspace: Option<SplitWorkspace<'a>>,
}

/// Split-K of products `aᵀ b` of sizes `[m, n, k]` that share a launch: as many splits as give all
/// multiprocessors work.
pub(in crate::cuda) fn splits(cuda: &Cuda, sizes: impl Iterator<Item = [usize; 3]> + Clone) -> Vec<Split> {
    let at_once = SMALL_OCCUPANCY * cuda.info().multiprocessors as usize;
    let tiles_of_launch: usize = sizes.clone().map(|[m, n, _]| tiles(m, n)).sum();
    let split = |[m, n, k]: [usize; 3]| {
        let most = (k.div_ceil(GEMM_TILE_K) / TILES_PER_SPLIT).max(1);
        let count = (at_once / tiles_of_launch.max(1)).clamp(1, most);
        Split { tiles: tiles(m, n), count, len: GEMM_SMALL_TILE * GEMM_SMALL_TILE }
    };
    sizes.map(split).collect()
}

/// Tiles of an `[m, n]` product.
pub(in crate::cuda) fn tiles(m: usize, n: usize) -> usize {
    m.div_ceil(GEMM_SMALL_TILE) * n.div_ceil(GEMM_SMALL_TILE)
}

/// Launch shape of a group: a block for each split of each tile.
pub(in crate::cuda) fn shape(blocks: usize) -> Shape {
    Shape { grid: (blocks, 1, 1), block: GEMM_SMALL_THREADS, shared: shared(GEMM_SMALL_TILE) }
}

impl GroupedGemm<'_> {
    /// Blocks that compute the product.
    fn blocks(&self) -> usize {
        let (m, n, _) = self.gemm.size();
        self.workspace.as_ref().map_or(tiles(m, n), |workspace| workspace.split.blocks())
    }

    fn pass<'l>(&self, to: &mut params::GroupedGemm, launch: Launch<'l>) -> Launch<'l> {
        let (_, _, k) = self.gemm.size();
        let (a, b) = (&self.gemm.a, &self.gemm.b);
        let launch = launch.reads(&mut to.a, "a", a.data, a.extent(), alignment(a.in_vectors()));
        let launch = launch.reads(&mut to.b, "b", b.data, b.extent(), alignment(b.in_vectors()));
        let launch = match self.gemm.row_weight {
            Some(weights) => launch.reads(&mut to.row_weight, "row_weight", weights, k, 4),
            None => launch,
        };
        let launch = to.mask.pass(self.dropout, k, launch);
        to.gemm = self.gemm.params();
        to.transposed = (self.gemm.layout == Layout::TN).into();
        let launch = self.gemm.target_to(&mut to.y, launch);
        to.splits = self.workspace.as_ref().map_or(1, |workspace| workspace.split.count as i32);
        match &self.workspace {
            Some(workspace) => workspace.pass(&mut to.workspace, launch),
            None => launch,
        }
    }
}

/// Whether the kernels for rows that start on multiples of 16 bytes can compute the whole group.
pub(in crate::cuda) fn in_vectors(members: &[&GroupedGemm<'_>]) -> bool {
    members.iter().all(|member| member.gemm.in_vectors())
}

/// Adds a group to a launch; returns how many blocks it needs.
pub(in crate::cuda) fn pass<'l>(members: &[&GroupedGemm<'_>], mut launch: Launch<'l>) -> (usize, Launch<'l>) {
    let (mut group, mut blocks) = (params::GemmGroup::default(), 0);
    for (to, member) in group.of.iter_mut().zip(members) {
        launch = member.pass(to, launch);
        to.first_block = blocks as i32;
        blocks += member.blocks();
    }
    (group.count, group.blocks) = (members.len() as i32, blocks as i32);
    (blocks, launch.value(group))
}

impl Cuda {
    /// Computes a group in one launch.
    pub(in crate::cuda) fn grouped_gemm(&self, members: &[&GroupedGemm<'_>]) {
        if members.iter().all(|member| member.gemm.fits(self)) {
            let kernel = if in_vectors(members) { "gemm_grouped" } else { "gemm_grouped_any" };
            let (blocks, launch) = pass(members, self.launch(kernel));
            launch.run(shape(blocks));
        }
    }
}
