//! Several products in one launch: those of the backward of LoRA and gradients of the guard's weights, many of which are too
//! small to fill a device one by one.

use bytemuck::Zeroable;

use super::Cuda;
use super::dropout::KernelMask;
use super::launch::{Launch, Shape};
use super::parts::{KernelParts, Parts, Split};
use super::product::{KernelProduct, Layout, SMALL_BLOCKS, TILES_OF_SPLIT, TileProduct, alignment, shared};
use super::tile::*;
use crate::ops::Dropout;

/// `GroupedProduct` of `kernels/lora.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelMember {
    a: u64,
    b: u64,
    y: u64,
    row_weight: u64,
    mask: KernelMask,
    memory: KernelParts,
    product: KernelProduct,
    first_block: i32,
    parts: i32,
    transposed: i32,
}

/// `ProductGroup` of `kernels/lora.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelGroup {
    of: [KernelMember; GROUP_PRODUCTS],
    count: i32,
    blocks: i32,
}

/// A product of a group: `NN`, or `TN` whose b may be dropped out and whose k may be in parts.
pub(super) struct Member<'a> {
    pub product: TileProduct<'a>,
    /// Of b. The factor of what is kept is part of `alpha`.
    pub dropout: Option<Dropout<'a, Cuda>>,
    /// Parts of k, if it is in several.
    pub parts: Option<Parts<'a>>,
}

/// How products `aᵀ b` of `[m, n]`, sums over `k`, are computed in one launch: in so many parts that all multiprocessors have
/// work.
pub(super) fn splits(cuda: &Cuda, sizes: impl Iterator<Item = [usize; 3]> + Clone) -> Vec<Split> {
    let at_once = SMALL_BLOCKS * cuda.info().multiprocessors as usize;
    let of_launch: usize = sizes.clone().map(|[m, n, _]| tiles(m, n)).sum();
    let split = |[m, n, k]: [usize; 3]| {
        let most = (k.div_ceil(GEMM_TILE_K) / TILES_OF_SPLIT).max(1);
        let count = (at_once / of_launch.max(1)).clamp(1, most);
        Split { tiles: tiles(m, n), count, len: GEMM_SMALL_TILE * GEMM_SMALL_TILE }
    };
    sizes.map(split).collect()
}

/// Tiles of a product.
pub(super) fn tiles(m: usize, n: usize) -> usize {
    m.div_ceil(GEMM_SMALL_TILE) * n.div_ceil(GEMM_SMALL_TILE)
}

/// A launch for a tile of each block.
pub(super) fn shape(blocks: usize) -> Shape {
    Shape { grid: (blocks, 1, 1), block: GEMM_SMALL_THREADS, shared: shared(GEMM_SMALL_TILE) }
}

impl Member<'_> {
    /// Blocks that compute it.
    fn blocks(&self) -> usize {
        let (m, n, _) = self.product.size();
        self.parts.as_ref().map_or(tiles(m, n), |parts| parts.split.blocks())
    }

    fn pass<'l>(&self, to: &mut KernelMember, launch: Launch<'l>) -> Launch<'l> {
        let (_, _, k) = self.product.size();
        let (a, b) = (&self.product.a, &self.product.b);
        let launch = launch.reads(&mut to.a, "a", a.data, a.extent(), alignment(a.in_vectors()));
        let launch = launch.reads(&mut to.b, "b", b.data, b.extent(), alignment(b.in_vectors()));
        let launch = match self.product.row_weight {
            Some(weights) => launch.reads(&mut to.row_weight, "row_weight", weights, k, 4),
            None => launch,
        };
        let launch = to.mask.pass(self.dropout, k, launch);
        to.product = self.product.kernel_product();
        to.transposed = (self.product.layout == Layout::TN).into();
        let launch = self.product.target_to(&mut to.y, launch);
        to.parts = self.parts.as_ref().map_or(1, |parts| parts.split.count as i32);
        match &self.parts {
            Some(parts) => parts.pass(&mut to.memory, launch),
            None => launch,
        }
    }
}

/// Whether the kernels for rows that start on multiples of 16 bytes can compute all of them.
pub(super) fn in_vectors(members: &[&Member<'_>]) -> bool {
    members.iter().all(|member| member.product.in_vectors())
}

/// Adds some products to a launch; returns how many blocks they need.
pub(super) fn pass<'l>(members: &[&Member<'_>], mut launch: Launch<'l>) -> (usize, Launch<'l>) {
    let (mut group, mut blocks) = (KernelGroup::zeroed(), 0);
    for (to, member) in group.of.iter_mut().zip(members) {
        launch = member.pass(to, launch);
        to.first_block = blocks as i32;
        blocks += member.blocks();
    }
    (group.count, group.blocks) = (members.len() as i32, blocks as i32);
    (blocks, launch.value(group))
}

impl Cuda {
    /// Some products in one launch.
    pub(super) fn products(&self, members: &[&Member<'_>]) {
        if members.iter().all(|member| member.product.fits(self)) {
            let kernel = if in_vectors(members) { "grouped_products" } else { "grouped_products_any" };
            let (blocks, launch) = pass(members, self.launch(kernel));
            launch.run(shape(blocks));
        }
    }
}
