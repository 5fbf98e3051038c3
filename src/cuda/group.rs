//! Several products in one launch: those of the backward of LoRA and gradients of the guard's weights, many of which are too
//! small to fill a device one by one.

use std::ops::Range;

use bytemuck::Zeroable;

use super::Cuda;
use super::dropout::KernelMask;
use super::launch::{Launch, Shape, VECTOR};
use super::product::{
    KernelProduct, Layout, SMALL_BLOCKS, TILES_OF_SPLIT, Target, TileProduct, alignment, partial_stride,
    shared,
};
use super::tile::*;
use crate::ops::gemm::MatrixMut;
use crate::ops::{Dropout, Mut, Ref};

/// `GroupedProduct` of `kernels/lora.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelMember {
    a: u64,
    b: u64,
    y: u64,
    row_weight: u64,
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
    of: [KernelMember; GROUP_PRODUCTS],
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
    y_stride: i32,
}

/// `SplitProducts` of `kernels/gemm_reduce.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelSplits {
    of: [KernelSplit; GROUP_PRODUCTS],
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

/// What has been computed in parts, and is to be added to `y`.
pub(super) struct Parts<'a> {
    pub y: &'a MatrixMut<'a, Cuda, f32>,
    pub alpha: f32,
    pub splits: usize,
    /// `[splits, rows, partial_stride(cols)]`
    pub partials: Ref<'a, Cuda, f32>,
}

/// In how many parts a product `aᵀ b` with a sum over `k` is computed, where those of a launch have `blocks` blocks in one
/// part each: so many that all multiprocessors have work.
pub(super) fn splits(cuda: &Cuda, blocks: usize, k: usize) -> usize {
    let at_once = SMALL_BLOCKS * cuda.info().multiprocessors as usize;
    (at_once / blocks.max(1)).clamp(1, (k.div_ceil(GEMM_TILE_K) / TILES_OF_SPLIT).max(1))
}

/// Pieces of scratch memory of given lengths, each of which starts at a multiple of 256 bytes.
pub(super) fn pieces(lens: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let ranges = lens.scan(0, |end: &mut usize, len| {
        let start = end.next_multiple_of(64);
        *end = start + len;
        Some(start..*end)
    });
    ranges.collect()
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

    /// A product in parts, where there are several.
    pub fn in_parts(product: TileProduct<'a>, splits: usize, memory: Mut<'a, Cuda, f32>) -> Self {
        Member { split: (splits > 1).then_some((splits, memory)), ..Member::whole(product) }
    }

    /// What is to be added up afterwards.
    pub fn parts(&self) -> Option<Parts<'_>> {
        let (Target::Added(y), Some((splits, memory))) = (&self.product.target, &self.split) else {
            return None;
        };
        Some(Parts { y, alpha: self.product.alpha, splits: *splits, partials: memory.view() })
    }

    fn splits(&self) -> usize {
        self.split.as_ref().map_or(1, |&(splits, _)| splits)
    }

    fn pass<'l>(&self, to: &mut KernelMember, launch: Launch<'l>) -> Launch<'l> {
        let (m, n, k) = self.product.size();
        let (a, b) = (&self.product.a, &self.product.b);
        let launch = launch.reads(&mut to.a, "a", a.data, a.extent(), alignment(a.in_vectors()));
        let launch = launch.reads(&mut to.b, "b", b.data, b.extent(), alignment(b.in_vectors()));
        let launch = match self.product.row_weight {
            Some(weights) => launch.reads(&mut to.row_weight, "row_weight", weights, k, 4),
            None => launch,
        };
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

/// Adds up what has been computed in parts, in one launch.
pub(super) fn reduce<'a>(cuda: &Cuda, parts: impl Iterator<Item = Parts<'a>>) {
    let (mut several, mut blocks) = (KernelSplits::zeroed(), 0);
    let mut launch = cuda.launch("gemm_reduce_several");
    for (to, Parts { y, alpha, splits, partials }) in several.of.iter_mut().zip(parts) {
        let stride = partial_stride(y.cols);
        launch = launch.writes(&mut to.y, "y", &y.data, y.extent(), alignment(y.in_vectors()));
        launch = launch.reads(&mut to.partials, "partials", partials, splits * y.rows * stride, VECTOR);
        *to = KernelSplit {
            alpha,
            rows: y.rows as i32,
            columns: y.cols as i32,
            stride: stride as i32,
            splits: splits as i32,
            vector: y.in_vectors().into(),
            first_block: blocks as i32,
            y_stride: y.stride as i32,
            ..*to
        };
        several.count += 1;
        blocks += (y.rows * stride / 4).div_ceil(ELEMENT_THREADS);
    }
    launch.value(several).run(Shape::line(blocks, ELEMENT_THREADS));
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
