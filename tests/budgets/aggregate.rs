//! The aggregator's passes over four taps, at the widths of Qwen2.5.

use deepguard::cuda::tile::ROW_THREADS;
use deepguard::ops::aggregate::{Aggregate, TapGradient, TapShape};

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, random};

#[test]
fn taps() {
    if uncounted() {
        return;
    }
    for hidden_size in [896, 3584] {
        let shape = TapShape { taps: 4, rows: 64, hidden_size };
        let (n, scores) = (shape.rows * hidden_size, shape.rows * shape.taps);
        let kernels = ["tap_mean", "aggregate", "aggregate_backward", "tap_gradient"];
        let [mean, forward, backward, gradient] = count(kernels, |cuda| {
            let (taps, u) = (random(cuda, shape.taps * n, 1.0), random(cuda, n, 1.0));
            let (mut out, mut dtaps) = (buffer(cuda, n), buffer(cuda, shape.taps * n));
            let (mut weights, mut dscores) = (buffer(cuda, scores), buffer(cuda, scores));
            let row_weight = buffer(cuda, shape.rows);
            cuda.tap_mean(out.view_mut(), taps.view(), shape);
            cuda.aggregate(out.view_mut(), weights.view_mut(), taps.view(), u.view(), shape);
            let (du, ds) = (out.view_mut(), dscores.view_mut());
            cuda.aggregate_backward(du, ds, u.view(), taps.view(), weights.view(), shape);
            let args = TapGradient {
                dcontext: u.view(),
                u: u.view(),
                dmean: u.view(),
                weights: weights.view(),
                dscores: dscores.view(),
                row_weight: row_weight.view(),
            };
            cuda.tap_gradient(dtaps.view_mut(), shape.rows, args, shape);
        });
        let check = |what: &str, counters, bytes| check(&format!("{what} {hidden_size}"), counters, bytes);
        check("tap_mean", &mean, 2 * n * (shape.taps + 1));
        check("aggregate", &forward, 2 * n * (shape.taps + 2) + 4 * scores);
        check("aggregate_backward", &backward, 2 * n * (shape.taps + 2) + 8 * scores);
        // g, u and dmean are the same here, but read three times.
        check("tap_gradient", &gradient, 2 * n * (shape.taps + 3) + 8 * scores + 4 * shape.rows);
        // Scores of a row, which each warp reads; a row's weight, which each thread does.
        let threads = shape.rows * (hidden_size / 8).next_multiple_of(32).min(ROW_THREADS);
        let scores_of_warps = threads / 32 * shape.taps;
        narrow("tap_mean", &mean, 0);
        narrow("aggregate", &forward, scores);
        narrow("aggregate_backward", &backward, scores + scores_of_warps);
        narrow("tap_gradient", &gradient, 2 * scores_of_warps + threads);
    }
}
