//! How fast kernels run with all checks on, on one core.
//!
//! `sgemm` is ordinary arithmetic: its elements are warp instructions. `gemm` keeps the tensor cores busy:
//! its elements are floating-point operations. Both PTX files are nvcc's, of `sgemm.cu` beside this file and
//! of `kernels/gemm.cu`.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cuda_emulator::counters::Counters;
use cuda_emulator::machine::{Function, Launch, Machine, Module, Options};

/// Rows, columns and inner dimension of the products.
const SIZE: u32 = 512;

struct Kernel {
    machine: Machine,
    function: Arc<Function>,
    launch: Launch,
}

impl Kernel {
    /// A kernel whose first three parameters are matrices of `bytes` bytes, followed by `rest`.
    fn new(ptx: &str, name: &str, bytes: usize, rest: &[u8]) -> Self {
        let machine = Machine::new(Options { threads: 1, ..Options::default() });
        let module = Module::load(ptx, &machine.memory).expect("PTX of nvcc");
        let function = module.function(name).expect("the kernel");
        let mut params = Vec::new();
        for _ in 0..3 {
            let address = machine.memory.alloc(bytes as u64).expect("memory");
            machine.memory.fill(address, &[0x3F], bytes as u64).expect("a place");
            params.extend(address.to_le_bytes());
        }
        params.extend(rest);
        let launch = Launch {
            grid: [1; 3],
            block: [1; 3],
            cluster: [1; 3],
            dynamic_shared: 0,
            params,
            cooperative: false,
        };
        Kernel { machine, function, launch }
    }

    fn run(&self) -> Counters {
        self.machine.launch(&self.function, &self.launch).expect("no fault")
    }
}

fn sgemm() -> Kernel {
    let rest = [SIZE.to_le_bytes(), SIZE.to_le_bytes()].concat();
    let mut kernel = Kernel::new(include_str!("sgemm.ptx"), "sgemm", (SIZE * SIZE * 4) as usize, &rest);
    kernel.launch.grid = [SIZE / 64, SIZE / 64, 1];
    kernel.launch.block = [64, 1, 1];
    kernel
}

fn gemm() -> Kernel {
    let size = SIZE.to_le_bytes();
    let rest = [&[0; 8][..], &size, &size, &size, &[0; 4]].concat();
    let mut kernel = Kernel::new(include_str!("gemm.ptx"), "gemm_nt", (SIZE * SIZE * 2) as usize, &rest);
    kernel.launch.grid = [SIZE / 128, SIZE / 128, 1];
    kernel.launch.block = [256, 1, 1];
    kernel.launch.dynamic_shared = 4 * 2 * 128 * 32 * 2;
    kernel
}

fn speed(criterion: &mut Criterion) {
    let kernel = sgemm();
    let mut group = criterion.benchmark_group("emulator");
    group.sample_size(10);
    group.throughput(Throughput::Elements(kernel.run().warp_instructions()));
    group.bench_function("sgemm, warp instructions", |bencher| bencher.iter(|| kernel.run()));
    let kernel = gemm();
    let counters = kernel.run();
    group.throughput(Throughput::Elements(counters.warp_instructions()));
    group.bench_function("gemm, warp instructions", |bencher| bencher.iter(|| kernel.run()));
    group.throughput(Throughput::Elements(counters.tensor_flops));
    group.bench_function("gemm, tensor operations", |bencher| bencher.iter(|| kernel.run()));
}

criterion_group!(benches, speed);
criterion_main!(benches);
