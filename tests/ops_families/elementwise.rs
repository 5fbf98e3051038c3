use deepguard::ops::Backend;

use super::bench::{Bench, add as sum};

pub fn scale_rows<B: Backend>(backend: &B) {
    let (rows, width) = (3, 19);
    let mut bench = Bench::new(backend);
    let (x, weight, mut y) =
        (bench.act(rows * width, 1.0), bench.f32(rows, 1.0), bench.act_out(rows * width));
    backend.scale_rows(y.view_mut(), x.view(), weight.view(), 0.3);
    let scaled = |(i, x): (usize, &f64)| f64::from(0.3f32) * weight.host[i / width] * x;
    bench.check("y", &y, &x.host.iter().enumerate().map(scaled).collect::<Vec<_>>());
}

pub fn add<B: Backend>(backend: &B) {
    let (rows, width) = (5, 7013);
    let mut bench = Bench::new(backend);
    let (mut y, x) = (bench.act(rows * width, 1.0), bench.act(rows * width, 1.0));
    backend.add(y.view_mut(), x.view());
    bench.check("add", &y.buffer, &sum(&y.host, &x.host));
}

pub fn cast<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (from, mut to) = (bench.f32(37, 1.0), bench.act_out(37));
    backend.cast(to.view_mut(), from.view());
    bench.check("operands", &to, &from.host);
}
