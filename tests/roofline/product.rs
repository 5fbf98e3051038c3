//! The time of a tiled product: a main loop over k, bound by the resource that it needs longest, and what a
//! block does before and after it.

use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::cuda::tile::{GEMM_SM90_TILE_K, GEMM_SM90_TILE_M, GEMM_SM90_TILE_N};
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::mlp::Mlp;

use super::counting::count;
use super::machine::Machine;
use super::memory::{buffer, random, weight};

/// k of a stage, in all of these kernels.
const STAGE: usize = GEMM_SM90_TILE_K;

/// What a stage of a block's main loop asks of its multiprocessor.
#[derive(Clone, Copy)]
pub struct Work {
    tensor_flops: f64,
    /// Bytes that come from L2.
    l2_bytes: f64,
    /// Bytes that tensor cores read from shared memory, and that copies write there.
    shared_bytes: f64,
    /// Warp instructions.
    instructions: f64,
}

impl Work {
    /// Of a tile whose 64 rows of each warp group are multiplied with all its columns, from shared memory.
    pub fn of_tile([m, n]: [usize; 2], l2_bytes: f64) -> Self {
        let operands = |rows: usize| (2 * rows * STAGE) as f64;
        let read = m as f64 / 64.0 * (operands(64) + operands(n));
        Work {
            tensor_flops: (2 * m * n * STAGE) as f64,
            l2_bytes,
            shared_bytes: read + operands(m + n),
            instructions: 0.0,
        }
    }

    /// Clocks of each resource.
    fn clocks(&self, machine: &Machine) -> [(&'static str, f64); 4] {
        [
            ("tensor cores", self.tensor_flops / machine.flops_per_clock),
            ("L2", self.l2_bytes / machine.l2_bytes_per_clock),
            ("shared memory", self.shared_bytes / machine.shared_bytes_per_clock),
            ("issue", self.instructions / machine.issue_per_clock),
        ]
    }
}

/// A product of `[m, k]` and `[k, n]`, a block of one multiprocessor for each tile at a time.
pub struct Product {
    /// m, n, k.
    pub shape: [usize; 3],
    pub tile: [usize; 2],
    pub stage: Work,
    /// Whether blocks stay for all their tiles.
    pub persistent: bool,
}

pub struct Prediction {
    pub us: f64,
    pub tflops: f64,
    /// What the main loop waits for.
    pub bound: &'static str,
}

impl Product {
    pub fn flops(&self) -> f64 {
        2.0 * self.shape.iter().map(|&n| n as f64).product::<f64>()
    }

    pub fn predict(&self, machine: &Machine) -> Prediction {
        let ([m, n, k], [tile_m, tile_n]) = (self.shape, self.tile);
        let resources = self.stage.clocks(machine);
        let longest = resources.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (bound, clocks) = longest.expect("four resources");
        let main_loop = k.div_ceil(STAGE) as f64 * clocks / machine.clocks;
        let beside = if self.persistent { machine.persistent_block_us } else { machine.block_us };
        let tiles = (m.div_ceil(tile_m) * n.div_ceil(tile_n)) as f64;
        let us = (tiles / machine.multiprocessors).ceil() * (main_loop + beside);
        Prediction { us, tflops: self.flops() / us / 1e6, bound }
    }

    /// A product of ours for Hopper: what two small ones of other k differ in is what their stages take.
    pub fn counted(kernel: &'static str, shape: [usize; 3]) -> Self {
        const STAGES: [usize; 2] = [2, 6];
        let tile = [GEMM_SM90_TILE_M, GEMM_SM90_TILE_N];
        let [few, many] = STAGES.map(|stages| run(kernel, stages * STAGE));
        assert_eq!(few.blocks, many.blocks, "{kernel}: as many tiles");
        let of_stage = |of: fn(&Counters) -> u64| {
            (of(&many) - of(&few)) as f64 / few.blocks as f64 / (STAGES[1] - STAGES[0]) as f64
        };
        let l2_bytes = of_stage(|c| c.bulk_load_bytes) + 32.0 * of_stage(|c| c.global_load_sectors);
        let instructions = of_stage(Counters::warp_instructions);
        let counted = of_stage(|c| c.tensor_flops);
        let stage = Work { instructions, ..Work::of_tile(tile, l2_bytes) };
        assert_eq!(stage.tensor_flops, counted, "{kernel}: operations of a stage");
        Product { shape, tile, stage, persistent: false }
    }
}

/// Runs a kernel for a product that is just large enough for it.
fn run(kernel: &'static str, k: usize) -> Counters {
    let (rows, columns) = (512, 132 * GEMM_SM90_TILE_N / 4);
    let [counters] = count([kernel], |cuda: &Cuda| match kernel {
        "gemm_nt_sm90" => {
            let (x, w, mut y) =
                (random(cuda, rows * k, 1.0), weight(cuda, columns, k), buffer(cuda, rows * columns));
            cuda.linear(y.view_mut(), x.view(), &w, None, &[], Write::Overwrite);
        }
        "gemm_nn_sm90" => {
            let (dy, w, mut dx) =
                (random(cuda, rows * k, 1.0), weight(cuda, k, columns), buffer(cuda, rows * columns));
            cuda.linear_backward(dx.view_mut(), dy.view(), &w);
        }
        "gemm_nt_gated_sm90" => {
            let wide = columns / 2;
            let (x, w) = (random(cuda, rows * k, 1.0), weight(cuda, 2 * wide, k));
            let (mut h, mut gate_up) = (buffer(cuda, rows * wide), buffer(cuda, 2 * rows * wide));
            cuda.gated(h.view_mut(), gate_up.view_mut(), rows, x.view(), &w, &[], wide);
        }
        other => panic!("{other} is no product for Hopper"),
    });
    counters
}
