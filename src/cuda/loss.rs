//! Cross-entropy and KL with their gradient, as written in `ops/loss.rs`. Computed in f32, rounded once. y stays as it is.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::tile::{LOSS_CLUSTER, LOSS_THREADS};
use crate::ops::loss::{HeadWeights, Loss};
use crate::ops::{Mut, Ref};

/// Shared memory for anything but logits.
const SUMS: usize = 1024;

/// The kernel for rows of some length.
struct Plan {
    kernel: &'static str,
    blocks: usize,
    /// Vectors of a row that each block keeps in shared memory.
    kept: usize,
}

impl Cuda {
    /// Rows that fit the shared memory of one block are taken by one, longer ones by a cluster of blocks. Where there are
    /// no clusters, one block keeps what fits and reads the rest again.
    fn loss_plan(&self, vocab_size: usize) -> Plan {
        // z and y; a row may begin and end within a vector.
        let room = (self.info().shared_memory - SUMS) / (2 * VECTOR);
        let needed = vocab_size.div_ceil(VECTOR / size_of::<bf16>()) + 1;
        if needed > room && self.info().capability == 90 {
            let kept = room.min(needed.div_ceil(LOSS_CLUSTER));
            return Plan { kernel: "cross_entropy_kl_cluster", blocks: LOSS_CLUSTER, kept };
        }
        Plan { kernel: "cross_entropy_kl", blocks: 1, kept: room.min(needed) }
    }
}

impl Loss for Cuda {
    fn cross_entropy_kl(
        &self,
        nll: Mut<'_, Self, f32>,
        kl: Mut<'_, Self, f32>,
        z: Mut<'_, Self, bf16>,
        y: Option<Mut<'_, Self, bf16>>,
        targets: Ref<'_, Self, i32>,
        kl_mask: Ref<'_, Self, f32>,
        weights: HeadWeights,
    ) {
        let rows = targets.len();
        let vocab_size = z.len() / rows.max(1);
        let Plan { kernel, blocks, kept } = self.loss_plan(vocab_size);
        self.launch(kernel)
            .write("nll", &nll, rows, 4)
            .write("kl", &kl, rows, 4)
            .write("z", &z, rows * vocab_size, VECTOR)
            .read_optional("y", y.as_ref().map(Mut::view), rows * vocab_size, VECTOR)
            .read("targets", targets, rows, 4)
            .read("kl_mask", kl_mask, rows, 4)
            .value(weights.cross_entropy)
            .value(weights.kl)
            .value(vocab_size as i32)
            .value(kept as i32)
            .run(Shape { shared: kept * 2 * VECTOR, ..Shape::line(rows * blocks, LOSS_THREADS) });
    }
}
