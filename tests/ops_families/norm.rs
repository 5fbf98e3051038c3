use deepguard::ops::Backend;

use super::bench::{Bench, add, dot, gradient};

const EPS: f64 = 1e-5;

fn reference(x: &[f64], weight: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let width = weight.len();
    let rstd: Vec<f64> = x.chunks(width).map(|x| 1.0 / (dot(x, x) / width as f64 + EPS).sqrt()).collect();
    let y = x.iter().enumerate().map(|(i, x)| weight[i % width] * x * rstd[i / width]).collect();
    (y, rstd)
}

pub fn forward<B: Backend>(backend: &B) {
    // Single elements; with 16-byte accesses and without; more than a thread keeps in registers, both ways;
    // more rows than are taken at once.
    for (rows, width) in [(1, 1), (3, 17), (7, 160), (3, 1000), (2, 1303), (2, 8200), (2300, 8)] {
        let mut bench = Bench::new(backend);
        let (x, weight) = (bench.act(rows * width, 3.0), bench.f32(width, 1.0));
        let (mut y, mut rstd) = (bench.act_out(rows * width), bench.f32_out(rows));
        backend.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), EPS as f32);
        let (expected, expected_rstd) = reference(&x.host, &weight.host);
        bench.check("y", &y, &expected);
        bench.check_f32("rstd", &rstd, &expected_rstd);
    }
}

pub fn backward<B: Backend>(backend: &B) {
    for (rows, width) in [(5, 37), (9, 72)] {
        one_backward(backend, rows, width);
    }
}

fn one_backward<B: Backend>(backend: &B, rows: usize, width: usize) {
    let mut bench = Bench::new(backend);
    let (x, weight) = (bench.act(rows * width, 2.0), bench.f32(width, 1.0));
    let (dy, mut dx) = (bench.act(rows * width, 1.0), bench.act(rows * width, 1.0));
    let rstd = bench.f32_of(&reference(&x.host, &weight.host).1);
    backend.rms_norm_backward(dx.view_mut(), dy.view(), x.view(), rstd.view(), weight.view());
    let expected = gradient(&x.host, |x| dot(&reference(x, &weight.host).0, &dy.host));
    bench.check("dx", &dx.buffer, &add(&expected, &dx.host));
}
