//! Prefixes at the width of Qwen2.5-Coder-7B: keys and values of 4 heads of 128.

use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::prefix::Prefix;

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, random};

const ROWS: usize = 5;
const LAYERS: usize = 3;
const KV: usize = 2 * 4 * 128;
const QKV: usize = 28 * 128 + KV;

/// What a layer has of its prefix, and the rows of a sequence that stand for it.
#[test]
fn placed_and_back() {
    if uncounted() {
        return;
    }
    let [place, backward] = count(["place_prefix", "prefix_backward"], |cuda| {
        let (prefix, mut qkv) = (random(cuda, ROWS * LAYERS * KV, 1.0), random(cuda, ROWS * QKV, 1.0));
        let mut gradient = buffer(cuda, ROWS * LAYERS * KV);
        let from = Matrix::new(prefix.view(), ROWS, LAYERS * KV).columns(KV, KV);
        let kv = MatrixMut::new(qkv.view_mut(), ROWS, QKV).columns(QKV - KV, KV);
        cuda.place_prefix(kv, from, None);
        let to = MatrixMut::new(gradient.view_mut(), ROWS, LAYERS * KV).columns(KV, KV);
        let dkv = MatrixMut::new(qkv.view_mut(), ROWS, QKV).columns(QKV - KV, KV);
        cuda.prefix_backward(to, dkv, None);
    });
    let n = ROWS * KV;
    check("place_prefix", &place, 4 * n);
    check("prefix_backward", &backward, 12 * n);
    // Four of bf16 at a time, beside as many of f32.
    narrow("place_prefix", &place, 2 * n / 4);
    narrow("prefix_backward", &backward, 2 * n / 4);
}
