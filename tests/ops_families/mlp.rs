use deepguard::ops::Backend;
use deepguard::ops::linear::{LoraTerm, Write};
use safetensors::Dtype;

use super::bench::{Act, Bench, dot, gradient, product};

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

/// The stacked projection and SwiGLU in one, with LoRA of gate, up, both or neither on some of the rows.
pub fn gated<B: Backend>(backend: &B) {
    // Rows for each kernel; columns that are no multiple of a block's; k short, odd, and long enough for
    // whole turns.
    for (rows, width, input) in [(1, 3, 5), (5, 37, 40), (9, 16, 1100), (23, 12, 64)] {
        for (adapters, adapted) in [(0, rows), (1, rows), (2, rows), (3, rows / 2)] {
            gated_case(backend, (rows, width, input), adapters, adapted);
        }
    }
}

/// Many rows: in every bit what the two operations make, which choose their kernels alike for these sizes,
/// and gate and up of the rows that are kept.
pub fn gated_many_rows<B: Backend>(backend: &B) {
    // k in parts, with columns that are no multiple of a tile's; columns, ranks and k that suit the tensor
    // memory accelerator, and k longer than its ring; rows that no tile divides.
    for (rows, width, input, kept, rank) in [
        (40, 24, 600, 33, 11),
        (130, 64, 72, 0, 16),
        (300, 192, 136, 130, 11),
        (300, 192, 456, 130, 16),
        (300, 128, 136, 300, 72),
    ] {
        for (adapters, adapted) in [(0, rows), (2, rows), (3, rows / 2)] {
            gated_exactly(backend, (rows, width, input), kept, (adapters, adapted, rank));
        }
    }
    // More tiles than a device computes at the same time.
    gated_exactly(backend, (1300, 1664, 72), 700, (3, 650, 16));
    // Large tiles, k in parts. With adapters of both halves, a tile would cut k elsewhere than the linear
    // layer does.
    gated_exactly(backend, (300, 1608, 520), 250, (0, 300, 8));
}

fn gated_exactly<B: Backend>(
    backend: &B,
    (rows, width, input): (usize, usize, usize),
    kept: usize,
    (adapters, adapted, rank): (usize, usize, usize),
) {
    let mut bench = Bench::new(backend);
    let (weight, _) = bench.weight(&[width, width], input, Dtype::BF16);
    let x = bench.act(rows * input, 0.2);
    let adapters = Adapters::new(&mut bench, (adapters, adapted, rank), width);
    let [mut gate_up, mut expected_gate_up] = [(); 2].map(|()| bench.act_out(rows * 2 * width));
    let [mut h, mut expected] = [(); 2].map(|()| bench.act_out(rows * width));
    let lora = adapters.terms();
    backend.gated(h.view_mut(), gate_up.view_mut(), kept, x.view(), &weight, &lora, width);
    backend.linear(expected_gate_up.view_mut(), x.view(), &weight, None, &lora, Write::Overwrite);
    backend.swiglu(expected.view_mut(), expected_gate_up.view(), width);
    bench.finish();
    let [h, expected] = [h, expected].map(|buffer| backend.download_act(buffer.view()));
    assert_eq!(h, expected, "h of {rows} rows");
    assert!(h.iter().any(|&x| x != 0.0));
    let kept = [gate_up, expected_gate_up].map(|buffer| backend.download_act(buffer.first(kept * 2 * width)));
    assert_eq!(kept[0], kept[1], "gate and up of {rows} rows");
}

/// Adapters of gate and up: lora_B, what lora_A makes of the input, and their columns.
struct Adapters<B: Backend> {
    parts: Vec<(usize, Act<B>, Act<B>)>,
    width: usize,
    rank: usize,
}

impl<B: Backend> Adapters<B> {
    /// Bit 0 of `adapters` stands for the gate, bit 1 for what it gates; the first `adapted` rows have them.
    fn new(bench: &mut Bench<'_, B>, (adapters, adapted, rank): (usize, usize, usize), width: usize) -> Self {
        let part = |part| (part * width, bench.act(adapted * rank, 0.5), bench.act(width * rank, 0.5));
        Adapters { parts: (0..2).filter(|part| adapters >> part & 1 == 1).map(part).collect(), width, rank }
    }

    fn terms(&self) -> Vec<LoraTerm<'_, B>> {
        let terms = self.parts.iter().map(|(column, xa, b)| LoraTerm {
            xa: xa.view(),
            b: b.view(),
            column: *column,
            out_features: self.width,
            rank: self.rank,
        });
        terms.collect()
    }
}

fn gated_case<B: Backend>(
    backend: &B,
    (rows, width, input): (usize, usize, usize),
    adapters: usize,
    adapted: usize,
) {
    let mut bench = Bench::new(backend);
    let (weight, values) = bench.weight(&[width, width], input, Dtype::BF16);
    let x = bench.act(rows * input, 2.0 / (input as f64).sqrt());
    let adapters = Adapters::new(&mut bench, (adapters, adapted, 11), width);
    let mut between = product(&x.host, &values, input);
    for (column, xa, b) in &adapters.parts {
        for (i, sum) in product(&xa.host, &b.host, adapters.rank).iter().enumerate() {
            between[i / width * 2 * width + column + i % width] += sum;
        }
    }
    let (mut h, mut gate_up) = (bench.act_out(rows * width), bench.act_out(rows * 2 * width));
    backend.gated(h.view_mut(), gate_up.view_mut(), 0, x.view(), &weight, &adapters.terms(), width);
    bench.check("h", &h, &reference(&between, width));
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

/// In every bit what the two operations make: rows that start anywhere, columns that are no box of a tile,
/// few tiles and rows that no tile divides, more tiles than a device computes at the same time.
pub fn gated_backward<B: Backend>(backend: &B) {
    for (rows, width, out) in
        [(3, 21, 13), (5, 64, 40), (130, 72, 136), (300, 192, 456), (70, 512, 72), (2200, 2112, 72)]
    {
        let mut bench = Bench::new(backend);
        let (weight, _) = bench.weight(&[out], width, Dtype::BF16);
        let (dy, gate_up) = (bench.act(rows * out, 0.3), bench.act(rows * 2 * width, 4.0));
        let [mut dh, mut expected_dh] = [(); 2].map(|()| bench.act_out(rows * width));
        let [mut d, mut expected] = [(); 2].map(|()| bench.act_out(rows * 2 * width));
        let (to, scratch) = (d.view_mut(), dh.view_mut());
        backend.gated_backward(to, scratch, dy.view(), &weight, gate_up.view(), width);
        backend.linear_backward(expected_dh.view_mut(), dy.view(), &weight);
        backend.swiglu_backward(expected.view_mut(), expected_dh.view(), gate_up.view(), width);
        bench.finish();
        let [d, expected] = [d, expected].map(|buffer| backend.download_act(buffer.view()));
        assert_eq!(d, expected, "dgate_up of {rows} rows");
        assert!(d.iter().any(|&x| x != 0.0));
    }
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
