//! The operations other than GEMM, at SmolLM2-135M's sizes.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deepguard::cpu::Cpu;
use deepguard::ops::aggregate::{Aggregate, TapShape};
use deepguard::ops::attention::{Attention, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::loss::{HeadWeights, Loss};
use deepguard::ops::mlp::Mlp;
use deepguard::ops::norm::Norm;
use deepguard::ops::optim::{AdamW, Optim};
use deepguard::ops::philox::philox;
use deepguard::ops::{Arena, Buffer, Device, Element};

const ROWS: usize = 1024;
const HIDDEN: usize = 576;
const HEADS: Heads = Heads { query: 9, key_value: 3, dim: 64 };

fn buffer<T: Element>(shape: &[usize]) -> Buffer<Cpu, T> {
    Arena::build(&Cpu::new(), |arena| arena.buffer("bench", shape)).expect("memory").0
}

fn random(shape: &[usize]) -> Buffer<Cpu, f32> {
    let mut out = buffer::<f32>(shape);
    let n = out.len();
    let value = |i: usize| philox(1, [i as u32, 0, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5;
    Cpu::new().upload(out.view_mut(), &(0..n).map(value).collect::<Vec<_>>());
    out
}

fn attention(c: &mut Criterion) {
    let cpu = Cpu::new();
    let qkv = random(&[ROWS, HEADS.qkv_width()]);
    let (mut o, mut lse) = (buffer::<f32>(&[ROWS, HEADS.q_width()]), buffer::<f32>(&[ROWS, HEADS.query]));
    let mut dqkv = buffer::<f32>(&[ROWS, HEADS.qkv_width()]);
    let segments = [Segment { start: 0, len: ROWS as u32, prefix_start: 0, prefix_len: 0 }];
    // Two products forward and five backward, over the lower triangle.
    let product = (HEADS.q_width() * ROWS * ROWS) as u64;
    let mut group = c.benchmark_group("attention, one sequence of 1024");
    group.throughput(Throughput::Elements(2 * product));
    group.bench_function("forward", |b| {
        b.iter(|| {
            cpu.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), HEADS), &segments, HEADS)
        });
    });
    let dout = random(&[ROWS, HEADS.q_width()]);
    group.throughput(Throughput::Elements(5 * product));
    group.bench_function("backward", |b| {
        b.iter(|| {
            let (o, lse, qkv) = (o.view(), lse.view(), Qkv::packed(qkv.view(), HEADS));
            let dqkv = QkvMut::packed(dqkv.view_mut(), HEADS);
            cpu.attention_backward(dqkv, dout.view(), o, lse, qkv, &segments, HEADS);
        });
    });
}

fn head_loss(c: &mut Criterion) {
    let (cpu, rows, vocab_size) = (Cpu::new(), 256, 49152);
    let (mut z, mut y) = (random(&[rows, vocab_size]), random(&[rows, vocab_size]));
    let (mut nll, mut kl) = (buffer::<f32>(&[rows]), buffer::<f32>(&[rows]));
    let (targets, mut mask) = (buffer::<i32>(&[rows]), buffer::<f32>(&[rows]));
    cpu.upload(mask.view_mut(), &vec![1.0; rows]);
    let weights = HeadWeights { cross_entropy: 1e-3, kl: 1e-3 };
    let mut group = c.benchmark_group("cross-entropy and KL, 256 rows of 49152");
    // Both chunks of logits are read, one gradient is written.
    group.throughput(Throughput::Bytes((3 * rows * vocab_size * 4) as u64));
    group.bench_function("forward and gradient", |b| {
        b.iter(|| {
            let y = Some(y.view_mut());
            cpu.cross_entropy_kl(
                nll.view_mut(),
                kl.view_mut(),
                z.view_mut(),
                y,
                targets.view(),
                mask.view(),
                mask.view(),
                weights,
            );
        });
    });
}

fn streaming(c: &mut Criterion) {
    let cpu = Cpu::new();
    let mut group = c.benchmark_group("streaming");
    let (x, weight) = (random(&[ROWS, HIDDEN]), random(&[HIDDEN]));
    let (mut y, mut rstd) = (buffer::<f32>(&[ROWS, HIDDEN]), buffer::<f32>(&[ROWS]));
    group.throughput(Throughput::Bytes((2 * ROWS * HIDDEN * 4) as u64));
    group.bench_function("rms_norm", |b| {
        b.iter(|| cpu.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5));
    });

    let gate_up = random(&[ROWS, 2 * 1536]);
    let mut h = buffer::<f32>(&[ROWS, 1536]);
    group.throughput(Throughput::Bytes((3 * ROWS * 1536 * 4) as u64));
    group.bench_function("swiglu", |b| b.iter(|| cpu.swiglu(h.view_mut(), gate_up.view(), 1536)));

    let shape = TapShape { taps: 4, rows: ROWS, hidden_size: HIDDEN };
    let (taps, u) = (random(&[4, ROWS, HIDDEN]), random(&[ROWS, HIDDEN]));
    let (mut context, mut weights) = (buffer::<f32>(&[ROWS, HIDDEN]), buffer::<f32>(&[ROWS, 4]));
    group.throughput(Throughput::Bytes((6 * ROWS * HIDDEN * 4) as u64));
    group.bench_function("aggregate", |b| {
        b.iter(|| cpu.aggregate(context.view_mut(), weights.view_mut(), taps.view(), u.view(), shape));
    });

    let n = 10_000_000;
    let (mut p, mut m, mut v, g) = (random(&[n]), buffer::<f32>(&[n]), buffer::<f32>(&[n]), random(&[n]));
    let step =
        AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t: 1, grad_scale: 1.0 };
    group.throughput(Throughput::Bytes((7 * n * 4) as u64));
    group.measurement_time(Duration::from_secs(10));
    group.bench_function("adamw, 10 M values", |b| {
        b.iter(|| cpu.adamw(p.view_mut(), m.view_mut(), v.view_mut(), g.view(), step));
    });
    // Reads and writes sums of 8 bytes and gradients of 4.
    let (mut sums, mut g) = (buffer::<i64>(&[n + 1]), g);
    group.throughput(Throughput::Bytes((24 * n) as u64));
    group.bench_function("exact_add, 10 M values", |b| {
        b.iter(|| cpu.exact_add(sums.view_mut(), g.view_mut(), 1));
    });
    group.throughput(Throughput::Bytes((12 * n) as u64));
    group.bench_function("exact_take, 10 M values", |b| b.iter(|| cpu.exact_take(g.view_mut(), sums.view())));
}

criterion_group!(benches, attention, head_loss, streaming);
criterion_main!(benches);
