//! Gradients of weights and biases.

use bytemuck::Zeroable;

use super::Cuda;
use super::group::{self, Member, Parts, partials, pieces, splits, tiles};
use super::launch::{Shape, VECTOR};
use super::product::{Layout, Target, TileProduct, alignment, partial_stride};
use super::tile::*;
use crate::ops::gemm::{BiasGradient, MatrixMut, WeightGradient};

/// Rows that are worth a block of their own.
const ROWS_OF_PART: usize = 512;

/// `ColumnSum` of `kernels/gemm_reduce.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelColumnSum {
    partials: u64,
    x: u64,
    row_weight: u64,
    rows: i32,
    n: i32,
    x_stride: i32,
    stride: i32,
    vector: i32,
    parts: i32,
    column_blocks: i32,
    first_block: i32,
}

/// `ColumnSums` of `kernels/gemm_reduce.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelColumnSums {
    of: [KernelColumnSum; COLUMN_SUMS],
    count: i32,
    padding: i32,
}

/// `f` of up to `most` at a time.
fn in_groups<T>(mut all: Vec<T>, most: usize, f: impl Fn(Vec<T>)) {
    while !all.is_empty() {
        let rest = all.split_off(most.min(all.len()));
        f(std::mem::replace(&mut all, rest));
    }
}

impl Cuda {
    /// `dw += Σ row_weight · dy ⊗ x` of each: one with the tiles that suit it, several in one launch, with another for what
    /// was computed in parts.
    pub(super) fn products_of_rows(&self, gradients: Vec<WeightGradient<'_, Self>>) {
        let product = |gradient| {
            let WeightGradient { dw_acc, dy, x, row_weight } = gradient;
            TileProduct { row_weight, ..TileProduct::new(Layout::TN, dy, x, Target::Added(dw_acc)) }
        };
        in_groups(
            gradients.into_iter().map(product).collect(),
            GROUP_PRODUCTS,
            |mut products| match products.len() {
                1 => products.drain(..).for_each(|product| product.run(self)),
                _ => self.group_of_products(products),
            },
        );
    }

    fn group_of_products(&self, products: Vec<TileProduct<'_>>) {
        let sizes: Vec<_> = products.iter().map(TileProduct::size).collect();
        let blocks = sizes.iter().map(|&(m, n, _)| tiles(m, n)).sum();
        let splits: Vec<_> = sizes.iter().map(|&(_, _, k)| splits(self, blocks, k)).collect();
        let ranges = pieces(sizes.iter().zip(&splits).map(|(&(m, n, _), &splits)| partials(m, n, splits)));
        let mut scratch = self.scratch();
        let len = ranges.last().map_or(0, |last| last.end);
        let Some(memory) = scratch.take::<f32>(self, len) else { return };
        let memory = memory.ranges(ranges.into_iter());
        let members = products.into_iter().zip(splits).zip(memory);
        let members = members.map(|((product, splits), memory)| Member::in_parts(product, splits, memory));
        let members: Vec<_> = members.collect();
        self.products(&members.iter().collect::<Vec<_>>());
        group::reduce(self, members.iter().filter_map(Member::parts));
    }

    /// `db += Σ row_weight · dy` of each.
    pub(super) fn sums_of_rows(&self, mut gradients: Vec<BiasGradient<'_, Self>>) {
        gradients.retain(|gradient| gradient.db_acc.len() * gradient.row_weight.len() > 0);
        in_groups(gradients, COLUMN_SUMS, |gradients| self.column_sums(gradients));
    }

    fn column_sums(&self, gradients: Vec<BiasGradient<'_, Self>>) {
        let column_blocks =
            |gradient: &BiasGradient<'_, Self>| gradient.db_acc.len().div_ceil(COLUMN_SUM_WIDTH);
        let at_once =
            8 * self.info().multiprocessors as usize / gradients.iter().map(column_blocks).sum::<usize>();
        let parts = |gradient: &BiasGradient<'_, Self>| {
            at_once.clamp(1, gradient.row_weight.len().div_ceil(ROWS_OF_PART))
        };
        let stride = |gradient: &BiasGradient<'_, Self>| partial_stride(gradient.db_acc.len());
        let ranges = pieces(gradients.iter().map(|gradient| parts(gradient) * stride(gradient)));
        let mut scratch = self.scratch();
        let len = ranges.last().map_or(0, |last| last.end);
        let Some(memory) = scratch.take::<f32>(self, len) else { return };
        let memory = memory.ranges(ranges.into_iter());

        let (mut several, mut blocks) = (KernelColumnSums::zeroed(), 0);
        let mut launch = self.launch("column_sums");
        for ((to, gradient), memory) in several.of.iter_mut().zip(&gradients).zip(&memory) {
            let (n, rows, dy) = (gradient.db_acc.len(), gradient.row_weight.len(), gradient.dy);
            let (parts, vector) = (parts(gradient), dy.in_vectors());
            launch = launch.writes(&mut to.partials, "partials", memory, parts * stride(gradient), VECTOR);
            launch = launch.reads(&mut to.x, "dy", dy.data, dy.extent(), alignment(vector));
            launch = launch.reads(&mut to.row_weight, "row_weight", gradient.row_weight, rows, 4);
            *to = KernelColumnSum {
                rows: rows as i32,
                n: n as i32,
                x_stride: dy.stride as i32,
                stride: stride(gradient) as i32,
                vector: vector.into(),
                parts: parts as i32,
                column_blocks: column_blocks(gradient) as i32,
                first_block: blocks as i32,
                ..*to
            };
            several.count += 1;
            blocks += column_blocks(gradient) * parts;
        }
        launch.value(several).run(Shape::line(blocks, COLUMN_SUM_THREADS));

        let splits: Vec<_> = gradients.iter().map(parts).collect();
        let targets = gradients.into_iter().map(|gradient| {
            let n = gradient.db_acc.len();
            MatrixMut::new(gradient.db_acc, 1, n)
        });
        let targets: Vec<_> = targets.collect();
        let parts = targets.iter().zip(splits).zip(&memory).map(|((y, splits), memory)| Parts {
            y,
            alpha: 1.0,
            splits,
            partials: memory.view(),
        });
        group::reduce(self, parts);
    }
}
