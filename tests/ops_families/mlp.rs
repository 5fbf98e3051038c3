use deepguard::ops::Backend;
use deepguard::ops::gemm::{LoraTerm, Write};
use safetensors::Dtype;

use super::bench::{Bench, dot, gradient, product};

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
    // Rows for each kernel; columns that are no multiple of a block's; k short, odd, and long enough for whole turns.
    for (rows, width, input) in [(1, 3, 5), (5, 37, 40), (9, 16, 1100), (23, 12, 64)] {
        for (adapters, adapted) in [(0, rows), (1, rows), (2, rows), (3, rows / 2)] {
            gated_case(backend, (rows, width, input), adapters, adapted);
        }
    }
}

/// Many rows, for which a backend may round what lies between: in every bit what the two operations make.
pub fn gated_many_rows<B: Backend>(backend: &B) {
    let (rows, width, input) = (40, 24, 72);
    let mut bench = Bench::new(backend);
    let (weight, _) = bench.weight(&[width, width], input, Dtype::BF16);
    let x = bench.act(rows * input, 0.2);
    let mut gate_up = bench.act_out(rows * 2 * width);
    let (mut h, mut expected) = (bench.act_out(rows * width), bench.act_out(rows * width));
    backend.gated(h.view_mut(), gate_up.view_mut(), x.view(), &weight, &[], width);
    backend.linear(gate_up.view_mut(), x.view(), &weight, None, &[], Write::Overwrite);
    backend.swiglu(expected.view_mut(), gate_up.view(), width);
    bench.finish();
    let [h, expected] = [h, expected].map(|buffer| backend.download_act(buffer.view()));
    assert_eq!(h, expected);
    assert!(h.iter().any(|&x| x != 0.0));
}

/// Bit 0 of `adapters` stands for the gate, bit 1 for what it gates; the first `adapted` rows have them.
fn gated_case<B: Backend>(
    backend: &B,
    (rows, width, input): (usize, usize, usize),
    adapters: usize,
    adapted: usize,
) {
    let rank = 11;
    let mut bench = Bench::new(backend);
    let (weight, values) = bench.weight(&[width, width], input, Dtype::BF16);
    let x = bench.act(rows * input, 2.0 / (input as f64).sqrt());
    let parts: Vec<_> = (0..2)
        .filter(|part| adapters >> part & 1 == 1)
        .map(|part| (part * width, bench.act(adapted * rank, 0.5), bench.act(width * rank, 0.5)))
        .collect();
    let mut between = product(&x.host, &values, input);
    for (column, xa, b) in &parts {
        for (i, sum) in product(&xa.host, &b.host, rank).iter().enumerate() {
            between[i / width * 2 * width + column + i % width] += sum;
        }
    }
    let lora: Vec<LoraTerm<'_, B>> = parts
        .iter()
        .map(|(column, xa, b)| LoraTerm {
            xa: xa.view(),
            b: b.view(),
            column: *column,
            out_features: width,
            rank,
        })
        .collect();
    let (mut h, mut gate_up) = (bench.act_out(rows * width), bench.act_out(rows * 2 * width));
    backend.gated(h.view_mut(), gate_up.view_mut(), x.view(), &weight, &lora, width);
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
