//! Warp-specialised GEMM with TMA and wgmma (sm_90a): linear layers, gradients through them, SwiGLU.

use half::bf16;

use super::{Gated, Gemm, Layout, Residual, Target};
use crate::cuda::Cuda;
use crate::cuda::launch::{Launch, Shape, TiledMatrix, VECTOR};
use crate::cuda::params::{GatedMaps, LoraMaps, LoraRange};
use crate::cuda::tile::*;
use crate::cuda::waves::{Tiles, clusters_at_once};
use crate::ops::matrix::{Matrix, MatrixMut};

/// Dynamic shared memory: the stages, boxes of y for each consumer, two mbarriers for each stage and one for
/// each box.
const SHARED: usize = {
    let stage = (GEMM_SM90_TILE_M + GEMM_SM90_TILE_N) * GEMM_SM90_TILE_K * size_of::<bf16>();
    let boxes = GEMM_SM90_CONSUMERS * GEMM_SM90_BOXES;
    let barriers = (2 * GEMM_SM90_STAGES + boxes) * size_of::<u64>();
    GEMM_SM90_STAGES * stage + boxes * GEMM_SM90_BOX * GEMM_SM90_BOX * size_of::<bf16>() + barriers
};

/// Boxes of the TMA's tensor maps: halves of a tile, but quarters of one of w that lies along n.
const X_BOX: (usize, usize) = (GEMM_SM90_TILE_M / 2, GEMM_SM90_TILE_K);
const W_BOX: (usize, usize) = (GEMM_SM90_TILE_N / 2, GEMM_SM90_TILE_K);
const TRANSPOSED_W_BOX: (usize, usize) = (GEMM_SM90_TILE_K, GEMM_SM90_TILE_N / 4);
const Y_BOX: (usize, usize) = (GEMM_SM90_BOX, GEMM_SM90_BOX);

/// Whether the TMA can read a matrix: rows without gaps that start on multiples of 16 bytes.
fn suits(matrix: &Matrix<'_, Cuda, bf16>) -> bool {
    let aligned = matrix.cols.is_multiple_of(8) && matrix.data.address().is_multiple_of(VECTOR);
    aligned && matrix.stride == matrix.cols && matrix.rows * matrix.cols > 0
}

fn tiled(matrix: &Matrix<'_, Cuda, bf16>, box_shape: (usize, usize)) -> TiledMatrix {
    TiledMatrix { rows: matrix.rows, columns: matrix.cols, box_shape }
}

/// A cluster for each pair, or as many as there are multiprocessors for.
fn shape(tiles: Tiles, cuda: &Cuda) -> Shape {
    let clusters = tiles.pairs.min(clusters_at_once(cuda.info()));
    Shape { grid: (clusters * GEMM_SM90_CLUSTER, 1, 1), block: GEMM_SM90_THREADS, shared: SHARED }
}

