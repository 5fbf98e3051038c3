//! The losses of logits, with vocabularies that one block holds and that several share.

use deepguard::cuda::tile::LOSS_THREADS;
use deepguard::ops::loss::{HeadWeights, Loss};

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, holding, random};
use crate::emulator::{again_on_an_a100, cuda};

const WEIGHTS: HeadWeights = HeadWeights { cross_entropy: 0.5, kl: 0.5 };

/// Blocks that share rows of so many logits (of z, and of y if there is one): a block if it can keep them,
/// else several.
fn kernel(logits: usize) -> &'static str {
    let (one_block, several) = match cuda().info().capability {
        90 => (115_000, "cross_entropy_kl_cluster"),
        _ => (82_000, "cross_entropy_kl_group"),
    };
    if logits <= one_block { "cross_entropy_kl" } else { several }
}

/// Elements of a row that are in no whole vector of 16 bytes.
fn elements_at_ends(start: usize, len: usize) -> usize {
    start.next_multiple_of(8) - start + (start + len) % 8
}

#[test]
fn cross_entropy_kl() {
    if uncounted() {
        return;
    }
    const ROWS: usize = 3;
    for vocab in [32_000, 49_152, 50_257, 151_936] {
        for matrices in [2, 1] {
            let kernel = kernel(matrices * vocab);
            let [counters] = count([kernel], |cuda| {
                let (mut z, mut y) = (random(cuda, ROWS * vocab, 4.0), random(cuda, ROWS * vocab, 3.0));
                let (mut nll, mut kl) = (buffer(cuda, ROWS), buffer(cuda, ROWS));
                let (targets, mask) = (holding(cuda, &[7i32; ROWS]), holding(cuda, &[1f32; ROWS]));
                let (nll, kl, z) = (nll.view_mut(), kl.view_mut(), z.view_mut());
                let y = (matrices == 2).then(|| y.view_mut());
                let ones = mask.view();
                cuda.cross_entropy_kl(nll, kl, z, y, targets.view(), ones, ones, WEIGHTS);
            });
            // z is read and written, y read; two losses, a target and two weights for each row.
            let passes = matrices + 1;
            let what = format!("{kernel} {vocab}, {passes} passes");
            check(&what, &counters, ROWS * (passes * 2 * vocab + 20));
            // Each thread reads a row's target and its weight, and with y that of the KL divergence; then
            // there are two losses, the target's logit, and ends of rows. Blocks of a group spin for an
            // unknown time.
            if kernel != "cross_entropy_kl_group" {
                let of_threads = (matrices + 1) * LOSS_THREADS * counters.blocks as usize;
                let ends: usize = (0..ROWS).map(|row| elements_at_ends(row * vocab, vocab)).sum();
                narrow(&what, &counters, of_threads + 3 * ROWS + passes * ends);
            }
        }
    }
}

#[test]
fn on_an_a100() {
    again_on_an_a100("budgets::loss");
}

/// Rows without a loss are not read.
#[test]
fn rows_without_a_loss() {
    if uncounted() {
        return;
    }
    const ROWS: usize = 3;
    let vocab = 32_000;
    let [counters] = count(["cross_entropy_kl"], |cuda| {
        let mut z = random(cuda, ROWS * vocab, 4.0);
        let (mut nll, mut kl) = (buffer(cuda, ROWS), buffer(cuda, ROWS));
        let (targets, mask) = (holding(cuda, &[-1i32; ROWS]), holding(cuda, &[1f32; ROWS]));
        let (nll, kl, z) = (nll.view_mut(), kl.view_mut(), z.view_mut());
        cuda.cross_entropy_kl(nll, kl, z, None, targets.view(), mask.view(), mask.view(), WEIGHTS);
    });
    check("rows without a loss", &counters, ROWS * (2 * vocab + 12));
    narrow("rows without a loss", &counters, ROWS * (LOSS_THREADS + 2));
}
