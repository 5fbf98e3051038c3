//! The analyzer's element-wise parts, at its widths.

use deepguard::ops::analyzer::{Analyzer, LayerNormBackward};
use deepguard::ops::{Dropout, DropoutKey};

use super::counting::{count, global_bytes, uncounted, within};
use super::memory::{buffer, check, holding, random};

/// Rows of a step: tokens of a few pairs.
const ROWS: usize = 1024;

#[test]
fn layer_norm_relu() {
    if uncounted() {
        return;
    }
    let width = 512;
    let [counters] = count(["layer_norm_relu"], |cuda| {
        let (mut z, mut h, mut stats) =
            (random(cuda, ROWS * width, 1.0), buffer(cuda, ROWS * width), buffer(cuda, 2 * ROWS));
        let (bias, gamma, beta) = (buffer(cuda, width), buffer(cuda, width), buffer(cuda, width));
        let keys = holding(cuda, &[3u32; ROWS]);
        let dropout = DropoutKey::new(0.1, 1, 2, 3).map(|key| Dropout { key, row_keys: keys.view() });
        let (h, z, stats) = (h.view_mut(), z.view_mut(), stats.view_mut());
        cuda.layer_norm_relu(h, z, stats, bias.view(), gamma.view(), beta.view(), dropout);
    });
    check("layer_norm_relu", &counters, ROWS * (6 * width + 12) + 10 * width);
}

#[test]
fn layer_norm_relu_backward() {
    if uncounted() {
        return;
    }
    let width = 512;
    let [rows, sums] = count(["layer_norm_relu_backward", "add_partials"], |cuda| {
        let (z, dh, mut dz) =
            (random(cuda, ROWS * width, 1.0), random(cuda, ROWS * width, 1.0), buffer(cuda, ROWS * width));
        let (gamma, beta) = (buffer(cuda, width), buffer(cuda, width));
        let (mut dgamma, mut dbeta) = (buffer(cuda, width), buffer(cuda, width));
        let (stats, row_weight) = (buffer(cuda, 2 * ROWS), buffer(cuda, ROWS));
        cuda.layer_norm_relu_backward(LayerNormBackward {
            dz: dz.view_mut(),
            dgamma_acc: dgamma.view_mut(),
            dbeta_acc: dbeta.view_mut(),
            dh: dh.view(),
            z: z.view(),
            stats: stats.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            row_weight: row_weight.view(),
            dropout: None,
        });
    });
    let bytes = ROWS * (6 * width + 12) + 8 * width;
    check("layer_norm_relu_backward", &rows, bytes);
    // The parameters' gradients are read and written.
    let together = global_bytes(&rows) + global_bytes(&sums);
    within("layer_norm_relu_backward with its sums: global memory", together, bytes + 16 * width, 1.05);
}

#[test]
fn bias_relu() {
    if uncounted() {
        return;
    }
    let width = 256;
    let [forward] = count(["bias_relu"], |cuda| {
        let (mut h, bias) = (random(cuda, ROWS * width, 1.0), buffer(cuda, width));
        cuda.bias_relu(h.view_mut(), bias.view());
    });
    check("bias_relu", &forward, ROWS * 4 * width + 4 * width);
}

#[test]
fn score_and_backward() {
    if uncounted() {
        return;
    }
    let width = 128;
    let [forward, backward] = count(["score", "score_backward"], |cuda| {
        let (h, mut dh) = (random(cuda, ROWS * width, 1.0), buffer(cuda, ROWS * width));
        let (w, b, mut dw, mut db) =
            (buffer(cuda, width), buffer(cuda, 1), buffer(cuda, width), buffer(cuda, 1));
        let (mut scores, row_weight) = (buffer(cuda, ROWS), buffer(cuda, ROWS));
        cuda.score(scores.view_mut(), h.view(), w.view(), b.view());
        let (dh, dw, db) = (dh.view_mut(), dw.view_mut(), db.view_mut());
        cuda.score_backward(dh, dw, db, scores.view(), h.view(), w.view(), row_weight.view());
    });
    check("score", &forward, ROWS * (2 * width + 4) + 4 * width);
    check("score_backward", &backward, ROWS * (4 * width + 8) + 4 * width);
}
