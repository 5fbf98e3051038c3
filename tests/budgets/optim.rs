//! AdamW, the gradient norm and exact sums.

use deepguard::cuda::tile::SUM_CHUNK;
use deepguard::ops::optim::{AdamW, Optim};

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check};

#[test]
fn updates() {
    if uncounted() {
        return;
    }
    let n = 1_000_003;
    let step =
        AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, grad_scale: 1.0, t: 1 };
    let [adamw, squares] = count(["adamw", "sum_of_squares"], |cuda| {
        let (mut params, mut m, mut v) = (buffer(cuda, n), buffer(cuda, n), buffer(cuda, n));
        let grads = buffer(cuda, n);
        cuda.adamw(params.view_mut(), m.view_mut(), v.view_mut(), grads.view(), step);
        cuda.sum_of_squares(buffer(cuda, 1).view_mut(), grads.view());
    });
    check("adamw", &adamw, n * 28);
    check("sum_of_squares", &squares, n * 4);
    // The remainder of n by four; a sum of each block.
    narrow("adamw", &adamw, n % 4 * 8);
    narrow("sum_of_squares", &squares, n % 4 + n.div_ceil(SUM_CHUNK));
}

#[test]
fn exact_sums() {
    if uncounted() {
        return;
    }
    let n = 300_001;
    let [add, take] = count(["exact_add", "exact_take"], |cuda| {
        let (mut sums, mut grads) = (buffer(cuda, n + 1), buffer(cuda, n));
        cuda.exact_add(sums.view_mut(), grads.view_mut(), 1);
        cuda.exact_take(grads.view_mut(), sums.view());
    });
    check("exact_add", &add, n * 24);
    check("exact_take", &take, n * 12);
    // Gradients, two at a time; the sum and the gradient of the last, and how many were left out.
    narrow("exact_add", &add, n / 2 * 2 + 4);
    narrow("exact_take", &take, n / 2 + 3);
    assert_eq!(
        (add.global_atomics, take.global_atomics),
        (0, 0),
        "nothing is left out, so nothing is counted"
    );
}
