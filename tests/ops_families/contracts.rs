//! What operations refuse: whatever they are given, nothing is read or written out of bounds, and `finish` tells.

use deepguard::ops::Backend;
use deepguard::ops::aggregate::{TapGradient, TapShape};
use deepguard::ops::attention::{CachedKv, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::gemm::{Matrix, MatrixMut};
use deepguard::ops::loss::HeadWeights;
use deepguard::ops::rope::CacheRows;
use deepguard::ops::sample::Sampling;
use safetensors::Dtype;

use super::bench::Bench;

/// The error of what was done last, which begins like this; then there is none left.
fn refused<B: Backend>(backend: &B, expected: &str) {
    let error = backend.finish().expect_err(expected).to_string();
    assert!(error.starts_with(expected), "expected {expected}, found {error}");
    Bench::new(backend).finish();
}

pub fn ids<B: Backend>(backend: &B) {
    let (vocab, width) = (11, 24);
    for id in [11, 1 << 24, u32::MAX] {
        let mut bench = Bench::new(backend);
        let ids = bench.integers(&[1, id, 3]);
        let (weight, _) = bench.weight(&[vocab], width, Dtype::BF16);
        let (mut out, row_weight) = (bench.act_out(3 * width), bench.f32(3, 1.0));
        let mut table = bench.f32(vocab * width, 1.0);
        backend.embed(out.view_mut(), &weight, ids.view());
        refused(backend, &format!("embed: ids[1]: expected less than 11, found {id}"));
        backend.gather(out.view_mut(), table.view(), ids.view(), width);
        refused(backend, &format!("gather: ids[1]: expected less than 11, found {id}"));
        let d = bench.act(3 * width, 1.0);
        for width in [width, 12, 7] {
            let expected = vocab * 24 / width;
            let id = id.max(expected as u32);
            let ids = bench.integers(&[1, id, 3]);
            backend.scatter_add(table.view_mut(), d.view(), ids.view(), row_weight.view(), width);
            refused(backend, &format!("scatter_add: ids[1]: expected less than {expected}, found {id}"));
        }
    }
}

/// Attention, forward, on buffers for 9 rows of these heads.
fn attend<B: Backend>(backend: &B, segments: &[Segment], heads: Heads) {
    let mut bench = Bench::new(backend);
    let qkv = bench.act(9 * 24, 1.0);
    let (mut o, mut lse) = (bench.act(9 * 16, 1.0), bench.f32(9 * 2, 1.0));
    backend.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), heads), segments, heads);
}

fn segment(start: u32, len: u32, prefix_start: u32, prefix_len: u32) -> Segment {
    Segment { start, len, prefix_start, prefix_len }
}

const HEADS: Heads = Heads { query: 2, key_value: 1, dim: 6 };

pub fn heads<B: Backend>(backend: &B) {
    let own = [segment(0, 2, 0, 0)];
    for (query, key_value, dim) in
        [(0, 1, 8), (1, 0, 8), (1, 1, 0), (0, 0, 0), (3, 2, 8), (1 << 40, 1 << 40, 8)]
    {
        let heads = Heads { query, key_value, dim };
        attend(backend, &own, heads);
        refused(backend, "attention: heads: expected query heads in groups");
        let mut bench = Bench::new(backend);
        let (mut qkv, frequencies) = (bench.act(9 * 24, 1.0), bench.f32(4, 1.0));
        let positions = bench.integers(&[0u32; 9]);
        backend.rope(qkv.view_mut(), positions.view(), frequencies.view(), heads);
        refused(backend, "rope: heads: expected query heads in groups");
    }
}

pub fn segments<B: Backend>(backend: &B) {
    let heads = Heads { dim: 8, ..HEADS };
    let rows = 9 * 24 / heads.qkv_width() as u32;
    let cases = [
        (vec![segment(rows - 1, 2, 0, 0)], "attention: q: expected 7 × 16, found 6 × 16"),
        (vec![segment(u32::MAX, 2, 0, 0)], "attention: q: expected 4294967297 × 16"),
        (vec![segment(0, 1, rows, 1)], "attention: k: expected 7 × 8, found 6 × 8"),
        (vec![segment(0, 1, u32::MAX, u32::MAX)], "attention: k: expected 8589934590 × 8"),
        (vec![segment(0, 3, 0, 0), segment(2, 1, 0, 0)], "attention: segments: "),
        (vec![segment(2, 2, 0, 0), segment(0, 0, 0, 0), segment(3, 1, 0, 0)], "attention: segments: "),
    ];
    for (segments, expected) in cases {
        attend(backend, &segments, heads);
        refused(backend, expected);
    }
}

