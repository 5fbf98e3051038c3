//! The matrix products of a block, forward and backward, and those of decoding.

use deepguard::cuda::Cuda;
use deepguard::ops::Buffer;
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::matrix::Matrix;
use deepguard::ops::mlp::Mlp;
use half::bf16;

use super::cublaslt::CublasLt;
use super::device::{Device, Work};
use super::workload;

/// Rows of a chunk of logits.
const CHUNK: usize = 1152;

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Forward,
    /// The gradient of the input.
    Backward,
    /// With the gate and its product in the epilogue.
    Gated,
    /// The gradient of the input, with those of gate and up in the epilogue.
    GatedBackward,
}

impl Of {
    /// What its kernels' names begin with.
    fn kernel(self) -> &'static str {
        match self {
            Of::Forward => "gemm_nt_",
            Of::Backward => "gemm_nn_",
            Of::Gated => "gemm_nt_gated",
            Of::GatedBackward => "gemm_nn_gated",
        }
    }
}

/// The products of a step of Qwen2.5-Coder-7B: rows, and out_features and in_features of the layer.
fn step() -> [(&'static str, Of, [usize; 3]); 10] {
    let (secure, rows) = workload::rows(&workload::lengths());
    [
        ("gate and up", Of::Gated, [rows, 37_888, 3584]),
        ("gate and up, dX", Of::Backward, [secure, 37_888, 3584]),
        ("down", Of::Forward, [rows, 3584, 18_944]),
        ("down, dX, and SwiGLU's", Of::GatedBackward, [secure, 3584, 18_944]),
        ("qkv", Of::Forward, [rows, 4608, 3584]),
        ("qkv, dX", Of::Backward, [secure, 4608, 3584]),
        ("o", Of::Forward, [rows, 3584, 3584]),
        ("o, dX", Of::Backward, [secure, 3584, 3584]),
        ("head", Of::Forward, [CHUNK, 152_064, 3584]),
        ("head, dX", Of::Backward, [CHUNK, 152_064, 3584]),
    ]
}

pub fn run(device: &Device) {
    println!("\n### Products of a training step of 16 pairs, 7B\n");
    let cublas = CublasLt::open(device);
    if let Err(reason) = &cublas {
        println!("cuBLASLt is not compared with: {reason}.\n");
    }
    println!(
        "| product | rows × out × in | predicted µs | µs | measured ÷ predicted | TFLOP/s | of the data sheet's peak \
         | of the peak at the clock read | cuBLASLt TFLOP/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for product in step() {
        product_of_a_step(device, cublas.as_ref().ok(), product);
    }
    few_rows(device);
}

fn product_of_a_step(device: &Device, cublas: Option<&CublasLt>, (name, of, shape): (&str, Of, [usize; 3])) {
    let (rows, out, input) = (device.rows(shape[0]), device.width(shape[1]), device.width(shape[2]));
    let operand = device.random(&[out, input]);
    let weight = device.cuda.weight(Matrix::new(operand.view(), out, input)).expect("aligned rows");
    let (mut x, mut y) = (device.random(&[rows, input]), device.random(&[rows, out]));
    let mut h: Buffer<Cuda, bf16> = device.zeros(&[rows, out / 2]);
    let both = if of == Of::GatedBackward { 2 * input } else { 0 };
    let (gate_up, mut dgate_up) = (device.random(&[rows, both]), device.zeros(&[rows, both]));
    let found = device.cold(|| match of {
        Of::Forward => device.cuda.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Overwrite),
        Of::Backward => device.cuda.linear_backward(x.view_mut(), y.view(), &weight),
        Of::Gated => device.cuda.gated(h.view_mut(), y.view_mut(), rows, x.view(), &weight, &[], out / 2),
        Of::GatedBackward => {
            let (to, dh) = (dgate_up.view_mut(), x.view_mut());
            device.cuda.gated_backward(to, dh, y.view(), &weight, gate_up.view(), input);
        }
    });
    let flops = 2.0 * shape.iter().map(|&n| n as f64).product::<f64>();
    let [rate, sheet, clocked] = device.rates(flops, &found);
    let theirs = match cublas {
        Some(cublas) if !matches!(of, Of::Backward | Of::GatedBackward) => {
            let theirs = cublas.linear(rows, out, input).expect("a product of cuBLASLt");
            let found = device.cold(|| theirs.run(y.view_mut(), x.view(), operand.view()));
            format!("{:.0}", flops / found.seconds / 1e12)
        }
        _ => "–".into(),
    };
    let [predicted, us, share] = found.beside(device.predictions.product(of.kernel(), flops));
    let shape = format!("{} × {} × {}", shape[0], shape[1], shape[2]);
    found.print(&[name, &shape, &predicted], &[&us, &share, &rate, &sheet, &clocked, &theirs]);
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
