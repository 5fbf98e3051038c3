use deepguard::ops::Backend;
use deepguard::ops::analyzer::{LAYER_NORM_EPS, LayerNormBackward};

use super::bench::{Bench, TestDropout, add, dot, gradient};

/// Rows, width, and whether there is a dropout: also more rows, and longer ones, than a kernel takes at a
/// time.
const SHAPES: [(usize, usize, bool); 5] =
    [(3, 13, false), (4, 37, true), (133, 16, true), (2, 600, true), (2, 75, false)];

/// mean and 1/σ of every row.
fn statistics(z: &[f64], width: usize) -> Vec<[f64; 2]> {
    let row = |z: &[f64]| {
        let mean = z.iter().sum::<f64>() / width as f64;
        let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / width as f64;
        [mean, 1.0 / (variance + f64::from(LAYER_NORM_EPS)).sqrt()]
    };
    z.chunks(width).map(row).collect()
}

/// z with its bias → h, before dropout.
fn layer(z: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let (width, stats) = (gamma.len(), statistics(z, gamma.len()));
    let one = |(i, z): (usize, &f64)| {
        let ([mean, rstd], j) = (stats[i / width], i % width);
        ((z - mean) * rstd * gamma[j] + beta[j]).max(0.0)
    };
    z.iter().enumerate().map(one).collect()
}

fn times(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

pub fn layer_norm_relu<B: Backend>(backend: &B) {
    for (rows, width, drops) in SHAPES {
        let mut bench = Bench::new(backend);
        let (mut z, bias) = (bench.act(rows * width, 2.0), bench.act(width, 1.0));
        let (gamma, beta) = (bench.f32(width, 1.0), bench.f32(width, 0.5));
        let (mut h, mut stats) = (bench.act_out(rows * width), bench.f32_out(2 * rows));
        let dropout = TestDropout::new(&bench, rows);
        let argument = drops.then(|| dropout.argument());
        let (h_out, z_out, stats_out) = (h.view_mut(), z.view_mut(), stats.view_mut());
        backend.layer_norm_relu(h_out, z_out, stats_out, bias.view(), gamma.view(), beta.view(), argument);

        let summed = add(&z.host, &bias.host.repeat(rows));
        let factors = if drops { dropout.factors(width) } else { vec![1.0; rows * width] };
        bench.check("z", &z.buffer, &summed);
        bench.check_f32("stats", &stats, &statistics(&summed, width).concat());
        bench.check("h", &h, &times(&layer(&summed, &gamma.host, &beta.host), &factors));
    }
}

pub fn layer_norm_relu_backward<B: Backend>(backend: &B) {
    for (rows, width, drops) in SHAPES {
        let mut bench = Bench::new(backend);
        let (z, dh) = (bench.act(rows * width, 2.0), bench.act(rows * width, 1.0));
        let (gamma, beta) = (bench.f32(width, 1.0), bench.f32(width, 0.5));
        let row_weight = bench.f32(rows, 1.0);
        let (mut dgamma, mut dbeta) = (bench.f32(width, 1.0), bench.f32(width, 1.0));
        let (stats, dropout) =
            (bench.f32_of(&statistics(&z.host, width).concat()), TestDropout::new(&bench, rows));
        let mut dz = bench.act_out(rows * width);
        backend.layer_norm_relu_backward(LayerNormBackward {
            dz: dz.view_mut(),
            dgamma_acc: dgamma.view_mut(),
            dbeta_acc: dbeta.view_mut(),
            dh: dh.view(),
            z: z.view(),
            stats: stats.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            row_weight: row_weight.view(),
            dropout: drops.then(|| dropout.argument()),
        });
        let factors = if drops { dropout.factors(width) } else { vec![1.0; rows * width] };
        let upstream = times(&dh.host, &factors);
        let per_row: Vec<f64> = (0..rows * width).map(|i| upstream[i] * row_weight.host[i / width]).collect();
        let dgamma_new = gradient(&gamma.host, |g| dot(&layer(&z.host, g, &beta.host), &per_row));
        let dbeta_new = gradient(&beta.host, |b| dot(&layer(&z.host, &gamma.host, b), &per_row));
        bench.check("dz", &dz, &gradient(&z.host, |z| dot(&layer(z, &gamma.host, &beta.host), &upstream)));
        bench.check_f32("dgamma", &dgamma.buffer, &add(&dgamma.host, &dgamma_new));
        bench.check_f32("dbeta", &dbeta.buffer, &add(&dbeta.host, &dbeta_new));
    }
}

pub fn bias_relu<B: Backend>(backend: &B) {
    for (rows, width) in [(3, 21), (67, 48)] {
        one_bias_relu(backend, rows, width);
    }
}

fn one_bias_relu<B: Backend>(backend: &B, rows: usize, width: usize) {
    let mut bench = Bench::new(backend);
    let (mut h, bias) = (bench.act(rows * width, 1.0), bench.f32(width, 1.0));
    backend.bias_relu(h.view_mut(), bias.view());
    let expected: Vec<f64> = add(&h.host, &bias.host.repeat(rows)).iter().map(|x| x.max(0.0)).collect();
    bench.check("h", &h.buffer, &expected);
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub fn score_and_backward<B: Backend>(backend: &B) {
    for (rows, width) in [(5, 128), (131, 24), (2, 75)] {
        one_score(backend, rows, width);
    }
}

fn one_score<B: Backend>(backend: &B, rows: usize, width: usize) {
    let mut bench = Bench::new(backend);
    let (h, w, b) = (bench.act(rows * width, 1.0), bench.f32(width, 0.3), bench.f32(1, 1.0));
    let row_weight = bench.f32(rows, 1.0);
    let mut scores = bench.f32_out(rows);
    backend.score(scores.view_mut(), h.view(), w.view(), b.view());
    let score =
        |h: &[f64], w: &[f64], b: f64| h.chunks(width).map(|h| sigmoid(dot(h, w) + b)).collect::<Vec<_>>();
    let expected = score(&h.host, &w.host, b.host[0]);
    bench.check_f32("scores", &scores, &expected);

    let (mut dz, mut dw, mut db) = (bench.act_out(rows * width), bench.f32(width, 1.0), bench.f32(1, 1.0));
    let (dz_out, dw_out, db_out) = (dz.view_mut(), dw.view_mut(), db.view_mut());
    backend.score_backward(dz_out, dw_out, db_out, scores.view(), h.view(), w.view(), row_weight.view());
    let dh = gradient(&h.host, |h| score(h, &w.host, b.host[0]).iter().sum());
    let open = dh.iter().zip(&h.host).map(|(d, &h)| if h > 0.0 { *d } else { 0.0 });
    bench.check("dz", &dz, &open.collect::<Vec<_>>());
    let dw_new = gradient(&w.host, |w| dot(&score(&h.host, w, b.host[0]), &row_weight.host));
    bench.check_f32("dw", &dw.buffer, &add(&dw.host, &dw_new));
    let db_new = gradient(&b.host, |b| dot(&score(&h.host, &w.host, b[0]), &row_weight.host));
    bench.check_f32("db", &db.buffer, &add(&db.host, &db_new));
}
