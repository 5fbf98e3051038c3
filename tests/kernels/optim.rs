use deepguard::ErrorKind;
use deepguard::cpu::Cpu;
use deepguard::ops::Device;
use deepguard::ops::optim::{AdamW, Optim};

use super::support::*;

const STEP: AdamW =
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, t: 0, grad_scale: 0.5 };

/// One step in f64 on params, m and v.
fn exact(state: &[Vec<f32>; 3], grads: &[f32], s: AdamW) -> [Vec<f64>; 3] {
    let mut new: [Vec<f64>; 3] = state.each_ref().map(|values| f64s(values));
    for (i, &g) in grads.iter().enumerate() {
        let g = f64::from(g) * s.grad_scale;
        let [p, m, v] = new.each_mut().map(|values| &mut values[i]);
        *m = s.beta1 * *m + (1.0 - s.beta1) * g;
        *v = s.beta2 * *v + (1.0 - s.beta2) * g * g;
        let (m_hat, v_hat) = (*m / (1.0 - s.beta1.powi(s.t as i32)), *v / (1.0 - s.beta2.powi(s.t as i32)));
        *p = *p * (1.0 - s.lr * s.weight_decay) - s.lr * m_hat / (v_hat.sqrt() + s.eps);
    }
    new
}

/// The first step, with moments of zero, and a late one; lengths with and without a rest of up to three, and one that
/// is more than a grid takes at once.
#[test]
fn adamw() {
    let (cuda, cpu) = (cuda(), Cpu::new());
    for (n, t) in [(1, 1), (3, 2), (4, 1), (1027, 1000), (40_002, 1), (1_200_001, 3)] {
        let mut random = Random::new(n as u64);
        let moment = if t == 1 { 0.0 } else { 0.1 };
        let v = random.f32s(n, moment).into_iter().map(|v| v * v).collect();
        let state = [random.f32s(n, 1.0), random.f32s(n, moment), v];
        let grads = random.f32s(n, 2.0);
        let step = AdamW { t, ..STEP };

        let mut found = state.each_ref().map(|values| up(values));
        let [p, m, v] = &mut found;
        checked(cuda.adamw(p, m, v, &up(&grads), step));

        let mut twin = state.each_ref().map(|values| on_cpu(&cpu, values));
        let [p, m, v] = &mut twin;
        let cpu_grads = on_cpu(&cpu, &grads);
        cpu.adamw(p.view_mut(), m.view_mut(), v.view_mut(), cpu_grads.view(), step);

        let exact = exact(&state, &grads, step);
        for (i, what) in ["params", "m", "v"].into_iter().enumerate() {
            let what = format!("{what} of {n} after step {t}");
            let (found, twin) = (f64s(&down(&found[i])), f64s(&cpu.to_host(twin[i].view())));
            check_f32(&what, &found, &twin, &exact[i]);
        }
    }
}

/// Against f64, with the CPU as baseline, which may by luck be exact where there are few elements: a unit in the last
/// place of the largest is allowed in any case.
fn check_f32(what: &str, found: &[f64], twin: &[f64], exact: &[f64]) {
    let largest = exact.iter().fold(0.0f64, |largest, e| largest.max(e.abs()));
    let ulp = largest * f64::from(f32::EPSILON) / 2.0;
    let baseline: Vec<f64> = twin.iter().zip(exact).map(|(t, e)| e + (t - e).abs().max(ulp)).collect();
    check(what, found, &baseline, exact);
}

#[test]
fn sum_of_squares() {
    let cuda = cuda();
    for n in [1, 5, 16_384, 16_385, 100_003] {
        let x = Random::new(n as u64).f32s(n, 1.0);
        let exact: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let x = up(&x);
        let found = checked(cuda.sum_of_squares(&x));
        // Any order of n positive terms is within n roundings of any other.
        assert!((found - exact).abs() <= n as f64 * f64::EPSILON * exact, "{n}: {found} {exact}");
        for seed in 0..3 {
            checked(cuda_emulator::load().and_then(|emulator| emulator.set_seed(seed)));
            let again = checked(cuda.sum_of_squares(&x));
            assert_eq!(again.to_bits(), found.to_bits(), "the order of a sum of {n} is not fixed");
        }
    }
    assert_eq!(checked(cuda.sum_of_squares(&up(&[1.0f32; 8]).slice(..0))), 0.0);
}

#[test]
fn a_number_that_is_not_finite_shows_in_the_sum() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 16_383, 39_998] {
            let mut values = vec![1.0; 39_999];
            values[at] = bad;
            let sum = checked(cuda().sum_of_squares(&up(&values)));
            assert!(!sum.is_finite(), "{bad} at {at} goes unnoticed");
        }
    }
}

#[test]
fn different_lengths_are_refused() {
    let (mut params, mut m, mut v) = (nans(8), nans(8), nans(8));
    let error = cuda().adamw(&mut params, &mut m, &mut v, &nans(7), AdamW { t: 1, ..STEP }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.to_string(), "kernel adamw: grads: expected 8 elements, found 7");
}
