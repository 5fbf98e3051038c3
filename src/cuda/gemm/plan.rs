//! Tile size and split-K of a product.

use half::bf16;

use crate::cuda::launch::Shape;
use crate::cuda::split::Split;
use crate::cuda::tile::*;
use crate::cuda::waves::LARGE_OCCUPANCY;

/// Tiles along k that are worth a split of their own.
pub(super) const TILES_PER_SPLIT: usize = 8;
/// Occupancy of kernels with small tiles: blocks that a multiprocessor holds.
pub(super) const SMALL_OCCUPANCY: usize = 4;

/// Tile size and split-K of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub large: bool,
    /// Split-K.
    pub split: Split,
}

impl Plan {
    /// Large tiles where they give all multiprocessors work; split-K where there are few tiles. A gated
    /// product has as many tiles, each of two halves of n that lie apart.
    pub fn new([m, n, k]: [usize; 3], multiprocessors: usize, vector: bool) -> Self {
        let tiles = |tile: usize| m.div_ceil(tile) * n.div_ceil(tile);
        let most = (k.div_ceil(GEMM_TILE_K) / TILES_PER_SPLIT).max(1);
        let fills = tiles(GEMM_LARGE_TILE) * most >= multiprocessors;
        let large = vector && fills && m > GEMM_SMALL_TILE && n > GEMM_SMALL_TILE;
        let (tiles, at_once) = match large {
            true => (tiles(GEMM_LARGE_TILE), LARGE_OCCUPANCY * multiprocessors),
            false => (tiles(GEMM_SMALL_TILE), SMALL_OCCUPANCY * multiprocessors),
        };
        let tile = if large { GEMM_LARGE_TILE } else { GEMM_SMALL_TILE };
        let count = (at_once / tiles.max(1)).clamp(1, most);
        Plan { large, split: Split { tiles, count, len: tile * tile } }
    }
}

/// Launch shape of a product that has the launch to itself.
pub(super) fn shape(split: Split, large: bool) -> Shape {
    let grid = (split.tiles, 1, split.count);
    match large {
        true => Shape { grid, block: GEMM_LARGE_THREADS, shared: shared(GEMM_LARGE_TILE) },
        false => Shape { grid, block: GEMM_SMALL_THREADS, shared: shared(GEMM_SMALL_TILE) },
    }
}

/// Bytes of shared memory of the pipeline's stages with this tile.
pub(super) const fn shared(tile: usize) -> usize {
    let stage = 2 * tile * GEMM_TILE_K * size_of::<bf16>() + GEMM_TILE_K * size_of::<f32>();
    GEMM_STAGES * stage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_fill_the_device() {
        let plan = |m, n, k| Plan::new([m, n, k], 132, true);
        // A layer of a large batch: large tiles, no split-K.
        assert!(plan(8192, 3584, 3584).large);
        assert_eq!(plan(8192, 3584, 3584).split.count, 1);
        // A gradient of a small matrix over many rows: split-K, a workspace for each split.
        let Plan { large, split } = plan(16, 3584, 8192);
        assert!(!large && split.count > 1 && split.blocks() <= 4 * 132);
        assert_eq!((split.partials(), split.counters()), (split.count * 64 * 3584, 3584 / 64));
        // Too short to split.
        assert_eq!((plan(64, 64, 32).split.partials(), plan(64, 64, 32).split.counters()), (0, 0));
    }
}
