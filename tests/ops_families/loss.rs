use deepguard::ops::Backend;
use deepguard::ops::loss::HeadWeights;

use super::bench::{Bench, Tensor, gradient};

const WEIGHTS: HeadWeights = HeadWeights { cross_entropy: 0.3, kl: 0.7 };
/// With and without a target and a KL term.
const TARGETS: [i32; 4] = [5, -1, 0, -1];
/// Each row's own weights, some negative.
const W_CE: [f64; 4] = [-0.75, 1.0, 1.5, 1.0];
const W_KL: [f64; 4] = [1.0, -0.5, 0.0, 0.0];

fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

fn nll(z: &[f64], target: i32) -> f64 {
    usize::try_from(target).map_or(0.0, |t| log_sum_exp(z) - z[t])
}

fn kl(z: &[f64], y: &[f64]) -> f64 {
    let (lse_z, lse_y) = (log_sum_exp(z), log_sum_exp(y));
    z.iter().zip(y).map(|(z, y)| (y - lse_y).exp() * ((y - lse_y) - (z - lse_z))).sum()
}

fn run<B: Backend>(bench: &mut Bench<'_, B>, vocab: usize, with_reference: bool, scale: f64) {
    let (backend, rows) = (bench.backend, TARGETS.len());
    let mut z = bench.act(rows * vocab, scale);
    let mut y = bench.act(rows * vocab, scale);
    let (targets, w_ce, w_kl) = (bench.integers(&TARGETS), bench.f32_of(&W_CE), bench.f32_of(&W_KL));
    let (mut nlls, mut kls) = (bench.f32_out(rows), bench.f32_out(rows));
    let reference = with_reference.then(|| y.view_mut());
    let (nll_out, kl_out) = (nlls.view_mut(), kls.view_mut());
    let (z_out, targets) = (z.view_mut(), targets.view());
    backend.cross_entropy_kl(nll_out, kl_out, z_out, reference, targets, w_ce.view(), w_kl.view(), WEIGHTS);
    let w_kl: Vec<f64> = W_KL.iter().map(|w| if with_reference { *w } else { 0.0 }).collect();
    let row = |x: &Tensor<B, B::Act>, i: usize| x.host[i * vocab..][..vocab].to_vec();
    let (mut nll_expected, mut kl_expected, mut dz) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..rows {
        let (z, y, target) = (row(&z, i), row(&y, i), TARGETS[i]);
        let counted = if w_kl[i] == 0.0 { 0.0 } else { 1.0 };
        let (w_ce, w_kl) = (f64::from(WEIGHTS.cross_entropy) * W_CE[i], f64::from(WEIGHTS.kl) * w_kl[i]);
        nll_expected.push(nll(&z, target));
        kl_expected.push(counted * kl(&z, &y));
        dz.extend(gradient(&z, |z| w_ce * nll(z, target) + w_kl * kl(z, &y)));
    }
    bench.check_f32("nll", &nlls, &nll_expected);
    bench.check_f32("kl", &kls, &kl_expected);
    bench.check("dz", &z.buffer, &dz);
}

pub fn cross_entropy_and_kl<B: Backend>(backend: &B) {
    for vocab in [7, 33, 512] {
        run(&mut Bench::new(backend), vocab, true, 3.0);
    }
}

