//! What operations refuse: whatever they are given, nothing is read or written out of bounds, and `finish`
//! tells.

use deepguard::ops::aggregate::{TapGradient, TapShape};
use deepguard::ops::analyzer::LayerNormBackward;
use deepguard::ops::attention::{CachedKv, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::linear::{LoraBackward, LoraDown, LoraTerm, Write};
use deepguard::ops::loss::HeadWeights;
use deepguard::ops::matmul::{BiasGradient, Transpose, WeightGradient};
use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::rope::CacheRows;
use deepguard::ops::sample::{Adjustment, Sampling};
use deepguard::ops::{Backend, Dropout, DropoutKey, Ref};
use safetensors::Dtype;

use super::bench::{Bench, Tensor};

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
    let mut decode = |filled: &[u32], prompt_k, prompt_v, sample_v, expected: &str| {
        let filled = bench.integers(filled);
        let cache = CachedKv { prompt_k, prompt_v, sample_k: own.view(), sample_v, filled: filled.view() };
        backend.attention_decode(o.view_mut(), Matrix::new(q.view(), samples, 16), &cache, heads);
        refused(backend, expected);
    };
    let (p, own) = (of_prompt.view(), own.view());
    for filled in [0, 5, 1 << 20, u32::MAX] {
        let expected =
            format!("attention_decode: filled: expected 1 to 4, the rows of a sample, found {filled}");
        decode(&[filled], p, p, own, &expected);
    }
    decode(&[2, 2], p, p, own, "attention_decode: filled: expected 1 elements, found 2");
    decode(&[2], p, p.slice(0..16), own, "attention_decode: prompt_v: expected 24 elements, found 16");
    decode(&[2], p, p, own.slice(0..32), "attention_decode: sample_v: expected 64 elements, found 32");
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
    let mut fill = |filled: &[u32], step, short: usize, expected: &str| {
        let filled = bench.integers(filled);
        let filled = (!filled.is_empty()).then(|| filled.view());
        let to = CacheRows { k: k.view_mut(), v: v.buffer.first_mut(5 * 8 - short), filled, step };
        let (positions, frequencies) = (positions.first(3), frequencies.view());
        backend.rope_into_cache(qkv.view_mut(), to, positions, frequencies, heads);
        refused(backend, expected);
    };
    fill(&[1], 2, 0, "rope_into_cache: k: expected 48 elements, found 40");
    fill(&[], 2, 8, "rope_into_cache: v: expected 40 elements, found 32");
    fill(&[], usize::MAX, 0, "rope_into_cache: to: 3 rows, 18446744073709551615 apart, are in no cache");
    fill(&[1, 1], 1, 0, "rope_into_cache: filled: expected 1 elements, found 2");
    for filled in [0, 2, u32::MAX] {
        let expected =
            format!("rope_into_cache: filled: expected 1 to 1, the rows of a sample, found {filled}");
        fill(&[filled], 1, 0, &expected);
    }
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
        backend.cross_entropy_kl(nll, kl, z, None, targets.view(), mask.view(), mask.view(), weights);
        let expected = format!("cross_entropy_kl: targets[2]: expected less than 10, found {target}");
        refused(backend, &expected);
    }
    let targets = bench.integers(&[1i32; 3]);
    let short = nll.buffer.first_mut(2);
    backend.cross_entropy_kl(
        short,
        kl.view_mut(),
        z.view_mut(),
        None,
        targets.view(),
        mask.view(),
        mask.view(),
        weights,
    );
    refused(backend, "cross_entropy_kl: nll: expected 3 elements, found 2");
    let sampling = Sampling::new(1.0, 1.0, 0, 1);
    let (stats, strength) = (bench.f32(width, 1.0), bench.f32(rows, 1.0));
    for (logits_len, strength_len) in [(29, 3), (30, 2)] {
        let (logits, strength) = (z.buffer.first_mut(logits_len), strength.buffer.first(strength_len));
        backend.guide(logits, stats.view(), strength, 0.0);
        refused(backend, "guide: logits: expected");
    }
    let (mut marks, last) = (bench.integers(&[0u8; 30]), bench.integers(&[0u32; 4]));
    let adjustment = Adjustment { repetition_penalty: 1.1, first: true };
    for (logits, marks_len, rows, expected) in [
        (29, 29, 3, "adjust: logits: expected 3 rows of one width, found 29"),
        (2, 2, 3, "adjust: logits: expected 3 rows of one width, found 2"),
        (0, 0, 3, "adjust: logits: expected 3 rows of one width, found 0"),
        (30, 29, 3, "adjust: marks: expected 30 elements, found 29"),
    ] {
        let (logits, marks) = (z.buffer.first_mut(logits), marks.first_mut(marks_len));
        backend.adjust(logits, marks, last.first(rows), adjustment);
        refused(backend, expected);
    }
    let mut tokens = bench.integers(&[0u32; 4]);
    let numbers = bench.integers(&[0u32; 4]);
    let mut positions = bench.integers(&[0u32; 4]);
    for logits in [z.view(), z.view().slice(0..0)] {
        backend.sample(tokens.view_mut(), None, positions.view_mut(), logits, numbers.view(), sampling);
        refused(backend, "sample: logits: expected 4 rows of one width");
    }
    let logits = z.view().slice(0..3);
    backend.sample(tokens.first_mut(3), None, positions.view_mut(), logits, numbers.first(3), sampling);
    refused(backend, "sample: positions: expected 3 elements, found 4");
    backend.sample(tokens.first_mut(3), None, positions.first_mut(3), logits, numbers.view(), sampling);
    refused(backend, "sample: numbers: expected 3 elements, found 4");
    let mut p = bench.f32(4, 1.0);
    let (three, four) = (numbers.first(3), Some(p.buffer.view_mut()));
    backend.sample(tokens.first_mut(3), four, positions.first_mut(3), logits, three, sampling);
    refused(backend, "sample: probabilities: expected 3 elements, found 4");
    for (rows, drafts, probabilities, logits, expected) in [
        (3, 3, 3, 29, "verify: logits: expected 3 rows of one width, found 29"),
        (3, 4, 3, 30, "verify: drafts: expected 3 elements, found 4"),
        (3, 3, 4, 30, "verify: probabilities: expected 3 elements, found 4"),
    ] {
        let (drafts, probabilities) = (numbers.first(drafts), p.buffer.first(probabilities));
        backend.verify(tokens.first_mut(rows), drafts, probabilities, z.view().slice(0..logits), 0.3);
        refused(backend, expected);
    }
}

