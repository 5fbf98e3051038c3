use deepguard::ops::Backend;
use deepguard::ops::attention::Heads;

use super::bench::{Bench, dot, gradient};

const HEADS: Heads = Heads { query: 3, key_value: 1, dim: 6 };
const POSITIONS: [u32; 5] = [0, 3, 1, 1, 40];
const INV_FREQ: [f64; 3] = [1.0, 0.25, 0.0625];

fn reference(qkv: &[f64]) -> Vec<f64> {
    let (width, half) = (HEADS.qkv_width(), HEADS.dim / 2);
    let mut out = qkv.to_vec();
    for (row, &position) in out.chunks_mut(width).zip(&POSITIONS) {
        for head in row[..HEADS.q_width() + HEADS.kv_width()].chunks_mut(HEADS.dim) {
            for i in 0..half {
                let (sin, cos) = (f64::from(position) * INV_FREQ[i]).sin_cos();
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

pub fn backward<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let len = POSITIONS.len() * HEADS.qkv_width();
    let (x, mut d) = (bench.values(len, 1.0), bench.act(len, 1.0));
    let (positions, inv_freq) = (bench.integers(&POSITIONS), bench.f32_of(&INV_FREQ));
    backend.rope_backward(d.view_mut(), positions.view(), inv_freq.view(), HEADS);
    bench.check("dqkv", &d.buffer, &gradient(&x, |x| dot(&reference(x), &d.host)));
}
