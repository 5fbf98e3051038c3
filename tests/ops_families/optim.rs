use deepguard::ops::optim::AdamW;
use deepguard::ops::{Backend, Ref};

use super::bench::Bench;

const STEP: AdamW =
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, t: 0, grad_scale: 0.5 };

/// Three steps against f64, on more elements than one chunk of threads takes.
pub fn adamw<B: Backend>(backend: &B) {
    let n = 70_001;
    let mut bench = Bench::new(backend);
    let (mut params, mut m, mut v) =
        (bench.f32(n, 1.0), bench.f32_of(&vec![0.0; n]), bench.f32_of(&vec![0.0; n]));
    let mut expected: Vec<[f64; 3]> = params.host.iter().map(|&p| [p, 0.0, 0.0]).collect();
    for t in 1..=3 {
        let grads = bench.f32(n, 1.0);
        backend.adamw(params.view_mut(), m.view_mut(), v.view_mut(), grads.view(), AdamW { t, ..STEP });
        for ([p, m, v], g) in expected.iter_mut().zip(&grads.host) {
            let g = g * STEP.grad_scale;
            *m = STEP.beta1 * *m + (1.0 - STEP.beta1) * g;
            *v = STEP.beta2 * *v + (1.0 - STEP.beta2) * g * g;
            let (m_hat, v_hat) =
                (*m / (1.0 - STEP.beta1.powi(t as i32)), *v / (1.0 - STEP.beta2.powi(t as i32)));
            *p = *p * (1.0 - STEP.lr * STEP.weight_decay) - STEP.lr * m_hat / (v_hat.sqrt() + STEP.eps);
        }
    }
    for (i, (what, found)) in [("params", &params), ("m", &m), ("v", &v)].into_iter().enumerate() {
        let expected: Vec<f64> = expected.iter().map(|e| e[i]).collect();
        bench.check_f32(what, &found.buffer, &expected);
    }
}

pub fn sum_of_squares<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let x = bench.f32(70_001, 1.0);
    let expected: f64 = x.host.iter().map(|x| x * x).sum();
    let sum_of = |x: Ref<'_, B, f32>| {
        let mut sum = bench.integers(&[f64::NAN]);
        backend.sum_of_squares(sum.view_mut(), x);
        bench.finish();
        backend.to_host(sum.view())[0]
    };
    let found = sum_of(x.view());
    assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
    assert_eq!(found, sum_of(x.view()), "the order of a sum is fixed");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut values = vec![1.0; 40_000];
        values[39_999] = bad;
        assert!(!sum_of(bench.f32_of(&values).view()).is_finite(), "{bad} goes unnoticed");
    }
}
