//! The CUDA kernels at the sizes of Qwen2.5-Coder-7B and -0.5B, timed by the device's own events, with the
//! second-level cache flushed before each run: time, TFLOP/s or GB/s, and per cent of what the device can do
//! at best; cuBLASLt's products beside ours, where it is there. Then whole training steps and decoding passes
//! of a model of the smaller one's shape.
//!
//! `cargo bench --bench cuda` on a machine with an NVIDIA GPU. Without one there is nothing to measure; with
//! `-- --test` every case runs once, also on the emulator.

mod cublaslt;
mod device;
mod ops;
mod products;
#[path = "../common/random_model.rs"]
mod random_model;
mod steps;

use criterion::Criterion;
use deepguard::cuda::{Cuda, emulator};
use device::Device;

fn main() {
    let testing = std::env::args().any(|argument| argument == "--test");
    let cuda = match Cuda::new(0) {
        Ok(_) if emulator().is_some() && !testing => {
            eprintln!("the emulator's time says nothing about a GPU: nothing is measured");
            return;
        }
        Ok(cuda) => cuda,
        Err(error) => {
            eprintln!("nothing is measured: {error}");
            return;
        }
    };
    let device = Device::new(cuda, testing);
    println!("{}", device.describe());
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    ops::run(&mut criterion, &device);
    products::run(&mut criterion, &device);
    steps::run(&mut criterion, &device);
    criterion.final_summary();
}