/// Matrices that leave their memory, or that share elements between rows.
pub fn matrices<B: Backend>(backend: &B) {
    let heads = Heads { query: 1, key_value: 1, dim: 8 };
    let mut bench = Bench::new(backend);
    let data = bench.act(64, 1.0);
    let (mut o, mut lse, mut d) = (bench.act(64, 1.0), bench.f32(8, 1.0), bench.act(64, 1.0));
    let matrix = |rows, cols, stride| Matrix { data: data.view(), rows, cols, stride };
    for (rows, cols, stride, expected) in [
        (8, 8, 16, "q of 8 × 8 with a stride of 16 does not lie in 64 elements"),
        (8, 8, 4, "q of 8 × 8 with a stride of 4 does not lie in 64 elements"),
        (8, 8, usize::MAX, "q of 8 × 8 with a stride of"),
        (8, 4, 8, "q: expected 8 × 8, found 8 × 4"),
        (7, 8, 8, "q: expected 8 × 8, found 7 × 8"),
    ] {
        let good = matrix(8, 8, 8);
        let qkv = Qkv { q: matrix(rows, cols, stride), k: good, v: good };
        let segments = [segment(0, 8, 0, 0)];
        backend.attention(o.view_mut(), lse.view_mut(), qkv, &segments, heads);
        refused(backend, &format!("attention: {expected}"));
        let bad = MatrixMut { data: d.view_mut(), rows, cols, stride };
        let (mut dk, mut dv) = (bench.act(64, 1.0), bench.act(64, 1.0));
        let to = QkvMut::new(bad, MatrixMut::new(dk.view_mut(), 8, 8), MatrixMut::new(dv.view_mut(), 8, 8));
        let qkv = Qkv { q: good, k: good, v: good };
        backend.attention_backward(to, data.view(), data.view(), lse.view(), qkv, &segments, heads);
        refused(backend, &format!("attention_backward: d{expected}"));
    }
    let good = matrix(8, 8, 8);
    let qkv = Qkv { q: good, k: good, v: good };
    let (segments, short) = ([segment(0, 8, 0, 0)], lse.buffer.len() - 1);
    backend.attention(o.view_mut(), lse.buffer.first_mut(short), qkv, &segments, heads);
    refused(backend, "attention: lse: expected 8 elements, found 7");
    backend.attention(o.buffer.first_mut(63), lse.view_mut(), qkv, &segments, heads);
    refused(backend, "attention: o: expected 64 elements, found 63");
}

pub fn cache<B: Backend>(backend: &B) {
    let heads = Heads { query: 2, key_value: 1, dim: 8 };
    let (samples, capacity, prompt) = (2, 4, 3);
    let mut bench = Bench::new(backend);
    let (q, mut o) = (bench.act(samples * 16, 1.0), bench.act(samples * 16, 1.0));
    let own = bench.act(samples * capacity * 8, 1.0);
    let of_prompt = bench.act(prompt * 8, 1.0);
    let mut decode = |filled, prompt_k, prompt_v, sample_v, expected: &str| {
        let cache = CachedKv { prompt_k, prompt_v, sample_k: own.view(), sample_v, filled };
        backend.attention_decode(o.view_mut(), Matrix::new(q.view(), samples, 16), &cache, heads);
        refused(backend, expected);
    };
    let (p, none, own) = (of_prompt.view(), of_prompt.view().slice(0..0), own.view());
    for filled in [5, 1 << 20, usize::MAX] {
        let expected =
            format!("attention_decode: filled: expected at most the 4 rows of a sample, found {filled}");
        decode(filled, p, p, own, &expected);
    }
    decode(0, none, none, own, "attention_decode: filled: expected a key to attend to");
    decode(2, p, p.slice(0..16), own, "attention_decode: prompt_v: expected 24 elements, found 16");
    decode(2, p, p, own.slice(0..32), "attention_decode: sample_v: expected 64 elements, found 32");
}

