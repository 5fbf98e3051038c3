//! What kernels cost, counted by the emulator, against what is needed.

#[path = "common/emulator.rs"]
mod emulator;
#[path = "common/places.rs"]
mod places;
mod support;
#[path = "common/tiny.rs"]
mod tiny;

mod budgets {
    pub mod aggregate;
    pub mod analyzer;
    pub mod attention;
    pub mod counting;
    pub mod decode;
    pub mod elementwise;
    pub mod embedding;
    pub mod gemm;
    pub mod host_time;
    pub mod linear;
    pub mod loss;
    pub mod matmul;
    pub mod memory;
    pub mod mlp;
    pub mod norm;
    pub mod optim;
    pub mod prefix;
    pub mod sample;
    pub mod steps;
    pub mod sven_lengths;
    pub mod topologies;
}
