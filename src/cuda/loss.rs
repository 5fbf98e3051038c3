//! Cross-entropy and KL with their gradient, as written in `ops/loss.rs`. Computed in f32, rounded once. y
//! stays as it is.

use half::bf16;

use super::Cuda;
use super::launch::{Launch, Shape, VECTOR};
use super::tile::{LOSS_CLUSTER, LOSS_SUMS, LOSS_THREADS};
use crate::ops::loss::{HeadWeights, Loss, check};
use crate::ops::{Mut, Ref};

/// Shared memory besides the logits.
const SUMS: usize = 1024;

/// Blocks that share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Team {
    /// One block.
    Block,
    /// A cluster of blocks.
    Cluster,
    /// A persistent group of so many blocks, which takes one row after another.
    Group(usize),
}

/// How rows of some length are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    team: Team,
    /// Vectors of a row of z, and as many of y, that each block keeps in shared memory.
    kept: usize,
}

impl Plan {
    /// One block for rows that fit its shared memory, for longer ones as many as it takes, of which the
    /// device holds at most `most`. Vectors that do not fit even those are read again.
    fn new(vocab_size: usize, matrices: usize, shared_memory: usize, clusters: bool, most: usize) -> Self {
        let room = (shared_memory - SUMS) / (matrices * VECTOR);
        // A row may begin and end within a vector.
        let needed = vocab_size.div_ceil(VECTOR / size_of::<bf16>()) + 1;
        let (team, blocks) = match needed.div_ceil(room) {
            1 => (Team::Block, 1),
            2..=LOSS_CLUSTER if clusters => (Team::Cluster, LOSS_CLUSTER),
            blocks => (Team::Group(blocks.min(most)), blocks.min(most)),
        };
        Plan { team, kept: room.min(needed.div_ceil(blocks)) }
    }
}

impl Cuda {
    fn loss_plan(&self, vocab_size: usize, matrices: usize) -> Plan {
        let info = self.info();
        let most = info.multiprocessors as usize;
        Plan::new(vocab_size, matrices, info.shared_memory, info.capability == 90, most)
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
        w_ce: Ref<'_, Self, f32>,
        w_kl: Ref<'_, Self, f32>,
        weights: HeadWeights,
    ) {
        let rows = targets.len();
        let lengths = [nll.len(), kl.len(), z.len(), w_ce.len(), w_kl.len()];
        if rows == 0 || self.keep(check(rows, lengths, y.as_ref().map(Mut::len))).is_none() {
            return;
        }
        let vocab_size = z.len() / rows;
        let matrices = 1 + usize::from(y.is_some());
        let Plan { team, kept } = self.loss_plan(vocab_size, matrices);
        let start = |kernel| -> Launch<'_> {
            self.launch(kernel)
                .write("nll", &nll, rows, 4)
                .write("kl", &kl, rows, 4)
                .write("z", &z, rows * vocab_size, VECTOR)
                .read_optional("y", y.as_ref().map(Mut::view), rows * vocab_size, VECTOR)
                .read("targets", targets, rows, 4)
                .read("w_ce", w_ce, rows, 4)
                .read("w_kl", w_kl, rows, 4)
                .refusal()
        };
        let (width, vectors) = (vocab_size as i32, kept as i32);
        let shape = |blocks| Shape { shared: kept * matrices * VECTOR, ..Shape::line(blocks, LOSS_THREADS) };
        let one_row = |kernel, blocks| {
            let launch = start(kernel).value(weights.cross_entropy).value(weights.kl);
            launch.value(width).value(vectors).run(shape(rows * blocks));
        };
        match team {
            Team::Block => one_row("cross_entropy_kl", 1),
            Team::Cluster => one_row("cross_entropy_kl_cluster", LOSS_CLUSTER),
            Team::Group(blocks) => {
                // Occupancy is one block to a multiprocessor: a block takes all its registers.
                let groups = rows.min(self.info().multiprocessors as usize / blocks);
                let (mut scratch, mut counters) = (self.scratch(), self.counters());
                let len = groups * 2 * blocks * LOSS_SUMS;
                let Some(sums) = scratch.take::<f32>(self, len) else { return };
                let Some(arrivals) = counters.take(self, groups) else { return };
                start("cross_entropy_kl_group")
                    .write("sums", &sums, len, VECTOR)
                    .write("arrivals", &arrivals, groups, 4)
                    .value(weights.cross_entropy)
                    .value(weights.kl)
                    .int("rows", rows)
                    .value(width)
                    .value(vectors)
                    .int("blocks", blocks)
                    .cooperative()
                    .run(shape(groups * blocks));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Team};

    /// Shared memory of a block in KiB, and multiprocessors.
    fn team(vocab_size: usize, matrices: usize, (shared, most): (usize, usize), clusters: bool) -> Team {
        Plan::new(vocab_size, matrices, shared << 10, clusters, most).team
    }

    #[test]
    fn as_many_blocks_as_a_row_takes() {
        let (a100, ada) = ((163, 108), (99, 128));
        assert_eq!(team(32_000, 2, a100, false), Team::Block);
        assert_eq!(team(49_152, 2, a100, false), Team::Group(2));
        assert_eq!(team(151_936, 2, a100, false), Team::Group(4));
        assert_eq!(team(151_936, 1, a100, false), Team::Group(2));
        assert_eq!(team(151_936, 2, ada, false), Team::Group(7));
        assert_eq!(team(151_936, 2, (227, 132), true), Team::Cluster);
        assert_eq!(team(262_144, 2, (227, 132), true), Team::Group(5));
    }

    /// Vectors that no device can hold are read again, and no others.
    #[test]
    fn a_group_is_no_larger_than_the_device() {
        let plan = Plan::new(1 << 20, 2, 99 << 10, false, 14);
        assert_eq!(plan.team, Team::Group(14));
        assert!(plan.kept * 2 * 16 <= 98 << 10);
    }
}
