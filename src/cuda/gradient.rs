//! Gradients of weights and biases.

use bytemuck::Zeroable;

use super::Cuda;
use super::group::{Member, splits};
use super::launch::Shape;
use super::parts::{KernelParts, Parts, Split};
use super::product::{Layout, Target, TileProduct, alignment};
use super::tile::*;
use crate::ops::gemm::{BiasGradient, WeightGradient};

/// Rows that are worth a block of their own.
const ROWS_OF_PART: usize = 512;

/// `ColumnSum` of `kernels/column_sums.cu`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelColumnSum {
    y: u64,
    memory: KernelParts,
    x: u64,
    row_weight: u64,
    rows: i32,
    n: i32,
    x_stride: i32,
    vector: i32,
    parts: i32,
    column_blocks: i32,
    first_block: i32,
    padding: i32,
}

/// `ColumnSums` of `kernels/column_sums.cu`.
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
    /// `dw += Σ row_weight · dy ⊗ x` of each: one with the tiles that suit it, several in one launch.
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
        let splits = splits(self, products.iter().map(|product| product.size().into()));
        let (mut scratch, mut counters) = (self.scratch(), self.counters());
        let Some((parts, _)) = Parts::take(self, &splits, &[], &mut scratch, &mut counters) else { return };
        let members = products.into_iter().zip(parts);
        let members = members.map(|(product, parts)| Member { product, dropout: None, parts: Some(parts) });
        let members: Vec<_> = members.collect();
        self.products(&members.iter().collect::<Vec<_>>());
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
        let split = |gradient: &BiasGradient<'_, Self>| Split {
            tiles: column_blocks(gradient),
            count: at_once.clamp(1, gradient.row_weight.len().div_ceil(ROWS_OF_PART)),
            len: COLUMN_SUM_WIDTH,
        };
        let splits: Vec<_> = gradients.iter().map(split).collect();
        let (mut scratch, mut counters) = (self.scratch(), self.counters());
        let Some((parts, _)) = Parts::take(self, &splits, &[], &mut scratch, &mut counters) else { return };

        let (mut several, mut blocks) = (KernelColumnSums::zeroed(), 0);
        let mut launch = self.launch("column_sums");
        for ((to, gradient), parts) in several.of.iter_mut().zip(&gradients).zip(&parts) {
            let (n, rows, dy) = (gradient.db_acc.len(), gradient.row_weight.len(), gradient.dy);
            launch = parts.pass(&mut to.memory, launch);
            launch = launch.writes(&mut to.y, "db", &gradient.db_acc, n, 4);
            launch = launch.reads(&mut to.x, "dy", dy.data, dy.extent(), alignment(dy.in_vectors()));
            launch = launch.reads(&mut to.row_weight, "row_weight", gradient.row_weight, rows, 4);
            *to = KernelColumnSum {
                rows: rows as i32,
                n: n as i32,
                x_stride: dy.stride as i32,
                vector: dy.in_vectors().into(),
                parts: parts.split.count as i32,
                column_blocks: parts.split.tiles as i32,
                first_block: blocks as i32,
                ..*to
            };
            several.count += 1;
            blocks += parts.split.blocks();
        }
        launch.value(several).run(Shape::line(blocks, COLUMN_SUM_THREADS));
    }
}
