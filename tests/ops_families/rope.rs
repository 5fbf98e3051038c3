use deepguard::ops::Backend;
use deepguard::ops::attention::Heads;
use deepguard::ops::rope::CacheRows;

use super::bench::{Bench, dot, gradient};

const HEADS: Heads = Heads { query: 3, key_value: 1, dim: 6 };
const POSITIONS: [u32; 5] = [0, 3, 1, 1, 40];
const INV_FREQ: [f64; 3] = [1.0, 0.25, 0.0625];

fn reference(qkv: &[f64]) -> Vec<f64> {
    rotated(qkv, &POSITIONS, &INV_FREQ, HEADS)
}

fn rotated(qkv: &[f64], positions: &[u32], inv_freq: &[f64], heads: Heads) -> Vec<f64> {
    let mut out = qkv.to_vec();
    for (row, &position) in out.chunks_mut(heads.qkv_width()).zip(positions) {
        for head in row[..heads.q_width() + heads.kv_width()].chunks_mut(heads.dim) {
            let half = heads.dim / 2;
            for i in 0..half {
                let (sin, cos) = (f64::from(position) * inv_freq[i]).sin_cos();
                let (a, b) = (head[i], head[i + half]);
                (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
    out
}

pub fn forward<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let mut qkv = bench.act(POSITIONS.len() * HEADS.qkv_width(), 1.0);
    let (positions, inv_freq) = (bench.integers(&POSITIONS), bench.f32_of(&INV_FREQ));
    backend.rope(qkv.view_mut(), positions.view(), inv_freq.view(), HEADS);
    bench.check("qkv", &qkv.buffer, &reference(&qkv.host));
}

/// Rows of the cache that the pass does not fill keep what they have.
fn cache_case<B: Backend>(backend: &B, heads: Heads, first: usize, step: usize) {
    let mut bench = Bench::new(backend);
    let (rows, width, kv) = (POSITIONS.len(), heads.qkv_width(), heads.kv_width());
    let mut qkv = bench.act(rows * width, 1.0);
    let capacity = rows * step + first;
    let (mut k, mut v) = (bench.act(capacity * kv, 1.0), bench.act(capacity * kv, 1.0));
    let inv_freq = bench.f32_of(&(0..heads.dim / 2).map(|i| 0.5f64.powi(i as i32)).collect::<Vec<_>>());
    let positions = bench.integers(&POSITIONS);
    let filled = bench.integers(&[first as u32 + 1]);
    // The first row need not be told.
    let filled = (step > 1).then(|| filled.view());
    let to = CacheRows { k: k.view_mut(), v: v.view_mut(), filled, step };
    backend.rope_into_cache(qkv.view_mut(), to, positions.view(), inv_freq.view(), heads);
    let later = POSITIONS.map(|position| position + first as u32);
    let expected = rotated(&qkv.host, &later, &inv_freq.host, heads);
    bench.check("qkv", &qkv.buffer, &expected);
    for (name, cached, from) in [("k", k, heads.q_width()), ("v", v, heads.q_width() + kv)] {
        let mut kept = cached.host;
        for (i, row) in expected.chunks(width).enumerate() {
            kept[(i * step + first) * kv..][..kv].copy_from_slice(&row[from..from + kv]);
        }
        bench.check(name, &cached.buffer, &kept);
    }
}

pub fn into_cache<B: Backend>(backend: &B) {
    cache_case(backend, HEADS, 0, 1);
    cache_case(backend, HEADS, 2, 4);
    cache_case(backend, Heads { query: 4, key_value: 2, dim: 24 }, 1, 3);
    cache_case(backend, Heads { query: 7, key_value: 1, dim: 32 }, 3, 5);
    // More vectors of values than a block has threads.
    cache_case(backend, Heads { query: 12, key_value: 12, dim: 128 }, 0, 1);
}

pub fn backward<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let len = POSITIONS.len() * HEADS.qkv_width();
    let (x, mut d) = (bench.values(len, 1.0), bench.act(len, 1.0));
    let (positions, inv_freq) = (bench.integers(&POSITIONS), bench.f32_of(&INV_FREQ));
    backend.rope_backward(d.view_mut(), positions.view(), inv_freq.view(), HEADS);
    bench.check("dqkv", &d.buffer, &gradient(&x, |x| dot(&reference(x), &d.host)));
}
