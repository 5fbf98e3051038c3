//! The losses of logits, with vocabularies that one block holds and that a cluster shares.

use deepguard::ops::loss::{HeadWeights, Loss};

use super::counting::{count, uncounted};
use super::memory::{buffer, check, holding, random};

const WEIGHTS: HeadWeights = HeadWeights { cross_entropy: 0.5, kl: 0.5 };

#[test]
fn cross_entropy_kl() {
    if uncounted() {
        return;
    }
    const ROWS: usize = 3;
    let cases = [
        (32_000, "cross_entropy_kl"),
        (49_152, "cross_entropy_kl"),
        (50_257, "cross_entropy_kl"),
        (151_936, "cross_entropy_kl_cluster"),
    ];
    for (vocab, kernel) in cases {
        for with_reference in [true, false] {
            let [counters] = count([kernel], |cuda| {
                let (mut z, mut y) = (random(cuda, ROWS * vocab, 4.0), random(cuda, ROWS * vocab, 3.0));
                let (mut nll, mut kl) = (buffer(cuda, ROWS), buffer(cuda, ROWS));
                let (targets, mask) = (holding(cuda, &[7i32; ROWS]), holding(cuda, &[1f32; ROWS]));
                let (nll, kl, z) = (nll.view_mut(), kl.view_mut(), z.view_mut());
                let y = with_reference.then(|| y.view_mut());
                cuda.cross_entropy_kl(nll, kl, z, y, targets.view(), mask.view(), WEIGHTS);
            });
            // z is read and written, y read; two losses, a target and a mask for each row.
            let passes = if with_reference { 3 } else { 2 };
            check(&format!("{kernel} {vocab}, {passes} passes"), &counters, ROWS * (passes * 2 * vocab + 16));
        }
    }
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
        cuda.cross_entropy_kl(nll, kl, z, None, targets.view(), mask.view(), WEIGHTS);
    });
    check("rows without a loss", &counters, ROWS * (2 * vocab + 12));
}
