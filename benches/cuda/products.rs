//! The matrix products of a block, forward and backward, and those of decoding.

use criterion::Criterion;
use deepguard::cuda::{Cuda, Weight};
use deepguard::model::Weights;
use deepguard::ops::Device as _;
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::mlp::Mlp;
use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use super::cublaslt::CublasLt;
use super::device::{Device, Work};

/// Name, out_features and in_features of Qwen2.5-Coder-7B's layers.
const LAYERS: [(&str, usize, usize); 5] = [
    ("qkv", 4608, 3584),
    ("o", 3584, 3584),
    ("gate_up", 37888, 3584),
    ("down", 3584, 18944),
    ("head", 152_064, 3584),
];

pub fn run(c: &mut Criterion, device: &Device) {
    let cublas = CublasLt::open(device);
    if let Err(reason) = &cublas {
        println!("cuBLASLt is not compared with: {reason}");
    }
    for (name, out, input) in LAYERS {
        let (out, input) = (device.width(out), device.width(input));
        let weight = weight(device, out, input);
        let rows = device.rows(if name == "head" { 1024 } else { 8192 });
        let (x, mut y) = (device.random(&[rows, input]), device.zeros(&[rows, out]));
        let mut dx = device.zeros(&[rows, input]);
        let flops = Work::Flops(2.0 * (rows * out * input) as f64);
        device.measure(c, &format!("linear {name}"), flops, || {
            device.cuda.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Overwrite);
        });
        if let Ok(cublas) = &cublas {
            let theirs = cublas.linear(rows, out, input).expect("a product of cuBLASLt");
            let operand = device.random(&[out, input]);
            device.measure(c, &format!("linear {name}, cuBLASLt"), flops, || {
                theirs.run(y.view_mut(), x.view(), operand.view());
            });
        }
        device.measure(c, &format!("linear_backward {name}"), flops, || {
            device.cuda.linear_backward(dx.view_mut(), y.view(), &weight);
        });
        if name == "gate_up" {
            let (mut h, mut gate_up) = (device.zeros(&[rows, out / 2]), y.view_mut());
            for kept in [0, rows] {
                device.measure(c, &format!("gated, {kept} rows kept"), flops, || {
                    let (h, gate_up) = (h.view_mut(), gate_up.reborrow());
                    device.cuda.gated(h, gate_up, kept, x.view(), &weight, &[], out / 2);
                });
            }
        }
        for samples in [1, 16, 100] {
            let bytes = Work::Bytes((2 * out * input) as f64);
            let (x, y) = (x.first(samples.min(rows) * input), y.first_mut(samples.min(rows) * out));
            let mut y = y;
            device.measure(c, &format!("linear {name}, {samples} rows"), bytes, || {
                device.cuda.linear(y.reborrow(), x, &weight, None, &[], Write::Overwrite);
            });
        }
    }
}

fn weight(device: &Device, out: usize, input: usize) -> Weight {
    let folder = tempfile::tempdir().expect("a folder");
    let values: Vec<bf16> = device.cuda.to_host(device.random(&[out, input]).view());
    let view =
        TensorView::new(Dtype::BF16, vec![out, input], bytemuck::cast_slice(&values)).expect("a tensor");
    serialize_to_file([("w", view)], None, &folder.path().join("model.safetensors")).expect("a file");
    let weights = Weights::open(folder.path()).expect("weights");
    Cuda::load_weight(&device.cuda, &[weights.tensor("w").expect("the weight")]).expect("memory")
}