pub fn layers<B: Backend>(backend: &B) {
    let (rows, inputs, outputs, rank) = (3, 16, 24, 4);
    let mut bench = Bench::new(backend);
    let (weight, _) = bench.weight(&[outputs], inputs, Dtype::BF16);
    let (x, mut y) = (bench.act(rows * inputs, 1.0), bench.act(rows * outputs, 1.0));
    let (bias, a, b) = (bench.f32(outputs, 1.0), bench.act(rank * inputs, 1.0), bench.act(8 * rank, 1.0));
    let mut xa = bench.act(rows * rank, 1.0);

    let short = y.buffer.first_mut(outputs);
    backend.linear(short, x.view(), &weight, None, &[], Write::Overwrite);
    refused(backend, "linear: y: expected 72 elements, found 24");
    backend.linear(y.view_mut(), x.buffer.first(33), &weight, None, &[], Write::Overwrite);
    refused(backend, "linear: x: expected 32 elements, found 33");
    backend.linear(y.view_mut(), x.view(), &weight, Some(bias.buffer.first(7)), &[], Write::Overwrite);
    refused(backend, "linear: bias: expected 24 elements, found 7");
    backend.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Residual(x.view()));
    refused(backend, "linear: residual: expected 72 elements, found 48");
    for (column, out_features, rank, expected) in [
        (17, 8, rank, "linear: lora: expected some of 24 columns, found 8 from 17 on"),
        (usize::MAX - 3, 8, rank, "linear: lora: expected some of 24 columns"),
        (1 << 31, 8, rank, "linear: lora: expected some of 24 columns"),
        (0, 8, 5, "linear: xa: expected 10 elements, found 12"),
        (0, 7, rank, "linear: lora_B: expected 28 elements, found 32"),
        (0, 8, usize::MAX, "linear: xa: expected 0 elements, found 12"),
    ] {
        let term = LoraTerm { xa: xa.view(), b: b.view(), column, out_features, rank };
        backend.linear(y.view_mut(), x.view(), &weight, None, &[term], Write::Overwrite);
        refused(backend, expected);
    }
    let (dx, dy) = (y.buffer.first_mut(40), x.view());
    backend.linear_backward(dx, dy, &weight);
    refused(backend, "linear_backward: dx: expected 32 elements, found 40");

    let mut down = |xa_len, a: Ref<'_, B, B::Act>, rank, expected: &str| {
        let adapter = LoraDown { xa: xa.buffer.first_mut(xa_len), a, dropout: None };
        backend.lora_down(vec![adapter], x.view(), rank, 1.0);
        refused(backend, expected);
    };
    down(12, a.view(), 0, "lora_down: rank: expected 1 or more");
    down(8, a.view(), rank, "lora_down: x: expected 32 elements, found 48");
    down(12, a.view().slice(0..63), rank, "lora_down: x: expected 45 elements, found 48");
    let (mut da, mut db) = (bench.f32(rank * inputs, 1.0), bench.f32(8 * rank, 1.0));
    let dy = bench.act(rows * 8, 1.0);
    let mut backward = |xa: Ref<'_, B, B::Act>, db_len, stride, expected: &str| {
        let (da_acc, db_acc) = (da.view_mut(), db.buffer.first_mut(db_len));
        let dy = Matrix { data: dy.view(), rows, cols: 8, stride };
        let adapter = LoraBackward { da_acc, db_acc, xa, dy, a: a.view(), b: b.view(), dropout: None };
        backend.lora_backward(None, vec![adapter], x.view(), 1.0);
        refused(backend, expected);
    };
    backward(xa.view(), 31, 8, "lora_backward: dB: expected 32 elements, found 31");
    backward(xa.view().slice(0..8), 32, 8, "lora_backward: xa: expected 12 elements, found 8");
    backward(xa.view(), 32, 9, "lora_backward: dy of 3 × 8 with a stride of 9");

    let (mut h, mut gate_up) = (bench.act(rows * 12, 1.0), bench.act(rows * 24 + 8, 1.0));
    let mut gated = |h_len, gate_up_len, wide, kept, expected: &str| {
        let (h, gate_up) = (h.buffer.first_mut(h_len), gate_up.buffer.first_mut(gate_up_len));
        backend.gated(h, gate_up, kept, x.view(), &weight, &[], wide);
        refused(backend, expected);
    };
    gated(24, 72, 12, 0, "gated: h: expected 36 elements, found 24");
    gated(36, 72, 11, 0, "gated: weight: rows: expected 22 elements, found 24");
    gated(36, 72, 12, 4, "gated: kept: expected at most 3 rows, found 4");
    gated(36, 80, 12, 3, "gated: gate_up: expected 72 elements, found 80");
    gated(36, 64, 12, 0, "gated: gate_up: expected 72 elements, found 64");

    let (dy, gate_up) = (bench.act(rows * outputs, 1.0), bench.act(rows * 2 * inputs, 1.0));
    let (mut dgate_up, mut dh) = (bench.act(rows * 2 * inputs, 1.0), bench.act(rows * inputs, 1.0));
    let mut gated_backward = |dgate_up_len, dh_len, wide, expected: &str| {
        let (to, dh) = (dgate_up.buffer.first_mut(dgate_up_len), dh.buffer.first_mut(dh_len));
        backend.gated_backward(to, dh, dy.view(), &weight, gate_up.view(), wide);
        refused(backend, expected);
    };
    gated_backward(96, 47, inputs, "gated_backward: dh: expected 32 elements, found 47");
    gated_backward(96, 32, inputs, "gated_backward: dy: expected 48 elements, found 72");
    gated_backward(94, 48, inputs, "gated_backward: dgate_up: expected 96 elements, found 94");
    gated_backward(96, 48, 17, "gated_backward: weight: columns: expected 17 elements, found 16");
}

