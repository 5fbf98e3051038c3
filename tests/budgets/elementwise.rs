//! Element-wise operations at the widths of Qwen2.5.

use deepguard::cuda::tile::ROW_THREADS;
use deepguard::ops::elementwise::Elementwise;

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, random};

/// The gradient of an average of taps.
#[test]
fn scaled_rows() {
    if uncounted() {
        return;
    }
    for width in [896, 3584] {
        let (rows, n) = (64, 64 * width);
        let [scale] = count(["scale_rows"], |cuda| {
            let (mut y, x, row_weight) = (buffer(cuda, n), random(cuda, n, 1.0), buffer(cuda, rows));
            cuda.scale_rows(y.view_mut(), x.view(), row_weight.view(), 2.0);
        });
        check(&format!("scale_rows {width}"), &scale, 4 * n + 4 * rows);
        // A row's weight, which each thread reads.
        narrow("scale_rows", &scale, rows * (width / 8).next_multiple_of(32).min(ROW_THREADS));
    }
}

/// The gradient of a tap, added to that of a layer's output.
#[test]
fn sums() {
    if uncounted() {
        return;
    }
    let n = 300 * 896;
    let [add] = count(["add_rows"], |cuda| {
        let (mut y, x) = (random(cuda, n, 1.0), random(cuda, n, 1.0));
        cuda.add(y.view_mut(), x.view());
    });
    check("add_rows", &add, 6 * n);
    narrow("add_rows", &add, 0);
}

/// The operands of master parameters.
#[test]
fn casts() {
    if uncounted() {
        return;
    }
    let n = 1_000_003;
    let [cast] = count(["cast"], |cuda| {
        let (mut to, from) = (buffer(cuda, n), buffer(cuda, n));
        cuda.cast(to.view_mut(), from.view());
    });
    check("cast", &cast, n * 6);
    // A quarter of n leaves some elements; the others are stored as four of bf16.
    narrow("cast", &cast, n % 4 * 2 + n / 4);
}