pub fn rotations<B: Backend>(backend: &B) {
    let heads = Heads { query: 2, key_value: 1, dim: 8 };
    let (rows, width) = (3, heads.qkv_width());
    let mut bench = Bench::new(backend);
    let (mut qkv, frequencies) = (bench.act(rows * width, 1.0), bench.f32(4, 1.0));
    let positions = bench.integers(&[1u32; 4]);
    backend.rope(qkv.view_mut(), positions.view(), frequencies.view(), heads);
    refused(backend, "rope: qkv: expected 128 elements for 4 positions, found 96");
    backend.rope(qkv.view_mut(), positions.first(3), frequencies.buffer.first(3), heads);
    refused(backend, "rope: inv_freq: expected 4 elements");
    let odd = Heads { dim: 7, ..heads };
    backend.rope_backward(qkv.view_mut(), positions.first(3), frequencies.view(), odd);
    refused(backend, "rope_backward: heads: expected an even number of elements");
    let (mut k, mut v) = (bench.act(5 * 8, 1.0), bench.act(5 * 8, 1.0));
    let mut fill = |first, step, short, expected: &str| {
        let to = CacheRows { k: k.view_mut(), v: v.buffer.first_mut(5 * 8 - short), first, step };
        let (positions, frequencies) = (positions.first(3), frequencies.view());
        backend.rope_into_cache(qkv.view_mut(), to, positions, frequencies, heads);
        refused(backend, expected);
    };
    fill(3, 1, 0, "rope_into_cache: k: expected 48 elements, found 40");
    fill(2, 1, 8, "rope_into_cache: v: expected 40 elements, found 32");
    fill(0, usize::MAX, 0, "rope_into_cache: to: 3 rows from 0");
    fill(usize::MAX, 1, 0, "rope_into_cache: to: 3 rows from");
}

pub fn taps<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (a, mut b) = (bench.act(16, 1.0), bench.act(16, 1.0));
    let (w, mut s) = (bench.f32(16, 1.0), bench.f32(16, 1.0));
    let shape = |taps, rows, hidden_size| TapShape { taps, rows, hidden_size };
    for shape in [shape(0, 2, 8), shape(2, 2, 0), shape(1 << 32, 1 << 31, 8), shape(2, usize::MAX, 8)] {
        backend.tap_mean(b.view_mut(), a.view(), shape);
        refused(backend, "tap_mean: shape: expected taps of some width");
        backend.aggregate(b.view_mut(), s.view_mut(), a.view(), a.view(), shape);
        refused(backend, "aggregate: shape: expected taps of some width");
        backend.aggregate_backward(b.view_mut(), s.view_mut(), a.view(), a.view(), w.view(), shape);
        refused(backend, "aggregate_backward: shape: expected taps of some width");
        let (weights, row_weight) = (w.view(), w.view());
        let (u, dmean, dcontext) = (a.view(), a.view(), a.view());
        let args = TapGradient { weights, dscores: w.view(), dcontext, u, dmean, row_weight };
        backend.tap_gradient(b.view_mut(), shape.rows, args, shape);
        refused(backend, "tap_gradient: shape: expected taps of some width");
    }
}

pub fn logits<B: Backend>(backend: &B) {
    let (rows, width) = (3, 10);
    let mut bench = Bench::new(backend);
    let mut z = bench.act(rows * width, 1.0);
    let (mut nll, mut kl, mask) = (bench.f32(rows, 1.0), bench.f32(rows, 1.0), bench.f32(rows, 1.0));
    let weights = HeadWeights { cross_entropy: 1.0, kl: 0.0 };
    for target in [10, i32::MAX] {
        let targets = bench.integers(&[-1, 9, target]);
        let (nll, kl, z) = (nll.view_mut(), kl.view_mut(), z.view_mut());
        backend.cross_entropy_kl(nll, kl, z, None, targets.view(), mask.view(), weights);
        let expected = format!("cross_entropy_kl: targets[2]: expected less than 10, found {target}");
        refused(backend, &expected);
    }
    let targets = bench.integers(&[1i32; 3]);
    let short = nll.buffer.first_mut(2);
    backend.cross_entropy_kl(short, kl.view_mut(), z.view_mut(), None, targets.view(), mask.view(), weights);
    refused(backend, "cross_entropy_kl: nll: expected 3 elements, found 2");
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 1 };
    let mut tokens = bench.integers(&[0u32; 4]);
    for logits in [z.view(), z.view().slice(0..0)] {
        backend.sample(tokens.view_mut(), logits, sampling, 0);
        refused(backend, "sample: logits: expected 4 rows of one width");
    }
}
