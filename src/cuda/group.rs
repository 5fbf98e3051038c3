//! Several products in one launch: those of the backward of LoRA, which are too small to fill a device one by one.

use bytemuck::Zeroable;

use super::Cuda;
use super::dropout::KernelMask;
use super::launch::{Launch, Shape, VECTOR};
use super::product::{
    KernelProduct, Layout, SMALL_BLOCKS, TILES_OF_SPLIT, TileProduct, alignment, partial_stride, shared,
};
use super::tile::*;
use crate::ops::{Dropout, Mut};

/// `GroupedProduct` of `kernels/lora.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelMember {
    a: u64,
    b: u64,
    y: u64,
    mask: KernelMask,
    product: KernelProduct,
    first_block: i32,
    parts: i32,
    transposed: i32,
}

/// `ProductGroup` of `kernels/lora.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelGroup {
    of: [KernelMember; LORA_PRODUCTS],
    count: i32,
    blocks: i32,
}

/// `SplitProduct` of `kernels/gemm_reduce.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelSplit {
    y: u64,
    partials: u64,
    alpha: f32,
    rows: i32,
    columns: i32,
    stride: i32,
    splits: i32,
    vector: i32,
    first_block: i32,
    padding: i32,
}

/// `SplitProducts` of `kernels/gemm_reduce.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelSplits {
    of: [KernelSplit; LORA_PRODUCTS],
    count: i32,
    padding: i32,
}

/// A product of a group: `NN`, or `TN` whose b may be dropped out and whose k may be in parts.
pub(super) struct Member<'a> {
    pub product: TileProduct<'a>,
    /// Of b. The factor of what is kept is part of `alpha`.
    pub dropout: Option<Dropout<'a, Cuda>>,
    /// Parts of k, which add to the target, and memory for [`partials`] of them.
    pub split: Option<(usize, Mut<'a, Cuda, f32>)>,
}

/// In how many parts each of some products `aᵀ b` is computed, of `[k, m]` and `[k, n]`: so many that all
/// multiprocessors have work.
pub(super) fn splits(cuda: &Cuda, shapes: impl Iterator<Item = (usize, usize)>, k: usize) -> usize {
    let blocks: usize = shapes.map(|(m, n)| tiles(m, n)).sum();
    let at_once = SMALL_BLOCKS * cuda.info().multiprocessors as usize;
    (at_once / blocks.max(1)).clamp(1, (k.div_ceil(GEMM_TILE_K) / TILES_OF_SPLIT).max(1))
}

/// f32 of scratch memory for so many parts.
pub(super) fn partials(m: usize, n: usize, splits: usize) -> usize {
    if splits > 1 { splits * m * partial_stride(n) } else { 0 }
}

/// Blocks of a product in one part.
pub(super) fn tiles(m: usize, n: usize) -> usize {
    m.div_ceil(GEMM_SMALL_TILE) * n.div_ceil(GEMM_SMALL_TILE)
}

/// A launch for a tile of each block.
pub(super) fn shape(blocks: usize) -> Shape {
    Shape { grid: (blocks, 1, 1), block: GEMM_SMALL_THREADS, shared: shared(GEMM_SMALL_TILE) }
}

impl<'a> Member<'a> {
    /// A product in one part.
    pub fn whole(product: TileProduct<'a>) -> Self {
        Member { product, dropout: None, split: None }
    }

    fn splits(&self) -> usize {
        self.split.as_ref().map_or(1, |&(splits, _)| splits)
    }

    fn pass<'l>(&self, to: &mut KernelMember, launch: Launch<'l>) -> Launch<'l> {
        let (m, n, k) = self.product.size();
        let (a, b) = (&self.product.a, &self.product.b);
        let launch = launch.reads(&mut to.a, "a", a.data, a.extent(), alignment(a.in_vectors()));
        let launch = launch.reads(&mut to.b, "b", b.data, b.extent(), alignment(b.in_vectors()));
        let launch = to.mask.pass(self.dropout, k, launch);
        to.product = self.product.kernel_product();
        to.parts = self.splits() as i32;
        to.transposed = (self.product.layout == Layout::TN).into();
        let Some((splits, memory)) = &self.split else { return self.product.target_to(&mut to.y, launch) };
        to.product = to.product.part(n);
        launch.writes(&mut to.y, "partials", memory, partials(m, n, *splits), VECTOR)
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
        let (m, n, _) = member.product.size();
        blocks += tiles(m, n) * member.splits();
    }
    (group.count, group.blocks) = (members.len() as i32, blocks as i32);
    (blocks, launch.value(group))
}

/// Adds up the parts of those that were computed in parts, in one launch. Their targets are dense f32, which is added to.
pub(super) fn reduce<'a>(cuda: &Cuda, members: impl Iterator<Item = &'a Member<'a>>) {
    let (mut several, mut blocks) = (KernelSplits::zeroed(), 0);
    let mut launch = cuda.launch("gemm_reduce_several");
    let split = members.filter_map(|member| Some((&member.product, member.split.as_ref()?)));
    for (to, (product, (splits, memory))) in several.of.iter_mut().zip(split) {
        let (m, n, _) = product.size();
        let (stride, len) = (partial_stride(n), partials(m, n, *splits));
        launch = product.target_to(&mut to.y, launch);
        launch = launch.reads(&mut to.partials, "partials", memory.view(), len, VECTOR);
        *to = KernelSplit {
            alpha: product.alpha,
            rows: m as i32,
            columns: n as i32,
            stride: stride as i32,
            splits: *splits as i32,
            vector: product.y_in_vectors().into(),
            first_block: blocks as i32,
            ..*to
        };
        several.count += 1;
        blocks += (m * stride / 4).div_ceil(ELEMENT_THREADS);
    }
    launch.value(several).run(Shape::line(blocks, ELEMENT_THREADS));
}
