//! Public kernels with published times, as far as predictions need to know them.

use serde::Deserialize;

use super::launch::{Schedule, Work, wgmma_bytes_per_flop};
use super::machine::Machine;

/// k of a stage, in all of these kernels.
const STAGE: usize = 64;

/// A product of 4096 × 4096 × 4096 by a public kernel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub name: String,
    /// Rows and columns of a block's tile.
    tile: [usize; 2],
    /// Bytes that a block fetches from L2 for 64 of k.
    l2_bytes: f64,
    /// Whether blocks stay for all their tiles.
    persistent: bool,
    /// Published.
    pub tflops: f64,
}

impl Product {
    /// All that `calibration.toml` lists.
    pub fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct File {
            product: Vec<Product>,
        }
        toml::from_str::<File>(include_str!("calibration.toml")).expect("calibration.toml").product
    }

    /// TFLOP/s.
    pub fn predict(&self, machine: &Machine) -> f64 {
        const SIZE: usize = 4096;
        let [m, n] = self.tile;
        let stages = (SIZE / STAGE) as f64;
        let flops = (2 * m * n * STAGE) as f64;
        // Each warp group's 64 rows are multiplied with all columns.
        let shared = flops * wgmma_bytes_per_flop(n) + (2 * STAGE * (m + n)) as f64;
        let work = Work {
            tensor: stages * flops / machine.flops_per_clock / machine.tensor_share,
            l2: stages * self.l2_bytes / machine.l2_bytes_per_clock,
            shared: stages * shared / 128.0,
            ..Work::default()
        };
        let overhead_us = if self.persistent { machine.persistent_block_us } else { machine.block_us };
        let blocks = ((SIZE / m) * (SIZE / n)) as f64;
        let schedule = Schedule { blocks, resident: 1.0, warps: f64::INFINITY, overhead_us };
        2.0 * (SIZE as f64).powi(3) / work.predict(machine, schedule, 0.0).us / 1e6
    }
}
