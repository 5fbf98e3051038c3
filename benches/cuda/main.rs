//! What a GPU does, as rows of Markdown tables: the constants of the machine that predictions take from
//! elsewhere, the matrix products of a 7B training step beside their predicted times and cuBLASLt's, every
//! other kernel at the sizes of Qwen2.5-Coder-7B, and whole training steps and decoding passes of random
//! models of its shape and of the 0.5B one's.
//!
//! `cargo bench --bench cuda [-- PART…]` on a machine with an NVIDIA GPU; the parts are `machine`,
//! `products`, `kernels` and `steps`. Without a GPU there is nothing to measure; with `--test` every case
//! runs once and small, also on the emulator, and nothing is timed.

mod cublaslt;
mod device;
mod machine;
mod ops;
mod predicted;
mod products;
mod ptx;
#[path = "../common/random_model.rs"]
mod random_model;
mod steps;
#[path = "../common/workload.rs"]
mod workload;

use deepguard::cuda::{Cuda, emulator};
use device::Device;

type Part = (&'static str, fn(&Device));

const PARTS: [Part; 4] =
    [("machine", machine::run), ("products", products::run), ("kernels", ops::run), ("steps", steps::run)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let testing = arguments.iter().any(|argument| argument == "--test");
    let named: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| PARTS.iter().all(|(part, _)| part != *name)) {
        eprintln!("expected parts among {}, found {unknown}", PARTS.map(|(part, _)| part).join(", "));
        std::process::exit(2);
    }
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
    for (_, run) in PARTS.iter().filter(|(part, _)| named.is_empty() || named.contains(part)) {
        run(&device);
    }
}
