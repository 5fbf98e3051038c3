//! Everything but the matrix products.

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
use super::workload;

const BF16: usize = 2;
/// Sizes of Qwen2.5-Coder-7B.
const HIDDEN: usize = 3584;
const INTERMEDIATE: usize = 18944;
const VOCAB: usize = 152_064;
const HEADS: Heads = Heads { query: 28, key_value: 4, dim: 128 };

pub fn run(device: &Device) {
    device.table("Kernels at the sizes of Qwen2.5-Coder-7B, of a step where there is no other number");
    norms(device);
    mlp(device);
    attention(device);
    prefixes(device);
    decoding(device);
    aggregator(device);
    head(device);
    sampling(device);
    optimiser(device);
}

/// Rows of a step of 16 pairs: of secure functions, and with the vulnerable ones' suffixes.
fn step_rows(device: &Device) -> (usize, usize) {
    let (secure, rows) = workload::rows(&workload::lengths());
    (device.rows(secure), device.rows(rows))
}

fn norms(device: &Device) {
    let (cuda, width) = (&device.cuda, device.width(HIDDEN));
    let (secure, rows) = step_rows(device);
    let (x, dy, weight) =
        (device.random(&[rows, width]), device.random(&[rows, width]), device.random_f32(&[width]));
    let (mut y, mut rstd) = (device.zeros(&[rows, width]), device.zeros(&[rows]));
    let bytes = |matrices: usize, rows: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    let predicted = device.predictions.kernels(&["rms_norm"]);
    device.measure_beside("rms_norm", predicted, bytes(2, rows), || {
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-6);
    });
    let predicted = device.predictions.kernels(&["rms_norm_backward"]);
    device.measure_beside("rms_norm_backward", predicted, bytes(4, secure), || {
        let n = secure * width;
        let (dx, dy, x) = (y.first_mut(n), dy.first(n), x.first(n));
        cuda.rms_norm_backward(dx, dy, x, rstd.first(secure), weight.view());
    });
}

