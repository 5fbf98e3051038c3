use deepguard::ops::attention::{CachedKv, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::rope::CacheRows;
use deepguard::ops::{Backend, Buffer};

use super::bench::{Act, Bench, dot, gradient};

const GROUPED: Heads = Heads { query: 6, key_value: 2, dim: 8 };
const WIDE: Heads = Heads { query: 2, key_value: 1, dim: 80 };

fn own(start: u32, len: u32) -> Segment {
    Segment { start, len, prefix_start: 0, prefix_len: 0 }
}

/// A row's query, key or value head.
fn head(qkv: &[f64], row: usize, column: usize, heads: Heads) -> &[f64] {
    &qkv[row * heads.qkv_width() + column..][..heads.dim]
}

/// (o, lse) of one query over keys in the given rows.
fn attend(qkv: &[f64], row: usize, h: usize, keys: &[usize], heads: Heads) -> (Vec<f64>, f64) {
    let kv = h / (heads.query / heads.key_value) * heads.dim;
    let (k, v) = (heads.q_width() + kv, heads.q_width() + heads.kv_width() + kv);
    let q = head(qkv, row, h * heads.dim, heads);
    let scores: Vec<f64> =
        keys.iter().map(|&s| dot(q, head(qkv, s, k, heads)) / (heads.dim as f64).sqrt()).collect();
    let lse = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
    let mut o = vec![0.0; heads.dim];
    for (&s, score) in keys.iter().zip(&scores) {
        o.iter_mut().zip(head(qkv, s, v, heads)).for_each(|(o, v)| *o += (score - lse).exp() * v);
    }
    (o, lse)
}

fn reference(
    qkv: &[f64],
    segments: &[Segment],
    heads: Heads,
    empty: (&[f64], &[f64]),
) -> (Vec<f64>, Vec<f64>) {
    let (mut o, mut lse) = (empty.0.to_vec(), empty.1.to_vec());
    for s in segments {
        for i in 0..s.len {
            let prefix = s.prefix_start..s.prefix_start + s.prefix_len;
            let keys: Vec<usize> = prefix.chain(s.start..=s.start + i).map(|k| k as usize).collect();
            let row = (s.start + i) as usize;
            for h in 0..heads.query {
                let (out, value) = attend(qkv, row, h, &keys, heads);
                o[(row * heads.query + h) * heads.dim..][..heads.dim].copy_from_slice(&out);
                lse[row * heads.query + h] = value;
            }
        }
    }
    (o, lse)
}

fn forward_case<B: Backend>(backend: &B, rows: usize, segments: &[Segment], heads: Heads) {
    let mut bench = Bench::new(backend);
    let qkv = bench.act(rows * heads.qkv_width(), 1.0);
    forward_of(bench, &qkv, rows, segments, heads);
}

fn forward_of<B: Backend>(
    mut bench: Bench<'_, B>,
    qkv: &Act<B>,
    rows: usize,
    segments: &[Segment],
    heads: Heads,
) {
    // Rows of no segment keep what they have.
    let (mut o, mut lse) = (bench.act(rows * heads.q_width(), 1.0), bench.f32(rows * heads.query, 1.0));
    let packed = Qkv::packed(qkv.view(), heads);
    bench.backend.attention(o.view_mut(), lse.view_mut(), packed, segments, heads);
    let (expected, expected_lse) = reference(&qkv.host, segments, heads, (&o.host, &lse.host));
    bench.check("o", &o.buffer, &expected);
    bench.check_f32("lse", &lse.buffer, &expected_lse);
}

/// Sequences shorter and longer than a tile of any size, with and without a prefix of another one, one empty.
pub fn forward<B: Backend>(backend: &B) {
    let suffix = |start, len, prefix_start, prefix_len| Segment { start, len, prefix_start, prefix_len };
    let segments =
        [own(0, 7), own(7, 1), own(8, 150), own(158, 0), suffix(160, 9, 8, 75), suffix(169, 70, 0, 7)];
    forward_case(backend, 240, &segments, GROUPED);
    forward_case(backend, 12, &[own(0, 5), suffix(5, 6, 1, 3)], WIDE);
    forward_case(backend, 67, &[own(1, 66)], Heads { query: 1, key_value: 1, dim: 8 });
    // Several suffixes of one prefix, longer than a tile, in heads of all sizes.
    for dim in [16, 24, 64, 96, 128] {
        let segments = [own(2, 80), suffix(82, 3, 2, 71), suffix(85, 150, 2, 71), suffix(236, 20, 2, 17)];
        forward_case(backend, 258, &segments, Heads { query: 4, key_value: 2, dim });
    }
}

/// What is beside the segments may be anything, and changes nothing.
pub fn surroundings<B: Backend>(backend: &B) {
    let suffix = Segment { start: 78, len: 5, prefix_start: 1, prefix_len: 70 };
    let (rows, segments) = (90, [own(1, 70), suffix]);
    for dim in [24, 72] {
        let heads = Heads { query: 3, key_value: 1, dim };
        let mut bench = Bench::new(backend);
        let mut qkv = bench.act(rows * heads.qkv_width(), 1.0).host;
        for row in [0, 71, 72, 77, 83, 89] {
            qkv[row * heads.qkv_width()..][..heads.qkv_width()].fill(f64::NAN);
        }
        let qkv = bench.act_of(&qkv);
        forward_of(bench, &qkv, rows, &segments, heads);
    }
}

/// More sequences than a launch of a kernel takes.
pub fn many_sequences<B: Backend>(backend: &B) {
    let segments: Vec<Segment> = (0..150).map(|i| own(2 * i, 1 + i % 2)).collect();
    let heads = Heads { query: 2, key_value: 2, dim: 8 };
    forward_case(backend, 300, &segments, heads);
    backward_case(backend, &segments, heads);
}

/// Gradients of `dout · o` by the formulas: with p the softmax, dv = pᵀ do; ds = p ∘ (do vᵀ − do · o); dq =
/// ds k / √d; dk = dsᵀ q / √d.
fn slopes(qkv: &[f64], dout: &[f64], segments: &[Segment], heads: Heads) -> Vec<f64> {
    let (wide, dim, scale) = (heads.qkv_width(), heads.dim, 1.0 / (heads.dim as f64).sqrt());
    let mut d = vec![0.0; qkv.len()];
    let mut add = |row: usize, column: usize, by: f64, values: &[f64]| {
        let to = &mut d[row * wide + column..][..dim];
        to.iter_mut().zip(values).for_each(|(to, x)| *to += by * x);
    };
    for s in segments {
        for (i, h) in (0..s.len).flat_map(|i| (0..heads.query).map(move |h| (i, h))) {
            let (row, keys) = ((s.start + i) as usize, s.start as usize..=(s.start + i) as usize);
            let kv = h / (heads.query / heads.key_value) * dim;
            let (k, v) = (heads.q_width() + kv, heads.q_width() + heads.kv_width() + kv);
            let (o, lse) = attend(qkv, row, h, &keys.clone().collect::<Vec<_>>(), heads);
            let (q, dout) = (head(qkv, row, h * dim, heads), &dout[row * heads.q_width() + h * dim..][..dim]);
            for key in keys {
                let p = (scale * dot(q, head(qkv, key, k, heads)) - lse).exp();
                let ds = p * (dot(dout, head(qkv, key, v, heads)) - dot(dout, &o));
                add(key, v, p, dout);
                add(key, k, scale * ds, q);
                add(row, h * dim, scale * ds, head(qkv, key, k, heads));
            }
        }
    }
    d
}

fn backward_case<B: Backend>(backend: &B, segments: &[Segment], heads: Heads) {
    let rows = segments.iter().map(|s| s.start + s.len).max().unwrap_or(0) as usize;
    let mut bench = Bench::new(backend);
    let (qkv, dout) = (bench.act(rows * heads.qkv_width(), 1.0), bench.act(rows * heads.q_width(), 1.0));
    let empty = (vec![0.0; rows * heads.q_width()], vec![0.0; rows * heads.query]);
    let forward = |qkv: &[f64]| reference(qkv, segments, heads, (&empty.0, &empty.1));
    let (o, lse) = forward(&qkv.host);
    let (o, lse) = (bench.act_of(&o), bench.f32_of(&lse));
    // Rows of no segment keep what they have.
    let mut dqkv = bench.act(qkv.host.len(), 1.0);
    let (d, o, lse) = (QkvMut::packed(dqkv.view_mut(), heads), o.view(), lse.view());
    backend.attention_backward(d, dout.view(), o, lse, Qkv::packed(qkv.view(), heads), segments, heads);
    let mut expected = slopes(&qkv.host, &dout.host, segments, heads);
    if rows < 20 {
        let differences = gradient(&qkv.host, |qkv| dot(&forward(qkv).0, &dout.host));
        let error = |(x, y): (&f64, &f64)| (x - y).abs();
        let worst = expected.iter().zip(&differences).map(error).fold(0.0, f64::max);
        assert!(worst < 1e-7, "the reference is off by {worst}");
    }
    let outside = |row: usize| !segments.iter().any(|s| (s.start..s.start + s.len).contains(&(row as u32)));
    for row in (0..rows).filter(|&row| outside(row)) {
        let row = row * heads.qkv_width()..(row + 1) * heads.qkv_width();
        expected[row.clone()].copy_from_slice(&dqkv.host[row]);
    }
    bench.check("dqkv", &dqkv.buffer, &expected);
}

/// Columns of packed rows in memory of their own, with a stride.
struct Columns<B: Backend> {
    buffer: Buffer<B, B::Act>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<B: Backend> Columns<B> {
    fn of(bench: &Bench<'_, B>, packed: &[f64], wide: usize, first: usize, cols: usize, gap: usize) -> Self {
        let stride = cols + gap;
        let row = |row: &[f64]| [&row[first..first + cols], &vec![f64::NAN; gap]].concat();
        let buffer = bench.act_of(&packed.chunks(wide).flat_map(row).collect::<Vec<_>>()).buffer;
        Columns { buffer, rows: packed.len() / wide, cols, stride }
    }

    fn view(&self) -> Matrix<'_, B, B::Act> {
        Matrix { data: self.buffer.view(), rows: self.rows, cols: self.cols, stride: self.stride }
    }

    fn view_mut(&mut self) -> MatrixMut<'_, B, B::Act> {
        MatrixMut { data: self.buffer.view_mut(), rows: self.rows, cols: self.cols, stride: self.stride }
    }

    fn host(&self, backend: &B) -> Vec<f32> {
        let all = backend.download_act(self.buffer.view());
        all.chunks(self.stride).flat_map(|row| row[..self.cols].to_vec()).collect()
    }
}