pub fn products<B: Backend>(backend: &B) {
    let (m, n, k) = (3, 5, 4);
    let mut bench = Bench::new(backend);
    let (a, b, mut c) = (bench.act(m * k, 1.0), bench.act(n * k, 1.0), bench.act(m * n, 1.0));
    let (a, b) = (Matrix::new(a.view(), m, k), Matrix::new(b.view(), n, k));
    let mut multiply = |a, b, cols, stride, transpose, expected: &str| {
        let c = MatrixMut { data: c.view_mut(), rows: m, cols, stride };
        backend.matmul(c, a, b, transpose, 1.0, 0.0);
        refused(backend, expected);
    };
    let second = Transpose::Second;
    multiply(a, b, n, 4, second, "matmul: c of 3 × 5 with a stride of 4 does not lie in 15 elements");
    multiply(a, b, n, 6, second, "matmul: c of 3 × 5 with a stride of 6 does not lie in 15 elements");
    multiply(a, b, n, usize::MAX, second, "matmul: c of 3 × 5 with a stride of");
    multiply(a, b, 4, 5, second, "matmul: expected matrices that fit each other");
    multiply(a, b, n, n, Transpose::None, "matmul: expected matrices that fit each other");
    multiply(Matrix { rows: m + 1, ..a }, b, n, n, second, "matmul: a of 4 × 4 with a stride of 4");
    multiply(a, Matrix { stride: 3, ..b }, n, n, second, "matmul: b of 5 × 4 with a stride of 3");
    multiply(Matrix { rows: usize::MAX, ..a }, b, n, n, second, "matmul: a of");
    multiply(a, Matrix { rows: 1, stride: 0, ..b }, n, n, second, "matmul: b of 1 × 4 with a stride of 0");

    let (mut dw, bias, weights) = (bench.f32(n * k, 1.0), bench.f32(n, 1.0), bench.f32(m, 1.0));
    let outer = bench.act(n, 1.0);
    backend.affine(MatrixMut::new(c.view_mut(), m, n), a, b, Some(bias.buffer.first(4)), None);
    refused(backend, "affine: bias: expected 5 elements, found 4");
    backend.affine(MatrixMut::new(c.view_mut(), m, n), a, b, None, Some([outer.view(), outer.view()]));
    refused(backend, "affine: x: expected 3 elements, found 5");
    let dy = bench.act(m * n, 1.0);
    let dy = Matrix::new(dy.view(), m, n);
    let weight_gradient = |dw: &mut Tensor<B, f32>, row_weight: usize| {
        let dw_acc = MatrixMut::new(dw.buffer.view_mut(), n, k);
        let row_weight = Some(weights.buffer.first(row_weight));
        backend.weight_gradients(vec![WeightGradient { dw_acc, dy, x: a, row_weight }]);
    };
    weight_gradient(&mut dw, 2);
    refused(backend, "weight_gradients: row_weight: expected 3 elements, found 2");
    for (len, rows, expected) in [
        (4, m, "bias_gradients: dy: expected 3 × 4, found 3 × 5"),
        (n, 2, "bias_gradients: row_weight: expected 3 elements, found 2"),
    ] {
        let (db_acc, row_weight) = (dw.buffer.first_mut(len), weights.buffer.first(rows));
        backend.bias_gradients(vec![BiasGradient { db_acc, dy, row_weight }]);
        refused(backend, expected);
    }
    let db_acc = dw.buffer.first_mut(n);
    let dy = Matrix { rows: 2, ..dy };
    backend.bias_gradients(vec![BiasGradient { db_acc, dy, row_weight: weights.view() }]);
    refused(backend, "bias_gradients: dy: expected 3 × 5, found 2 × 5");
}

