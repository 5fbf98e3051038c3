use deepguard::ops::Backend;

use super::bench::{Bench, dot, gradient};

fn reference(gate_up: &[f64], width: usize) -> Vec<f64> {
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let row = |row: &[f64]| (0..width).map(|i| silu(row[i]) * row[width + i]).collect::<Vec<_>>();
    gate_up.chunks(2 * width).flat_map(row).collect()
}

pub fn forward<B: Backend>(backend: &B) {
    for (rows, width) in [(1, 1), (4, 37)] {
        let mut bench = Bench::new(backend);
        let gate_up = bench.act(rows * 2 * width, 4.0);
        let mut h = bench.act_out(rows * width);
        backend.swiglu(h.view_mut(), gate_up.view(), width);
        bench.check("h", &h, &reference(&gate_up.host, width));
    }
}

pub fn backward<B: Backend>(backend: &B) {
    let (rows, width) = (3, 21);
    let mut bench = Bench::new(backend);
    let (gate_up, dh) = (bench.act(rows * 2 * width, 4.0), bench.act(rows * width, 1.0));
    let mut d = bench.act_out(rows * 2 * width);
    backend.swiglu_backward(d.view_mut(), dh.view(), gate_up.view(), width);
    let expected = gradient(&gate_up.host, |x| dot(&reference(x, width), &dh.host));
    bench.check("dgate_up", &d, &expected);
}

/// e¹⁰⁰⁰ must not become a NaN.
pub fn extremes<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let gate_up = bench.act_of(&[1000.0, -1000.0, 0.0, 2.0, 3.0, 4.0]);
    let (mut h, mut d) = (bench.act_out(3), bench.act_out(6));
    backend.swiglu(h.view_mut(), gate_up.view(), 3);
    bench.check("h", &h, &[2000.0, 0.0, 0.0]);
    let dh = bench.act_of(&[1.0; 3]);
    backend.swiglu_backward(d.view_mut(), dh.view(), gate_up.view(), 3);
    bench.check("dgate_up", &d, &[2.0, 0.0, 2.0, 1000.0, 0.0, 0.0]);
}
