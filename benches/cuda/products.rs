//! The matrix products of a block, forward and backward, and those of decoding.

use deepguard::cuda::Cuda;
use deepguard::ops::Buffer;
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::matrix::Matrix;
use deepguard::ops::mlp::Mlp;
use half::bf16;

use super::cublaslt::CublasLt;
use super::device::{Device, Work};
use super::predicted;

/// Rows of a training step of 16 pairs of SVEN's mean lengths: of secure functions, and with the vulnerable
/// ones' suffixes; and of a chunk of logits.
const SECURE: usize = 6912;
const ROWS: usize = 10_048;
const CHUNK: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Forward,
    /// The gradient of the input.
    Backward,
    /// With the gate and its product in the epilogue.
    Gated,
}

/// The products of a step of Qwen2.5-Coder-7B, by the names of `tests/roofline/predicted.csv`: rows, and
/// out_features and in_features of the layer.
const STEP: [(&str, Of, [usize; 3]); 10] = [
    ("gate and up", Of::Gated, [ROWS, 37_888, 3584]),
    ("gate and up, dX", Of::Backward, [SECURE, 37_888, 3584]),
    ("down", Of::Forward, [ROWS, 3584, 18_944]),
    ("down, dX", Of::Backward, [SECURE, 3584, 18_944]),
    ("qkv", Of::Forward, [ROWS, 4608, 3584]),
    ("qkv, dX", Of::Backward, [SECURE, 4608, 3584]),
    ("o", Of::Forward, [ROWS, 3584, 3584]),
    ("o, dX", Of::Backward, [SECURE, 3584, 3584]),
    ("head, twice", Of::Forward, [CHUNK, 152_064, 3584]),
    ("head, dX", Of::Backward, [CHUNK, 152_064, 3584]),
];

pub fn run(device: &Device) {
    println!("\n### Products of a training step of 16 pairs, 7B\n");
    let cublas = CublasLt::open(device);
    if let Err(reason) = &cublas {
        println!("cuBLASLt is not compared with: {reason}.\n");
    }
    println!(
        "| product | rows × out × in | µs | TFLOP/s | of the data sheet's peak | of the peak at the clock read | \
         predicted TFLOP/s, H100 | measured ÷ predicted | cuBLASLt TFLOP/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, of, shape) in STEP {
        product_of_a_step(device, cublas.as_ref().ok(), (name, of, shape));
    }
    few_rows(device);
}

fn product_of_a_step(device: &Device, cublas: Option<&CublasLt>, (name, of, shape): (&str, Of, [usize; 3])) {
    let (rows, out, input) = (device.rows(shape[0]), device.width(shape[1]), device.width(shape[2]));
    let operand = device.random(&[out, input]);
    let weight = device.cuda.weight(Matrix::new(operand.view(), out, input)).expect("aligned rows");
    let (mut x, mut y) = (device.random(&[rows, input]), device.random(&[rows, out]));
    let mut h: Buffer<Cuda, bf16> = device.zeros(&[rows, out / 2]);
    let found = device.cold(|| match of {
        Of::Forward => device.cuda.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Overwrite),
        Of::Backward => device.cuda.linear_backward(x.view_mut(), y.view(), &weight),
        Of::Gated => device.cuda.gated(h.view_mut(), y.view_mut(), rows, x.view(), &weight, &[], out / 2),
    });
    let flops = 2.0 * (rows * out * input) as f64;
    let [rate, sheet, clocked] = device.rates(flops, &found);
    let predicted = predicted::tflops(name);
    let share = predicted.map_or("–".into(), |p| format!("{:.2}", flops / found.median / 1e12 / p));
    let theirs = match cublas {
        Some(cublas) if of != Of::Backward => {
            let theirs = cublas.linear(rows, out, input).expect("a product of cuBLASLt");
            let found = device.cold(|| theirs.run(y.view_mut(), x.view(), operand.view()));
            format!("{:.0}", flops / found.median / 1e12)
        }
        _ => "–".into(),
    };
    let shape = format!("{} × {} × {}", shape[0], shape[1], shape[2]);
    let time = format!("{:.1}", found.median * 1e6);
    let predicted = predicted.map_or("–".into(), |p| format!("{p:.0}"));
    found.print(name, &[&shape, &time, &rate, &sheet, &clocked, &predicted, &share, &theirs]);
}

/// Layers as decoding computes them, bound by the bytes of their weights.
fn few_rows(device: &Device) {
    device.table("Products of decoding, 7B");
    for (name, shape) in [("qkv", [4608, 3584]), ("gate_up", [37_888, 3584]), ("down", [3584, 18_944])] {
        let [out, input] = shape.map(|width| device.width(width));
        let operand = device.random(&[out, input]);
        let weight = device.cuda.weight(Matrix::new(operand.view(), out, input)).expect("aligned rows");
        for samples in [1, 16, 100] {
            let rows = device.rows(samples).min(samples);
            let (x, mut y) = (device.random(&[rows, input]), device.zeros(&[rows, out]));
            let bytes = Work::Bytes((2 * out * input) as f64);
            device.measure(&format!("linear {name}, {samples} rows"), bytes, || {
                device.cuda.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Overwrite);
            });
        }
    }
}