pub fn scores<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (rows, width) = (3, 8);
    let (mut dz, z, dh) = (bench.act(24, 1.0), bench.act(24, 1.0), bench.act(24, 1.0));
    let (stats, vector, weight) = (bench.f32(2 * rows, 1.0), bench.f32(width, 1.0), bench.f32(rows, 1.0));
    let (mut first, mut second) = (bench.f32(width + 1, 0.0), bench.f32(width + 1, 0.0));
    for (lengths, wrong) in [([7, 8], "dgamma"), ([9, 8], "dgamma"), ([8, 7], "dbeta"), ([8, 9], "dbeta")] {
        backend.layer_norm_relu_backward(LayerNormBackward {
            dz: dz.view_mut(),
            dgamma_acc: first.buffer.first_mut(lengths[0]),
            dbeta_acc: second.buffer.first_mut(lengths[1]),
            dh: dh.view(),
            z: z.view(),
            stats: stats.view(),
            gamma: vector.view(),
            beta: vector.view(),
            row_weight: weight.view(),
            dropout: None,
        });
        refused(backend, &format!("layer_norm_relu_backward: {wrong}: expected 8 elements, found"));
    }
    for (lengths, wrong) in [([7, 1], "dw"), ([9, 1], "dw"), ([8, 0], "db"), ([8, 2], "db")] {
        backend.score_backward(
            dz.view_mut(),
            first.buffer.first_mut(lengths[0]),
            second.buffer.first_mut(lengths[1]),
            weight.view(),
            dh.view(),
            vector.view(),
            weight.view(),
        );
        refused(backend, &format!("score_backward: {wrong}: expected"));
    }
}