/// Queries, keys and values in memory of their own give the same bits as packed ones.
pub fn separate<B: Backend>(backend: &B) {
    let (heads, rows) = (Heads { query: 4, key_value: 2, dim: 24 }, 90);
    let (segments, wide, q, kv) =
        ([own(2, 70), own(73, 17)], heads.qkv_width(), heads.q_width(), heads.kv_width());
    let mut bench = Bench::new(backend);
    let (packed, dout) = (bench.act(rows * wide, 1.0), bench.act(rows * q, 1.0));
    let columns = |of: &[f64]| {
        let part = |first, cols, gap| Columns::of(&bench, of, wide, first, cols, gap);
        [part(0, q, 8), part(q, kv, 16), part(q + kv, kv, 0)]
    };
    let (own, mut gradients) = (columns(&packed.host), columns(&packed.host));
    let run = |qkv: Qkv<'_, B>, dqkv: QkvMut<'_, B>| {
        let (mut o, mut lse) = (bench.act_out(rows * q), bench.f32_out(rows * heads.query));
        backend.attention(o.view_mut(), lse.view_mut(), qkv, &segments, heads);
        backend.attention_backward(dqkv, dout.view(), o.view(), lse.view(), qkv, &segments, heads);
        bench.finish();
        backend.download_act(o.slice(2 * q..72 * q))
    };
    let mut dqkv = bench.act_of(&packed.host);
    let expected = run(Qkv::packed(packed.view(), heads), QkvMut::packed(dqkv.view_mut(), heads));
    let [dq, dk, dv] = &mut gradients;
    let [q_own, k_own, v_own] = &own;
    let qkv = Qkv { q: q_own.view(), k: k_own.view(), v: v_own.view() };
    assert_eq!(run(qkv, QkvMut::new(dq.view_mut(), dk.view_mut(), dv.view_mut())), expected);
    let together = backend.download_act(dqkv.view());
    for (part, first) in gradients.iter().zip([0, q, q + kv]) {
        let expected = together.chunks(wide).flat_map(|row| row[first..first + part.cols].to_vec());
        assert_eq!(part.host(backend), expected.collect::<Vec<_>>(), "columns from {first}");
    }
}