/// Rows that no block holds in shared memory: softmaxes and their sums over many blocks and passes. Central
/// differences would take too long here, so the gradient is written out.
fn run_long<B: Backend>(backend: &B, vocab: usize, targets: &[i32], w_kl: &[f64]) {
    let (mut bench, rows) = (Bench::new(backend), targets.len());
    let (mut z, mut y) = (bench.act(rows * vocab, 4.0), bench.act(rows * vocab, 4.0));
    // The first rows' cross-entropy is pushed up.
    let w_ce: Vec<f64> = (0..rows).map(|row| if row < 2 { -0.5 } else { 1.0 }).collect();
    let (target, of_ce, of_kl) = (bench.integers(targets), bench.f32_of(&w_ce), bench.f32_of(w_kl));
    let (mut nlls, mut kls) = (bench.f32_out(rows), bench.f32_out(rows));
    let (nll_out, kl_out, reference) = (nlls.view_mut(), kls.view_mut(), Some(y.view_mut()));
    let (z_out, target) = (z.view_mut(), target.view());
    backend.cross_entropy_kl(nll_out, kl_out, z_out, reference, target, of_ce.view(), of_kl.view(), WEIGHTS);
    let (mut nll_expected, mut kl_expected, mut dz) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &target) in targets.iter().enumerate() {
        let (z, y) = (&z.host[i * vocab..][..vocab], &y.host[i * vocab..][..vocab]);
        let w_ce = if target >= 0 { f64::from(WEIGHTS.cross_entropy) * w_ce[i] } else { 0.0 };
        let counted = if w_kl[i] == 0.0 { 0.0 } else { 1.0 };
        let w_kl = f64::from(WEIGHTS.kl) * w_kl[i];
        nll_expected.push(nll(z, target));
        kl_expected.push(counted * kl(z, y));
        let (lse_z, lse_y) = (log_sum_exp(z), log_sum_exp(y));
        let slope = |(z, y): (&f64, &f64)| (w_ce + w_kl) * (z - lse_z).exp() - w_kl * (y - lse_y).exp();
        let first = dz.len();
        dz.extend(z.iter().zip(y).map(slope));
        if target >= 0 {
            dz[first + target as usize] -= w_ce;
        }
    }
    bench.check_f32("nll", &nlls, &nll_expected);
    bench.check_f32("kl", &kls, &kl_expected);
    bench.check("dz", &z.buffer, &dz);
}

pub fn long_rows<B: Backend>(backend: &B) {
    for vocab in [70_001, 151_936] {
        run_long(backend, vocab, &[(vocab - 1) as i32, 3, -1], &[1.0, 0.0, -0.5]);
    }
    run_long(backend, 262_143, &[140_000], &[1.0]);
}

/// More rows than there are groups of blocks to take them, some without any loss.
pub fn many_long_rows<B: Backend>(backend: &B) {
    const VOCAB: usize = 42_003;
    let targets: Vec<i32> = (0..59).map(|row| [row * 700, -1, 5, -1, -1][row as usize % 5]).collect();
    let mask: Vec<f64> = (0..59).map(|row| [1.0, 0.0, 0.0, 1.0, 0.0][row % 5]).collect();
    run_long(backend, VOCAB, &targets, &mask);
}

pub fn cross_entropy_alone<B: Backend>(backend: &B) {
    run(&mut Bench::new(backend), 33, false, 3.0);
}

/// The same logits give a KL divergence of exactly 0, and no gradient of it beyond rounding.
pub fn equal_logits<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let values = bench.values(2 * 101, 4.0);
    let (mut z, mut y) = (bench.act_of(&values), bench.act_of(&values));
    let (targets, mask) = (bench.integers(&[-1, -1]), bench.f32_of(&[1.0, 1.0]));
    let (mut nll, mut kl) = (bench.f32_out(2), bench.f32_out(2));
    let (nll_out, kl_out, reference) = (nll.view_mut(), kl.view_mut(), Some(y.view_mut()));
    backend.cross_entropy_kl(
        nll_out,
        kl_out,
        z.view_mut(),
        reference,
        targets.view(),
        mask.view(),
        mask.view(),
        WEIGHTS,
    );
    assert_eq!(backend.to_host(kl.view()), [0.0, 0.0]);
    assert!(backend.download_act(z.view()).iter().all(|d| d.abs() < 1e-6));
}

/// Logits of ±10⁴, where e^z alone would overflow.
pub fn extremes<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let mut z = bench.act_of(&[1e4, 0.0, -1e4, -1e4, 1e4, 0.0]);
    let (targets, mask) = (bench.integers(&[0, 0]), bench.f32_of(&[1.0, 1.0]));
    let (mut nll, mut kl) = (bench.f32_out(2), bench.f32_out(2));
    let (nll_out, kl_out) = (nll.view_mut(), kl.view_mut());
    backend.cross_entropy_kl(
        nll_out,
        kl_out,
        z.view_mut(),
        None,
        targets.view(),
        mask.view(),
        mask.view(),
        WEIGHTS,
    );
    let w = f64::from(WEIGHTS.cross_entropy);
    // 10⁴ is 9984 in bf16.
    let large = bench.act_of(&[1e4]).host[0];
    bench.check_f32("nll", &nll, &[0.0, 2.0 * large]);
    bench.check("dz", &z.buffer, &[0.0, 0.0, 0.0, -w, w, 0.0]);
}
