use deepguard::ops::Backend;
use deepguard::ops::aggregate::{TapGradient, TapShape};

use super::bench::{Bench, dot, gradient};

const SHAPES: [TapShape; 3] = [
    TapShape { taps: 1, rows: 2, hidden_size: 5 },
    TapShape { taps: 3, rows: 4, hidden_size: 21 },
    TapShape { taps: 4, rows: 1, hidden_size: 64 },
];

fn tap(taps: &[f64], l: usize, i: usize, s: TapShape) -> &[f64] {
    &taps[(l * s.rows + i) * s.hidden_size..][..s.hidden_size]
}

fn mean(taps: &[f64], s: TapShape) -> Vec<f64> {
    let n = s.rows * s.hidden_size;
    (0..n).map(|i| taps.iter().skip(i).step_by(n).sum::<f64>() / s.taps as f64).collect()
}

/// (context, weights)
fn reference(taps: &[f64], u: &[f64], s: TapShape) -> (Vec<f64>, Vec<f64>) {
    let (mut context, mut weights) = (Vec::new(), Vec::new());
    for i in 0..s.rows {
        let u = &u[i * s.hidden_size..][..s.hidden_size];
        let score = |l| (dot(u, tap(taps, l, i, s)) / (s.hidden_size as f64).sqrt()).exp();
        let scores: Vec<f64> = (0..s.taps).map(score).collect();
        let a: Vec<f64> = scores.iter().map(|x| x / scores.iter().sum::<f64>()).collect();
        context.extend(
            (0..s.hidden_size).map(|j| (0..s.taps).map(|l| a[l] * tap(taps, l, i, s)[j]).sum::<f64>()),
        );
        weights.extend(a);
    }
    (context, weights)
}

pub fn tap_mean<B: Backend>(backend: &B) {
    for s in SHAPES {
        let mut bench = Bench::new(backend);
        let taps = bench.act(s.taps * s.rows * s.hidden_size, 1.0);
        let mut out = bench.act_out(s.rows * s.hidden_size);
        backend.tap_mean(out.view_mut(), taps.view(), s);
        bench.check("mean", &out, &mean(&taps.host, s));
    }
}

pub fn forward<B: Backend>(backend: &B) {
    for s in SHAPES {
        let mut bench = Bench::new(backend);
        let n = s.rows * s.hidden_size;
        let (taps, u) = (bench.act(s.taps * n, 1.0), bench.act(n, 1.0));
        let (mut context, mut weights) = (bench.act_out(n), bench.f32_out(s.rows * s.taps));
        backend.aggregate(context.view_mut(), weights.view_mut(), taps.view(), u.view(), s);
        let (expected, expected_weights) = reference(&taps.host, &u.host, s);
        bench.check("context", &context, &expected);
        bench.check_f32("weights", &weights, &expected_weights);
    }
}

/// `∂u` and `∂s`, then the gradient to the taps, which also goes through the mean.
pub fn backward<B: Backend>(backend: &B) {
    for s in SHAPES {
        let mut bench = Bench::new(backend);
        let n = s.rows * s.hidden_size;
        let (taps, u, g) = (bench.act(s.taps * n, 1.0), bench.act(n, 1.0), bench.act(n, 1.0));
        let weights = bench.f32_of(&reference(&taps.host, &u.host, s).1);
        let (mut du, mut dscores) = (bench.act_out(n), bench.f32_out(s.rows * s.taps));
        let (out, ds) = (du.view_mut(), dscores.view_mut());
        backend.aggregate_backward(out, ds, g.view(), taps.view(), weights.view(), s);
        let loss = |taps: &[f64], u: &[f64]| dot(&reference(taps, u, s).0, &g.host);
        bench.check("du", &du, &gradient(&u.host, |u| loss(&taps.host, u)));

        let (dmean, row_weight) = (bench.act(n, 1.0), bench.f32(s.rows, 1.0));
        for dtap_rows in 0..=s.rows {
            let kept = dtap_rows * s.hidden_size;
            let mut dtaps = bench.act_out(s.taps * kept);
            let args = TapGradient {
                weights: weights.view(),
                dscores: dscores.view(),
                dcontext: g.view(),
                u: u.view(),
                dmean: dmean.view(),
                row_weight: row_weight.view(),
            };
            backend.tap_gradient(dtaps.view_mut(), dtap_rows, args, s);
            let all = gradient(&taps.host, |taps| loss(taps, &u.host) + dot(&mean(taps, s), &dmean.host));
            let weighted = |l: usize| {
                let rows = all[l * n..][..kept].iter().enumerate();
                rows.map(|(i, d)| row_weight.host[i / s.hidden_size] * d).collect::<Vec<_>>()
            };
            bench.check("dtaps", &dtaps, &(0..s.taps).flat_map(weighted).collect::<Vec<_>>());
        }
    }
}
