//! Products with the tensor memory accelerator and the warpgroup products of sm_90a.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, TiledMatrix};
use super::tile::*;
use crate::error::{Error, Result};
use crate::ops::{Mut, Ref};

/// Dynamic shared memory: the stages, the tile of y, two barriers for each stage.
const SHARED: usize =
    GEMM_SM90_STAGES * (GEMM_SM90_TILE_M + GEMM_SM90_TILE_N) * GEMM_SM90_TILE_K * size_of::<bf16>()
        + GEMM_SM90_TILE_M * GEMM_SM90_TILE_N * size_of::<bf16>()
        + GEMM_SM90_STAGES * 2 * size_of::<u64>();

/// The most blocks that CUDA allows along y.
const MAX_GRID_Y: usize = 65535;

/// Sizes of a product: y `[m, n]`, x `[m, k]`, w `[n, k]`, bias `[n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of x and y.
    pub m: usize,
    /// Rows of w, columns of y.
    pub n: usize,
    /// Columns of x and w; a multiple of 8, not 0.
    pub k: usize,
}

impl Product {
    /// Refuses what the kernel cannot compute.
    fn check(self) -> Result<()> {
        let Product { m, n, k } = self;
        let what = |problem| Err(Error::usage(format!("product of [{m}, {k}] and [{n}, {k}]ᵀ: {problem}")));
        if k == 0 || !k.is_multiple_of(8) {
            return what(format!("expected an inner dimension that is a multiple of 8, found {k}"));
        }
        // The kernel counts rows and columns of whole tiles in i32.
        let largest = i32::MAX as usize - 1024;
        if m.max(k) > largest || n.div_ceil(GEMM_SM90_TILE_N) > MAX_GRID_Y {
            return what("too large".into());
        }
        Ok(())
    }
}

impl Cuda {
    /// `y = x wᵀ + bias`, rounded once.
    ///
    /// Usage errors: k is 0 or no multiple of 8; a size beyond what a grid can hold. A device error on any other
    /// architecture.
    pub fn gemm_nt_sm90(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        w: Ref<'_, Self, bf16>,
        bias: Option<Ref<'_, Self, f32>>,
        size: Product,
    ) -> Result<()> {
        size.check()?;
        let found = self.info().capability;
        if found != 90 {
            let (major, minor) = (found / 10, found % 10);
            let text = format!(
                "gemm_nt_sm90: expected compute capability 9.0, found {major}.{minor}; use Gemm::matmul"
            );
            return Err(Error::device(text));
        }
        let Product { m, n, k } = size;
        let matrix = |rows, columns, box_shape| TiledMatrix { rows, columns, box_shape };
        self.launch("gemm_nt_sm90")
            .read_tiled("x", x, &matrix(m, k, (GEMM_SM90_TILE_M, GEMM_SM90_TILE_K)))
            .read_tiled("w", w, &matrix(n, k, (GEMM_SM90_TILE_N, GEMM_SM90_TILE_K)))
            .write_tiled("y", &y, &matrix(m, n, (GEMM_SM90_STORE_M, GEMM_SM90_STORE_N)))
            .read_optional("bias", bias, n, 4)
            .value(m as i32)
            .value(n as i32)
            .value(k as i32)
            .run(Shape {
                grid: (m.div_ceil(GEMM_SM90_TILE_M), n.div_ceil(GEMM_SM90_TILE_N), 1),
                block: GEMM_SM90_THREADS,
                shared: SHARED,
            });
        Ok(())
    }
}