fn mlp(device: &Device) {
    let (cuda, width) = (&device.cuda, device.width(INTERMEDIATE));
    let (rows, _) = step_rows(device);
    let gate_up = device.random(&[rows, 2 * width]);
    let (mut h, mut dgate_up) = (device.random(&[rows, width]), device.zeros(&[rows, 2 * width]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    device.measure("swiglu", bytes(3), || {
        cuda.swiglu(h.view_mut(), gate_up.view(), width);
    });
    let predicted = device.predictions.kernels(&["swiglu_backward"]);
    device.measure_beside("swiglu_backward", predicted, bytes(5), || {
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

fn attention(device: &Device) {
    let cuda = &device.cuda;
    let (mut secure, mut suffixes) = workload::segments(&workload::lengths());
    if device.testing {
        secure = vec![Segment { start: 0, len: 8, prefix_start: 0, prefix_len: 0 }];
        suffixes = vec![Segment { start: 8, len: 5, prefix_start: 0, prefix_len: 3 }];
    }
    let all = [secure.clone(), suffixes].concat();
    let rows: usize = all.iter().map(|segment| segment.len as usize).sum();
    let (qkv, dout) = (device.random(&[rows, HEADS.qkv_width()]), device.random(&[rows, HEADS.q_width()]));
    let (mut o, mut lse) = (device.zeros(&[rows, HEADS.q_width()]), device.zeros(&[rows, HEADS.query]));
    let mut dqkv = device.zeros(&[rows, HEADS.qkv_width()]);
    let flops = |products: f64, segments: &[Segment]| Work::Flops(2.0 * products * seen(segments, HEADS));
    let predicted = device.predictions.kernels(&["attention_128"]);
    device.measure_beside("attention", predicted, flops(2.0, &all), || {
        cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), HEADS), &all, HEADS);
    });
    let rows: usize = secure.iter().map(|segment| segment.len as usize).sum();
    let predicted = device.predictions.kernels(&["attention_backward_q_128", "attention_backward_kv_128"]);
    device.measure_beside("attention_backward", predicted, flops(5.0, &secure), || {
        let (o, dout) = (o.first(rows * HEADS.q_width()), dout.first(rows * HEADS.q_width()));
        let (lse, of_rows) = (lse.first(rows * HEADS.query), rows * HEADS.qkv_width());
        let (qkv, dqkv) = (Qkv::packed(qkv.first(of_rows), HEADS), dqkv.first_mut(of_rows));
        cuda.attention_backward(QkvMut::packed(dqkv, HEADS), dout, o, lse, qkv, &secure, HEADS);
    });
    let (_, rows) = step_rows(device);
    let mut qkv = device.random(&[rows, HEADS.qkv_width()]);
    let (positions, inv_freq) = (device.zeros(&[rows]), device.random_f32(&[HEADS.dim / 2]));
    let rotated = rows * (HEADS.q_width() + HEADS.kv_width());
    let predicted = device.predictions.kernels(&["rope"]);
    device.measure_beside("rope", predicted, Work::Bytes((2 * rotated * BF16) as f64), || {
        cuda.rope(qkv.view_mut(), positions.view(), inv_freq.view(), HEADS);
    });
}

fn prefixes(device: &Device) {
    // Those of a layer of 28, in front of one sequence.
    let (cuda, rows, width) = (&device.cuda, 5, 2 * HEADS.kv_width());
    let (prefix, mut kv) = (device.random(&[rows, 28 * width]), device.random(&[rows, HEADS.qkv_width()]));
    let mut gradient = device.zeros(&[rows, 28 * width]);
    let bytes = |of_element: usize| Work::Bytes((of_element * rows * width) as f64);
    device.measure("place_prefix 5×1024", bytes(2 * BF16), || {
        let kv = MatrixMut::new(kv.view_mut(), rows, HEADS.qkv_width()).columns(HEADS.q_width(), width);
        cuda.place_prefix(kv, Matrix::new(prefix.view(), rows, 28 * width).columns(0, width), None);
    });
    device.measure("prefix_backward 5×1024", bytes(2 * BF16 + 8), || {
        let to = MatrixMut::new(gradient.view_mut(), rows, 28 * width).columns(0, width);
        let kv = MatrixMut::new(kv.view_mut(), rows, HEADS.qkv_width()).columns(HEADS.q_width(), width);
        cuda.prefix_backward(to, kv, None);
    });
}

fn decoding(device: &Device) {
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
        device.measure(&format!("attention_decode {samples} × (200 + 150)"), bytes, || {
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

fn aggregator(device: &Device) {
    let (cuda, rows, width) = (&device.cuda, device.rows(8192), device.width(HIDDEN));
    let shape = TapShape { taps: 4, rows, hidden_size: width };
    let (mut taps, u) = (device.random(&[4, rows, width]), device.random(&[rows, width]));
    let (mut out, mut weights) = (device.zeros(&[rows, width]), device.zeros(&[rows, 4]));
    let mut dscores = device.zeros(&[rows, 4]);
    let (dmean, row_weight) = (device.random(&[rows, width]), device.random_f32(&[rows]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * width * BF16) as f64);
    device.measure("tap_mean 8192×3584", bytes(5), || {
        cuda.tap_mean(out.view_mut(), taps.view(), shape);
    });
    device.measure("aggregate 8192×3584", bytes(6), || {
        cuda.aggregate(out.view_mut(), weights.view_mut(), taps.view(), u.view(), shape);
    });
    device.measure("aggregate_backward 8192×3584", bytes(6), || {
        let (du, dscores) = (out.view_mut(), dscores.view_mut());
        cuda.aggregate_backward(du, dscores, u.view(), taps.view(), weights.view(), shape);
    });
    device.measure("tap_gradient 8192×3584", bytes(7), || {
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

fn head(device: &Device) {
    let (cuda, rows, vocab) = (&device.cuda, device.rows(1152), device.width(VOCAB));
    let (mut z, mut y) = (device.random(&[rows, vocab]), device.random(&[rows, vocab]));
    let (mut nll, mut kl) = (device.zeros(&[rows]), device.zeros(&[rows]));
    let targets = device.zeros(&[rows]);
    let mut mask = device.zeros::<f32>(&[rows]);
    cuda.upload(mask.view_mut(), &vec![1.0; rows]);
    let weights = HeadWeights { cross_entropy: 1e-3, kl: 1e-3 };
    let bytes = Work::Bytes((3 * rows * vocab * BF16) as f64);
    let predicted = device.predictions.kernels(&["cross_entropy_kl_cluster"]);
    device.measure_beside("cross_entropy_kl 1152×152064", predicted, bytes, || {
        let (nll, kl, y) = (nll.view_mut(), kl.view_mut(), Some(y.view_mut()));
        cuda.cross_entropy_kl(nll, kl, z.view_mut(), y, targets.view(), mask.view(), mask.view(), weights);
    });
}

fn sampling(device: &Device) {
    let (cuda, rows, vocab) = (&device.cuda, device.rows(100), device.width(VOCAB));
    let (mut logits, mut tokens) = (device.random(&[rows, vocab]), device.zeros(&[rows]));
    let (stats, strength) = (device.random_f32(&[vocab]), device.random_f32(&[rows]));
    let bytes = |matrices: usize| Work::Bytes((matrices * rows * vocab * BF16) as f64);
    device.measure("guide 100×152064", bytes(2), || {
        cuda.guide(logits.view_mut(), stats.view(), strength.view(), 0.0);
    });
    let (mut marks, last) = (device.zeros::<u8>(&[rows, vocab]), device.zeros::<u32>(&[rows]));
    let adjustment = Adjustment { repetition_penalty: 1.1, first: false };
    device.measure("adjust 100×152064", Work::Bytes((rows * vocab) as f64), || {
        cuda.adjust(logits.view_mut(), marks.view_mut(), last.view(), adjustment);
    });
    let sampling = Sampling::new(0.1, 0.95, 50, 1);
    let (numbers, mut positions) = (device.zeros::<u32>(&[rows]), device.zeros::<u32>(&[rows]));
    device.measure("sample 100×152064", bytes(1), || {
        let (tokens, positions) = (tokens.view_mut(), positions.view_mut());
        cuda.sample(tokens, None, positions, logits.view(), numbers.view(), sampling);
    });
    let (drafts, probabilities) = (device.zeros::<u32>(&[rows]), device.random_f32(&[rows]));
    device.measure("verify 100×152064", bytes(1), || {
        cuda.verify(tokens.view_mut(), drafts.view(), probabilities.view(), logits.view(), 0.3);
    });
}

fn optimiser(device: &Device) {
    let (cuda, n) = (&device.cuda, if device.testing { 4096 } else { 78 << 20 });
    let (mut params, mut m, mut v) = (device.zeros(&[n]), device.zeros(&[n]), device.zeros(&[n]));
    let mut grads = device.zeros::<f32>(&[n]);
    let step =
        AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t: 1, grad_scale: 1.0 };
    device.measure("adamw 78 Mi", Work::Bytes((28 * n) as f64), || {
        cuda.adamw(params.view_mut(), m.view_mut(), v.view_mut(), grads.view(), step);
    });
    let mut sum = device.zeros(&[1]);
    device.measure("sum_of_squares 78 Mi", Work::Bytes((4 * n) as f64), || {
        cuda.sum_of_squares(sum.view_mut(), grads.view());
    });
    let mut sums = device.zeros(&[n + 1]);
    device.measure("exact_add 78 Mi", Work::Bytes((24 * n) as f64), || {
        cuda.exact_add(sums.view_mut(), grads.view_mut(), 1);
    });
    device.measure("exact_take 78 Mi", Work::Bytes((12 * n) as f64), || {
        cuda.exact_take(grads.view_mut(), sums.view());
    });
}