pub fn elements<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (mut y, x, weight) = (bench.act(12, 1.0), bench.act(12, 1.0), bench.f32(12, 1.0));
    for len in [11, 12] {
        backend.add(y.buffer.first_mut(len), x.buffer.first(23 - len));
        refused(backend, "add: y: expected");
        backend.cast(y.buffer.first_mut(len), weight.buffer.first(23 - len));
        refused(backend, "cast: to: expected");
    }
    backend.scale_rows(y.view_mut(), x.view(), weight.buffer.first(5), 1.0);
    refused(backend, "scale_rows: x: expected 10 elements, found 12");
    backend.scale_rows(y.buffer.first_mut(8), x.view(), weight.buffer.first(4), 1.0);
    refused(backend, "scale_rows: y: expected 12 elements, found 8");
}

pub fn sums<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (mut sums, mut x) = (bench.integers(&[0i64; 8]), bench.f32(8, 1.0));
    for (len, addends, expected) in [
        (8, 1, "sums: expected 9 elements, found 8"),
        (6, 1, "sums: expected 7 elements, found 8"),
        (7, 0, "addends: expected 1 to 4294967295, found 0"),
        (7, usize::MAX, "addends: expected 1 to 4294967295, found"),
    ] {
        backend.exact_add(sums.view_mut(), x.buffer.first_mut(len), addends);
        refused(backend, &format!("exact_add: {expected}"));
    }
    backend.exact_take(x.view_mut(), sums.view());
    refused(backend, "exact_take: sums: expected 9 elements, found 8");
}

pub fn prefixes<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (from, mut kv, mut to) = (bench.act(48, 1.0), bench.act(48, 1.0), bench.f32(48, 1.0));
    let keys = bench.integers(&[1u32; 3]);
    let key = DropoutKey::new(0.5, 1, 2, 3).expect("something to drop");
    // Rows, columns and stride of what is read and of what is written, and keys of the rows.
    for ([rows, cols, stride], [to_rows, to_cols, to_stride], row_keys, [place, backward]) in [
        (
            [2, 16, 16],
            [3, 16, 16],
            3,
            ["prefix: expected 3 × 16, found 2 × 16", "dkv: expected 3 × 16, found 2 × 16"],
        ),
        (
            [3, 16, 16],
            [2, 16, 16],
            3,
            ["kv: expected 3 × 16, found 2 × 16", "dprefix: expected 3 × 16, found 2 × 16"],
        ),
        (
            [3, 16, 16],
            [3, 8, 16],
            3,
            ["kv: expected 3 × 16, found 3 × 8", "dprefix: expected 3 × 16, found 3 × 8"],
        ),
        (
            [3, 16, 17],
            [3, 16, 16],
            3,
            ["prefix of 3 × 16 with a stride of 17", "dkv of 3 × 16 with a stride of 17"],
        ),
        (
            [3, 16, 16],
            [3, 16, 15],
            3,
            ["kv of 3 × 16 with a stride of 15", "dprefix of 3 × 16 with a stride of 15"],
        ),
        ([3, 16, 16], [3, 16, 16], 2, ["row_keys: expected 3 elements, found 2"; 2]),
    ] {
        let dropout = Some(Dropout { key, row_keys: keys.first(row_keys) });
        let written = MatrixMut { data: kv.view_mut(), rows: to_rows, cols: to_cols, stride: to_stride };
        backend.place_prefix(written, Matrix { data: from.view(), rows, cols, stride }, dropout);
        refused(backend, &format!("place_prefix: {place}"));
        let written = MatrixMut { data: to.view_mut(), rows: to_rows, cols: to_cols, stride: to_stride };
        backend.prefix_backward(written, MatrixMut { data: kv.view_mut(), rows, cols, stride }, dropout);
        refused(backend, &format!("prefix_backward: {backward}"));
    }
}
