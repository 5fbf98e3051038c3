//! Matrix products on bf16: `y = x wᵀ + bias`, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, TiledMatrix, VECTOR};
use super::memory::Weight;
use super::tile::*;
use crate::error::{Error, Result};
use crate::ops::gemm::{Gemm, LoraBackward, LoraTerm, Matrix, MatrixMut, Transpose, Write};
use crate::ops::{Dropout, Mut, Ref};

/// Dynamic shared memory of `gemm_nt`: the stages, each a tile of x and one of w.
const SHARED: usize = GEMM_STAGES * stage_bytes(GEMM_TILE_M, GEMM_TILE_N, GEMM_TILE_K);

/// Dynamic shared memory of `gemm_nt_sm90`: the stages, the tile of y, two barriers for each stage.
const SM90_SHARED: usize = GEMM_SM90_STAGES
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
pub struct Product {
    /// Rows of x and y.
    pub m: usize,
    /// Rows of w, columns of y.
    pub n: usize,
    /// Columns of x and w; a multiple of 8, not 0.
    pub k: usize,
}

impl Product {
    /// Refuses what the kernels cannot compute.
    fn check(self, tile_n: usize) -> Result<()> {
        let Product { m, n, k } = self;
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
}

impl Cuda {
    /// `y = x wᵀ + bias` with the tensor cores of sm_80 and later. The shapes are those of [`Gemm`].
    ///
    /// Usage errors: k is 0 or no multiple of 8; x, w or y not starting at a multiple of 16 bytes; a size beyond what a
    /// grid can hold.
    pub fn gemm_nt(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        w: Ref<'_, Self, bf16>,
        bias: Option<Ref<'_, Self, f32>>,
        size: Product,
    ) -> Result<()> {
        size.check(GEMM_TILE_N)?;
        let Product { m, n, k } = size;
        self.launch("gemm_nt")
            .write("y", &y, m * n, VECTOR)
            .read("x", x, m * k, VECTOR)
            .read("w", w, n * k, VECTOR)
            .read_optional("bias", bias, n, 4)
            .value(m as i32)
            .value(n as i32)
            .value(k as i32)
            .run(Shape {
                grid: (m.div_ceil(GEMM_TILE_M), n.div_ceil(GEMM_TILE_N), 1),
                block: GEMM_THREADS,
                shared: SHARED,
            });
        Ok(())
    }

    /// The same with the tensor memory accelerator and the warpgroup products of sm_90a.
    ///
    /// Errors as with [`gemm_nt`](Self::gemm_nt); a device error on any other architecture.
    pub fn gemm_nt_sm90(
        &self,
        y: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        w: Ref<'_, Self, bf16>,
        bias: Option<Ref<'_, Self, f32>>,
        size: Product,
    ) -> Result<()> {
        size.check(GEMM_SM90_TILE_N)?;
        let found = self.info().capability;
        if found != 90 {
            let (major, minor) = (found / 10, found % 10);
            let text =
                format!("gemm_nt_sm90: expected compute capability 9.0, found {major}.{minor}; use gemm_nt");
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
                shared: SM90_SHARED,
            });
        Ok(())
    }

    fn missing(&self, what: &str) {
        self.fail(Error::internal(format!("{what} is not there yet")));
    }
}

impl Gemm for Cuda {
    fn linear(
        &self,
        _y: Mut<'_, Self, bf16>,
        _x: Ref<'_, Self, bf16>,
        _weight: &Weight,
        _bias: Option<Ref<'_, Self, f32>>,
        _lora: &[LoraTerm<'_, Self>],
        _write: Write,
    ) {
        self.missing("linear");
    }

    fn linear_backward(&self, _dx: Mut<'_, Self, bf16>, _dy: Ref<'_, Self, bf16>, _weight: &Weight) {
        self.missing("linear_backward");
    }

    fn lora_down(
        &self,
        _xa: Mut<'_, Self, bf16>,
        _x: Ref<'_, Self, bf16>,
        _a: Ref<'_, Self, bf16>,
        _rank: usize,
        _scale: f32,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.missing("lora_down");
    }

    fn lora_backward(&self, _args: LoraBackward<'_, Self>) {
        self.missing("lora_backward");
    }

    fn matmul(
        &self,
        _c: MatrixMut<'_, Self, bf16>,
        _a: Matrix<'_, Self, bf16>,
        _b: Matrix<'_, Self, bf16>,
        _transpose: Transpose,
        _alpha: f32,
        _beta: f32,
    ) {
        self.missing("matmul");
    }

    fn weight_gradient(
        &self,
        _dw_acc: MatrixMut<'_, Self, f32>,
        _dy: Matrix<'_, Self, bf16>,
        _x: Matrix<'_, Self, bf16>,
        _row_weight: Option<Ref<'_, Self, f32>>,
    ) {
        self.missing("weight_gradient");
    }

    fn bias_gradient(
        &self,
        _db_acc: Mut<'_, Self, f32>,
        _dy: Ref<'_, Self, bf16>,
        _row_weight: Ref<'_, Self, f32>,
    ) {
        self.missing("bias_gradient");
    }

    fn accumulate(&self, _dw_acc: MatrixMut<'_, Self, f32>, _x: Matrix<'_, Self, bf16>) {
        self.missing("accumulate");
    }
}
