//! Matrix products on bf16: `y = x wᵀ + bias`, rounded once.

use cudarc::driver::{CudaView, DevicePtr, DevicePtrMut};
use half::bf16;

use super::Cuda;
use super::launch::{Launch, Shape, TiledMatrix, VECTOR};
use super::tile::*;
use crate::error::{Error, Result};

/// Dynamic shared memory of `gemm_nt`: the stages, each a tile of x and one of w.
pub(super) const SHARED: usize = GEMM_STAGES * stage_bytes(GEMM_TILE_M, GEMM_TILE_N, GEMM_TILE_K);

/// Dynamic shared memory of `gemm_nt_sm90`: the stages, the tile of y, two barriers for each stage.
pub(super) const SM90_SHARED: usize = GEMM_SM90_STAGES
    * stage_bytes(GEMM_SM90_TILE_M, GEMM_SM90_TILE_N, GEMM_SM90_TILE_K)
    + GEMM_SM90_TILE_M * GEMM_SM90_TILE_N * size_of::<bf16>()
    + GEMM_SM90_STAGES * 2 * size_of::<u64>();

const fn stage_bytes(tile_m: usize, tile_n: usize, tile_k: usize) -> usize {
    (tile_m + tile_n) * tile_k * size_of::<bf16>()
}

/// The most blocks that CUDA allows along y.
const MAX_GRID_Y: usize = 65535;

/// Sizes of a product: y `[m, n]`, x `[m, k]`, w `[n, k]`, bias `[n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of x and y.
    pub m: usize,
    /// Rows of w, columns of y.
    pub n: usize,
    /// Columns of x and w; a multiple of 8, not 0.
    pub k: usize,
}

impl Gemm {
    /// Refuses what the kernels cannot compute.
    fn check(self, tile_n: usize) -> Result<()> {
        let Gemm { m, n, k } = self;
        let what = |problem| Err(Error::usage(format!("product of [{m}, {k}] and [{n}, {k}]ᵀ: {problem}")));
        if k == 0 || !k.is_multiple_of(8) {
            return what(format!("expected an inner dimension that is a multiple of 8, found {k}"));
        }
        // Kernels count rows and columns of whole tiles in i32.
        let largest = i32::MAX as usize - 1024;
        if m.max(k) > largest || n.div_ceil(tile_n) > MAX_GRID_Y {
            return what("too large".into());
        }
        Ok(())
    }

    fn is_empty(self) -> bool {
        self.m == 0 || self.n == 0
    }
}

impl Cuda {
    /// `y = x wᵀ + bias` with the tensor cores of sm_80 and later. The shapes are those of [`Gemm`].
    ///
    /// Usage errors: k is 0 or no multiple of 8; a length that is not that of `size`; x, w or y not starting at a
    /// multiple of 16 bytes; a size beyond what a grid can hold.
    pub fn gemm_nt(
        &self,
        y: &mut impl DevicePtrMut<bf16>,
        x: &impl DevicePtr<bf16>,
        w: &impl DevicePtr<bf16>,
        bias: Option<&CudaView<'_, f32>>,
        size: Gemm,
    ) -> Result<()> {
        size.check(GEMM_TILE_N)?;
        if size.is_empty() {
            return Ok(());
        }
        let Gemm { m, n, k } = size;
        let launch = Launch::new(&self.kernels.gemm_nt, &self.stream)
            .write("y", y, m * n, VECTOR)?
            .read("x", x, m * k, VECTOR)?
            .read("w", w, n * k, VECTOR)?;
        with_bias(launch, bias, n)?.value(m as i32).value(n as i32).value(k as i32).run(Shape {
            grid: (m.div_ceil(GEMM_TILE_M), n.div_ceil(GEMM_TILE_N)),
            block: GEMM_THREADS,
            shared: SHARED,
        })
    }

    /// The same with the tensor memory accelerator and the warpgroup products of sm_90a.
    ///
    /// Errors as with [`gemm_nt`](Self::gemm_nt); a device error on any other architecture.
    pub fn gemm_nt_sm90(
        &self,
        y: &mut impl DevicePtrMut<bf16>,
        x: &impl DevicePtr<bf16>,
        w: &impl DevicePtr<bf16>,
        bias: Option<&CudaView<'_, f32>>,
        size: Gemm,
    ) -> Result<()> {
        size.check(GEMM_SM90_TILE_N)?;
        let Some(kernel) = &self.kernels.gemm_nt_sm90 else {
            let found = self.info.capability;
            let (major, minor) = (found / 10, found % 10);
            let text =
                format!("gemm_nt_sm90: expected compute capability 9.0, found {major}.{minor}; use gemm_nt");
            return Err(Error::device(text));
        };
        if size.is_empty() {
            return Ok(());
        }
        let Gemm { m, n, k } = size;
        let matrix = |rows, columns, box_shape| TiledMatrix { rows, columns, box_shape };
        let launch = Launch::new(kernel, &self.stream)
            .read_tiled("x", x, &matrix(m, k, (GEMM_SM90_TILE_M, GEMM_SM90_TILE_K)))?
            .read_tiled("w", w, &matrix(n, k, (GEMM_SM90_TILE_N, GEMM_SM90_TILE_K)))?
            .write_tiled("y", y, &matrix(m, n, (GEMM_SM90_STORE_M, GEMM_SM90_STORE_N)))?;
        with_bias(launch, bias, n)?.value(m as i32).value(n as i32).value(k as i32).run(Shape {
            grid: (m.div_ceil(GEMM_SM90_TILE_M), n.div_ceil(GEMM_SM90_TILE_N)),
            block: GEMM_SM90_THREADS,
            shared: SM90_SHARED,
        })
    }
}

/// The pointer to the bias, or null.
fn with_bias<'a>(launch: Launch<'a>, bias: Option<&'a CudaView<'_, f32>>, n: usize) -> Result<Launch<'a>> {
    match bias {
        Some(bias) => launch.read("bias", bias, n, 4),
        None => Ok(launch.value(0u64)),
    }
}
