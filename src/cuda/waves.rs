//! How tiles of a product fill a device.

use super::driver::DeviceInfo;
use super::tile::{GEMM_LARGE_TILE, GEMM_SM90_CLUSTER, GEMM_SM90_TILE_M, GEMM_SM90_TILE_N};

/// Occupancy of kernels with large tiles that use `mma.sync`: blocks that a multiprocessor holds.
pub(super) const LARGE_OCCUPANCY: usize = 2;

/// Clusters that a device runs at the same time: a block has a multiprocessor to itself.
pub(super) fn clusters_at_once(info: &DeviceInfo) -> usize {
    (info.multiprocessors as usize / GEMM_SM90_CLUSTER).max(1)
}

/// How often tiles of `[rows, columns]` fill the device.
pub(super) fn waves(rows: usize, columns: usize, info: &DeviceInfo) -> usize {
    if info.capability == 90 {
        return Tiles::new(rows, columns, GEMM_SM90_TILE_N).pairs.div_ceil(clusters_at_once(info));
    }
    let tiles = rows.div_ceil(GEMM_LARGE_TILE) * columns.div_ceil(GEMM_LARGE_TILE);
    tiles.div_ceil(LARGE_OCCUPANCY * info.multiprocessors as usize)
}

/// How clusters of `gemm_sm90.cu` share the tiles of y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Whether the two tiles of a cluster are neighbours along n and share x, or along m and share w.
    pub share_x: bool,
    pub pairs: usize,
}

impl Tiles {
    /// Tiles of `[m, n]`, of so many columns of n each: neighbours along m, as w is the wider operand, unless
    /// more of them are outside of y.
    pub fn new(m: usize, n: usize, columns: usize) -> Self {
        let (along_m, along_n) = (m.div_ceil(GEMM_SM90_TILE_M), n.div_ceil(columns));
        let sharing_w = along_m.div_ceil(GEMM_SM90_CLUSTER) * along_n;
        let sharing_x = along_m * along_n.div_ceil(GEMM_SM90_CLUSTER);
        Tiles { share_x: sharing_x < sharing_w, pairs: sharing_x.min(sharing_w) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_along_m_unless_that_wastes_tiles() {
        let tiles = |m, n| Tiles::new(m, n, GEMM_SM90_TILE_N);
        assert_eq!(tiles(256, 768), Tiles { share_x: false, pairs: 3 });
        assert_eq!(tiles(100, 768), Tiles { share_x: true, pairs: 2 });
        assert_eq!(tiles(100, 200), Tiles { share_x: false, pairs: 1 });
        assert_eq!(tiles(300, 1024), Tiles { share_x: true, pairs: 6 });
        assert_eq!(tiles(9984 + 64, 37888), Tiles { share_x: true, pairs: 79 * 74 });
    }
}