impl Gemm<'_> {
    /// Whether [`run_sm90`](Self::run_sm90) can compute the product; its kernels have no split-K.
    pub(super) fn suits_sm90(&self, cuda: &Cuda) -> bool {
        let target = match &self.target {
            Target::Rounded(y) => y.stride == y.cols && y.data.address().is_multiple_of(VECTOR),
            Target::Gated(Gated { h, gate_up }) => {
                h.cols.is_multiple_of(GEMM_SM90_TILE_N / 2)
                    && [h, gate_up].iter().all(|y| y.stride == y.cols && y.in_vectors())
            }
            Target::Added(_) => false,
        };
        let residual = match &self.residual {
            Residual::Nothing => true,
            Residual::Target(_) => false,
            Residual::Other(matrix) => suits(matrix),
        };
        let mut terms = self.terms.iter().flat_map(|terms| terms.each());
        let layout = match self.layout {
            Layout::NT => true,
            Layout::NN => self.bias.is_none() && matches!(self.residual, Residual::Nothing),
            Layout::TN => false,
        };
        cuda.info().capability == 90
            && layout
            && self.alpha == 1.0
            && self.plan(cuda).split.count == 1
            && target
            && residual
            && suits(&self.a)
            && suits(&self.b)
            && terms.all(|(xa, b, _)| suits(&xa) && suits(&b))
    }

    /// `y = a bᵀ + bias + Σ xa Bᵀ + residual`, `y = a b`, or the first half of a feed-forward, with the
    /// kernels of `gemm_sm90.cu`.
    pub(super) fn run_sm90(self, cuda: &Cuda) {
        match (&self.target, self.layout) {
            (Target::Rounded(y), Layout::NT) => self.linear_sm90(cuda, y),
            (Target::Rounded(y), _) => self.backward_sm90(cuda, y),
            (Target::Gated(to), _) => self.gated_sm90(cuda, to),
            (Target::Added(_), _) => {}
        }
    }

    fn linear_sm90(&self, cuda: &Cuda, y: &MatrixMut<'_, Cuda, bf16>) {
        let (m, n, k) = self.size();
        let tiles = Tiles::new(m, n, GEMM_SM90_TILE_N);
        let launch = cuda
            .launch("gemm_nt_sm90")
            .read_tiled("x", self.a.data, &tiled(&self.a, X_BOX))
            .read_tiled("w", self.b.data, &tiled(&self.b, W_BOX))
            .write_tiled("y", &y.data, &TiledMatrix { rows: m, columns: n, box_shape: Y_BOX })
            .read_optional("bias", self.bias, n, 4)
            .value(m as i32)
            .value(n as i32)
            .value(k as i32)
            .value(i32::from(tiles.share_x));
        let launch = match &self.residual {
            Residual::Other(matrix) => {
                launch.read_tiled("residual", matrix.data, &tiled(matrix, Y_BOX)).value(1i32)
            }
            _ => launch.value([0u64; 16]).value(0i32),
        };
        self.lora_maps(launch).run(shape(tiles, cuda));
    }

    fn backward_sm90(&self, cuda: &Cuda, y: &MatrixMut<'_, Cuda, bf16>) {
        let (m, n, k) = self.size();
        let tiles = Tiles::new(m, n, GEMM_SM90_TILE_N);
        cuda.launch("gemm_nn_sm90")
            .read_tiled("x", self.a.data, &tiled(&self.a, X_BOX))
            .read_tiled("w", self.b.data, &tiled(&self.b, TRANSPOSED_W_BOX))
            .write_tiled("y", &y.data, &TiledMatrix { rows: m, columns: n, box_shape: Y_BOX })
            .value(m as i32)
            .value(n as i32)
            .value(k as i32)
            .value(i32::from(tiles.share_x))
            .run(shape(tiles, cuda));
    }

    /// `dgate_up` from gate_up and a gradient of h that has this product's target; where
    /// [`Self::suits_sm90`], with a target that is not written. Whether it was computed.
    pub(in crate::cuda) fn gated_backward_sm90(
        &self,
        cuda: &Cuda,
        dgate_up: &MatrixMut<'_, Cuda, bf16>,
        gate_up: &Matrix<'_, Cuda, bf16>,
    ) -> bool {
        let (m, n, k) = self.size();
        let suited = self.layout == Layout::NN
            && n.is_multiple_of(GEMM_SM90_BOX)
            && [dgate_up.data.address(), gate_up.data.address()].iter().all(|a| a.is_multiple_of(VECTOR))
            && self.fits(cuda)
            && self.suits_sm90(cuda);
        if suited {
            let tiles = Tiles::new(m, n, GEMM_SM90_TILE_N);
            let to = TiledMatrix { rows: m, columns: 2 * n, box_shape: Y_BOX };
            cuda.launch("gemm_nn_gated_sm90")
                .read_tiled("x", self.a.data, &tiled(&self.a, X_BOX))
                .read_tiled("w", self.b.data, &tiled(&self.b, TRANSPOSED_W_BOX))
                .write_map("dgate_up", &dgate_up.data, &to)
                .read("gate_up", gate_up.data, 2 * m * n, VECTOR)
                .value(m as i32)
                .value(n as i32)
                .value(k as i32)
                .value(i32::from(tiles.share_x))
                .run(shape(tiles, cuda));
        }
        suited
    }

    fn gated_sm90(&self, cuda: &Cuda, Gated { h, gate_up }: &Gated<'_>) {
        let (m, _, k) = self.size();
        let tiles = Tiles::new(m, h.cols, GEMM_SM90_TILE_N / 2);
        let mut maps = GatedMaps::default();
        let launch = cuda
            .launch("gemm_nt_gated_sm90")
            .read_tiled("x", self.a.data, &tiled(&self.a, X_BOX))
            .read_tiled("w", self.b.data, &tiled(&self.b, W_BOX));
        let map =
            |y: &MatrixMut<'_, Cuda, bf16>| TiledMatrix { rows: y.rows, columns: y.cols, box_shape: Y_BOX };
        let mut launch = launch.tensor_map(&mut maps.h, "h", h.data.view(), &map(h));
        if gate_up.rows > 0 {
            launch = launch.tensor_map(&mut maps.gate_up, "gate_up", gate_up.data.view(), &map(gate_up));
        }
        let launch = launch
            .value(maps)
            .value(gate_up.rows as i32)
            .value(m as i32)
            .value(h.cols as i32)
            .value(k as i32)
            .value(i32::from(tiles.share_x));
        self.lora_maps(launch).run(shape(tiles, cuda));
    }

    fn lora_maps<'l>(&self, mut launch: Launch<'l>) -> Launch<'l> {
        let mut maps = LoraMaps::default();
        for (i, (xa, b, column)) in self.terms.iter().flat_map(|terms| terms.each()).enumerate() {
            launch = launch.tensor_map(&mut maps.xa[i], "xa", xa.data, &tiled(&xa, X_BOX)).tensor_map(
                &mut maps.b[i],
                "lora_B",
                b.data,
                &tiled(&b, W_BOX),
            );
            maps.range[i] = LoraRange {
                rows: xa.rows as i32,
                column: column as i32,
                columns: b.rows as i32,
                rank: b.cols as i32,
            };
            maps.count += 1;
        }
        launch.value(maps)
    }
}
