//! Everything but the matrix products.

use criterion::Criterion;
use deepguard::ops::Device as _;
use deepguard::ops::aggregate::{Aggregate, TapGradient, TapShape};
use deepguard::ops::attention::{Attention, CachedKv, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::loss::{HeadWeights, Loss};
use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::mlp::Mlp;
use deepguard::ops::norm::Norm;
use deepguard::ops::optim::{AdamW, Optim};
use deepguard::ops::prefix::Prefix;
use deepguard::ops::rope::Rope;
use deepguard::ops::sample::{Adjustment, Sample, Sampling};

use super::device::{Device, Work};

const BF16: usize = 2;
const ROWS: usize = 8192;
/// Sizes of Qwen2.5-Coder-7B.
const HIDDEN: usize = 3584;
const INTERMEDIATE: usize = 18944;
const VOCAB: usize = 152_064;
const HEADS: Heads = Heads { query: 28, key_value: 4, dim: 128 };

pub fn run(c: &mut Criterion, device: &Device) {
    norms(c, device);
    mlp(c, device);
    attention(c, device);
    prefixes(c, device);
    decoding(c, device);
    aggregator(c, device);
    head(c, device);
    sampling(c, device);
    optimiser(c, device);
}

fn norms(c: &mut Criterion, device: &Device) {
    let (cuda, rows, width) = (&device.cuda, device.rows(ROWS), device.width(HIDDEN));
    let (x, dy, weight) =
        (device.random(&[rows, width]), device.random(&[rows, width]), device.random_f32(&[width]));
    let (mut y, mut rstd) = (device.zeros(&[rows, width]), device.zeros(&[rows]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    device.measure(c, "rms_norm 8192×3584", bytes(2), || {
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-6);
    });
    device.measure(c, "rms_norm_backward 8192×3584", bytes(4), || {
        cuda.rms_norm_backward(y.view_mut(), dy.view(), x.view(), rstd.view(), weight.view());
    });
}

fn mlp(c: &mut Criterion, device: &Device) {
    let (cuda, rows, width) = (&device.cuda, device.rows(ROWS), device.width(INTERMEDIATE));
    let gate_up = device.random(&[rows, 2 * width]);
    let (mut h, mut dgate_up) = (device.random(&[rows, width]), device.zeros(&[rows, 2 * width]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    device.measure(c, "swiglu 8192×18944", bytes(3), || {
        cuda.swiglu(h.view_mut(), gate_up.view(), width);
    });
    device.measure(c, "swiglu_backward 8192×18944", bytes(5), || {
        cuda.swiglu_backward(dgate_up.view_mut(), h.view(), gate_up.view(), width);
    });
}

/// Multiply-adds of one product over the keys that the queries of these segments see.
fn seen(segments: &[Segment], heads: Heads) -> f64 {
    let of = |s: &Segment| {
        let (own, prefix) = (f64::from(s.len), f64::from(s.prefix_len));
        own * prefix + own * (own + 1.0) / 2.0
    };
    segments.iter().map(of).sum::<f64>() * heads.q_width() as f64
}

fn attention(c: &mut Criterion, device: &Device) {
    let cuda = &device.cuda;
    // Sixteen secure functions of the mean length of SVEN's, and one of 1024 tokens for each.
    for (name, len, count) in [("16 × 432", 432, 16), ("8 × 1024", 1024, 8)] {
        let (len, count) = if device.testing { (8, 2) } else { (len, count) };
        let segment = |i: u32| Segment { start: i * len, len, prefix_start: 0, prefix_len: 0 };
        let segments: Vec<Segment> = (0..count).map(segment).collect();
        let rows = (len * count) as usize;
        let (qkv, dout) =
            (device.random(&[rows, HEADS.qkv_width()]), device.random(&[rows, HEADS.q_width()]));
        let (mut o, mut lse) = (device.zeros(&[rows, HEADS.q_width()]), device.zeros(&[rows, HEADS.query]));
        let mut dqkv = device.zeros(&[rows, HEADS.qkv_width()]);
        let flops = |products: f64| Work::Flops(2.0 * products * seen(&segments, HEADS));
        device.measure(c, &format!("attention {name}"), flops(2.0), || {
            cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), HEADS), &segments, HEADS);
        });
        device.measure(c, &format!("attention_backward {name}"), flops(5.0), || {
            let (o, lse, qkv) = (o.view(), lse.view(), Qkv::packed(qkv.view(), HEADS));
            let dqkv = QkvMut::packed(dqkv.view_mut(), HEADS);
            cuda.attention_backward(dqkv, dout.view(), o, lse, qkv, &segments, HEADS);
        });
    }
    let rows = device.rows(ROWS);
    let mut qkv = device.random(&[rows, HEADS.qkv_width()]);
    let (positions, inv_freq) = (device.zeros(&[rows]), device.random_f32(&[HEADS.dim / 2]));
    let rotated = rows * (HEADS.q_width() + HEADS.kv_width());
    device.measure(c, "rope 8192", Work::Bytes((2 * rotated * BF16) as f64), || {
        cuda.rope(qkv.view_mut(), positions.view(), inv_freq.view(), HEADS);
    });
}

fn prefixes(c: &mut Criterion, device: &Device) {
    // Those of a layer of 28, in front of one sequence.
    let (cuda, rows, width) = (&device.cuda, 5, 2 * HEADS.kv_width());
    let (prefix, mut kv) = (device.random(&[rows, 28 * width]), device.random(&[rows, HEADS.qkv_width()]));
    let mut gradient = device.zeros(&[rows, 28 * width]);
    let bytes = |of_element: usize| Work::Bytes((of_element * rows * width) as f64);
    device.measure(c, "place_prefix 5×1024", bytes(2 * BF16), || {
        let kv = MatrixMut::new(kv.view_mut(), rows, HEADS.qkv_width()).columns(HEADS.q_width(), width);
        cuda.place_prefix(kv, Matrix::new(prefix.view(), rows, 28 * width).columns(0, width), None);
    });
    device.measure(c, "prefix_backward 5×1024", bytes(2 * BF16 + 8), || {
        let to = MatrixMut::new(gradient.view_mut(), rows, 28 * width).columns(0, width);
        let kv = MatrixMut::new(kv.view_mut(), rows, HEADS.qkv_width()).columns(HEADS.q_width(), width);
        cuda.prefix_backward(to, kv, None);
    });
}

fn decoding(c: &mut Criterion, device: &Device) {
    let (cuda, width) = (&device.cuda, HEADS.kv_width());
    for samples in [1, 16, 100] {
        let (prompt, filled) = if device.testing { (9, 3) } else { (200, 150) };
        let (k, v) = (device.random(&[prompt, width]), device.random(&[prompt, width]));
        let own = [samples, filled, width];
        let (own_k, own_v) = (device.random(&own), device.random(&own));
        let (qkv, mut o) =
            (device.random(&[samples, HEADS.qkv_width()]), device.zeros(&[samples, HEADS.q_width()]));
        let mut of_samples = device.zeros::<u32>(&[1]);
        cuda.upload(of_samples.view_mut(), &[filled as u32]);
        let bytes = Work::Bytes((2 * (prompt + samples * filled) * width * BF16) as f64);
        device.measure(c, &format!("attention_decode {samples} × (200 + 150)"), bytes, || {
            let cache = CachedKv {
                prompt_k: k.view(),
                prompt_v: v.view(),
                sample_k: own_k.view(),
                sample_v: own_v.view(),
                filled: of_samples.view(),
            };
            cuda.attention_decode(o.view_mut(), Qkv::packed(qkv.view(), HEADS).q, &cache, HEADS);
        });
    }
}

fn aggregator(c: &mut Criterion, device: &Device) {
    let (cuda, rows, width) = (&device.cuda, device.rows(ROWS), device.width(HIDDEN));
    let shape = TapShape { taps: 4, rows, hidden_size: width };
    let (mut taps, u) = (device.random(&[4, rows, width]), device.random(&[rows, width]));
    let (mut out, mut weights) = (device.zeros(&[rows, width]), device.zeros(&[rows, 4]));
    let mut dscores = device.zeros(&[rows, 4]);
    let (dmean, row_weight) = (device.random(&[rows, width]), device.random_f32(&[rows]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    device.measure(c, "tap_mean 8192×3584", bytes(5), || {
        cuda.tap_mean(out.view_mut(), taps.view(), shape);
    });
    device.measure(c, "aggregate 8192×3584", bytes(6), || {
        cuda.aggregate(out.view_mut(), weights.view_mut(), taps.view(), u.view(), shape);
    });
    device.measure(c, "aggregate_backward 8192×3584", bytes(6), || {
        let (du, dscores) = (out.view_mut(), dscores.view_mut());
        cuda.aggregate_backward(du, dscores, u.view(), taps.view(), weights.view(), shape);
    });
    device.measure(c, "tap_gradient 8192×3584", bytes(7), || {
        let args = TapGradient {
            weights: weights.view(),
            dscores: dscores.view(),
            dcontext: out.view(),
            u: u.view(),
            dmean: dmean.view(),
            row_weight: row_weight.view(),
        };
        cuda.tap_gradient(taps.view_mut(), rows, args, shape);
    });
}

fn head(c: &mut Criterion, device: &Device) {
    let (cuda, rows, vocab) = (&device.cuda, device.rows(1024), device.width(VOCAB));
    let (mut z, mut y) = (device.random(&[rows, vocab]), device.random(&[rows, vocab]));
    let (mut nll, mut kl) = (device.zeros(&[rows]), device.zeros(&[rows]));
    let targets = device.zeros(&[rows]);
    let mut mask = device.zeros::<f32>(&[rows]);
    cuda.upload(mask.view_mut(), &vec![1.0; rows]);
    let weights = HeadWeights { cross_entropy: 1e-3, kl: 1e-3 };
    let bytes = Work::Bytes((3 * rows * vocab * BF16) as f64);
    device.measure(c, "cross_entropy_kl 1024×152064", bytes, || {
        let (nll, kl, y) = (nll.view_mut(), kl.view_mut(), Some(y.view_mut()));
        cuda.cross_entropy_kl(nll, kl, z.view_mut(), y, targets.view(), mask.view(), mask.view(), weights);
    });
}

fn sampling(c: &mut Criterion, device: &Device) {
    let (cuda, rows, vocab) = (&device.cuda, device.rows(100), device.width(VOCAB));
    let (mut logits, mut tokens) = (device.random(&[rows, vocab]), device.zeros(&[rows]));
    let (stats, strength) = (device.random_f32(&[vocab]), device.random_f32(&[rows]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * vocab * BF16) as f64);
    device.measure(c, "guide 100×152064", bytes(2), || {
        cuda.guide(logits.view_mut(), stats.view(), strength.view(), 0.0);
    });
    let (mut marks, last) = (device.zeros::<u8>(&[rows, vocab]), device.zeros::<u32>(&[rows]));
    let adjustment = Adjustment { repetition_penalty: 1.1, first: false };
    device.measure(c, "adjust 100×152064", Work::Bytes((rows * vocab) as f64), || {
        cuda.adjust(logits.view_mut(), marks.view_mut(), last.view(), adjustment);
    });
    let sampling = Sampling::new(0.1, 0.95, 50, 1);
    let (numbers, mut positions) = (device.zeros::<u32>(&[rows]), device.zeros::<u32>(&[rows]));
    device.measure(c, "sample 100×152064", bytes(1), || {
        let (tokens, positions) = (tokens.view_mut(), positions.view_mut());
        cuda.sample(tokens, None, positions, logits.view(), numbers.view(), sampling);
    });
    let (drafts, probabilities) = (device.zeros::<u32>(&[rows]), device.random_f32(&[rows]));
    device.measure(c, "verify 100×152064", bytes(1), || {
        cuda.verify(tokens.view_mut(), drafts.view(), probabilities.view(), logits.view(), 0.3);
    });
}

fn optimiser(c: &mut Criterion, device: &Device) {
    let (cuda, n) = (&device.cuda, if device.testing { 4096 } else { 78 << 20 });
    let (mut params, mut m, mut v) = (device.zeros(&[n]), device.zeros(&[n]), device.zeros(&[n]));
    let grads = device.zeros::<f32>(&[n]);
    let step =
        AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t: 1, grad_scale: 1.0 };
    device.measure(c, "adamw 78 Mi", Work::Bytes((28 * n) as f64), || {
        cuda.adamw(params.view_mut(), m.view_mut(), v.view_mut(), grads.view(), step);
    });
    let mut sum = device.zeros(&[1]);
    device.measure(c, "sum_of_squares 78 Mi", Work::Bytes((4 * n) as f64), || {
        cuda.sum_of_squares(sum.view_mut(), grads.view());
    });
}