pub fn backward<B: Backend>(backend: &B) {
    backward_case(backend, &[own(0, 5), own(5, 1), own(6, 0), own(7, 9)], GROUPED);
    backward_case(backend, &[own(0, 4), own(4, 3)], WIDE);
    // Longer than a tile, and than the queries of a task; some rows are of no segment.
    backward_case(backend, &[own(3, 150), own(155, 40)], GROUPED);
    backward_case(backend, &[own(0, 262), own(262, 3)], Heads { query: 1, key_value: 1, dim: 8 });
    for dim in [16, 64, 96, 128] {
        backward_case(backend, &[own(0, 70), own(70, 33)], Heads { query: 3, key_value: 1, dim });
    }
}

/// Decoding against a cache filled by `rope_into_cache` gives what packed attention gives the same tokens.
fn decode_case<B: Backend>(backend: &B, prompt: usize, samples: usize, filled: usize, heads: Heads) {
    decode_case_in(backend, (prompt, samples, filled), filled + 2, heads);
}

/// As [`decode_case`], in a cache for `capacity` tokens of each sample.
fn decode_case_in<B: Backend>(
    backend: &B,
    (prompt, samples, filled): (usize, usize, usize),
    capacity: usize,
    heads: Heads,
) {
    let (wide, kv, q) = (heads.qkv_width(), heads.kv_width(), heads.q_width());
    let mut bench = Bench::new(backend);
    let mut prompt_qkv = bench.act(prompt * wide, 1.0);
    let (mut prompt_k, mut prompt_v) = (bench.act_out(prompt * kv), bench.act_out(prompt * kv));
    let (mut sample_k, mut sample_v) =
        (bench.act_out(samples * capacity * kv), bench.act_out(samples * capacity * kv));
    // Frequencies of 0, so that nothing is rotated.
    let inv_freq = bench.f32_of(&vec![0.0; heads.dim / 2]);
    let positions = bench.integers(&vec![3u32; prompt.max(samples)]);
    let to = CacheRows { k: prompt_k.view_mut(), v: prompt_v.view_mut(), filled: None, step: 1 };
    backend.rope_into_cache(prompt_qkv.view_mut(), to, positions.first(prompt), inv_freq.view(), heads);
    let mut steps = Vec::new();
    for filled in 1..=filled as u32 {
        let mut qkv = bench.act(samples * wide, 1.0);
        let filled = bench.integers(&[filled]);
        let filled = Some(filled.view());
        let to = CacheRows { k: sample_k.view_mut(), v: sample_v.view_mut(), filled, step: capacity };
        backend.rope_into_cache(qkv.view_mut(), to, positions.first(samples), inv_freq.view(), heads);
        steps.push(qkv);
    }
    let of_samples = bench.integers(&[filled as u32]);
    let cache = CachedKv {
        prompt_k: prompt_k.view(),
        prompt_v: prompt_v.view(),
        sample_k: sample_k.view(),
        sample_v: sample_v.view(),
        filled: of_samples.view(),
    };
    let mut o = bench.act_out(samples * q);
    backend.attention_decode(o.view_mut(), Qkv::packed(steps[filled - 1].view(), heads).q, &cache, heads);
    let expected = (0..samples).flat_map(|sample| {
        let mut rows = prompt_qkv.host.clone();
        steps.iter().for_each(|step| rows.extend(&step.host[sample * wide..(sample + 1) * wide]));
        let keys: Vec<usize> = (0..prompt + filled).collect();
        let one = |h| attend(&rows, prompt + filled - 1, h, &keys, heads).0;
        (0..heads.query).flat_map(one).collect::<Vec<_>>()
    });
    bench.check("o", &o, &expected.collect::<Vec<_>>());
}

pub fn decode<B: Backend>(backend: &B) {
    decode_case(backend, 5, 3, 2, GROUPED);
    decode_case(backend, 1, 1, 1, WIDE);
    decode_case(backend, 130, 2, 40, GROUPED);
    // More samples than a task takes.
    decode_case(backend, 7, 19, 3, GROUPED);
    decode_case(backend, 70, 30, 9, GROUPED);
    for dim in [16, 24, 64, 96, 128] {
        decode_case(backend, 70, 2, 66, Heads { query: 2, key_value: 1, dim });
        decode_case(backend, 30, 1, 5, Heads { query: 2, key_value: 1, dim });
    }
    // More heads to a group than a tile has rows.
    decode_case(backend, 3, 2, 2, Heads { query: 70, key_value: 1, dim: 8 });
    // So many pieces for such a group that weighing them takes more shared memory than tiles of small heads.
    decode_case(backend, 2000, 1, 2, Heads { query: 70, key_value: 1, dim: 8 });
    // Room for so many tokens that most blocks of a launch have none yet.
    for (prompt, samples, filled) in [(70, 1, 3), (70, 2, 66), (5, 1, 70)] {
        decode_case_in(backend, (prompt, samples, filled), 2000, GROUPED);
    }
}
