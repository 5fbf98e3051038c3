//! CUDA: the kernels of `kernels/`, and functions that launch them.
//!
//! [`Cuda::new`] opens a device, which is a [`Backend`](crate::ops::Backend) with bf16 activations. `docs/kernels.md` tells
//! how kernels are built, run without a GPU, and tested.
//!
//! `unsafe` is in `launch.rs`, which starts kernels, in `memory.rs`, which allocates and copies, and in `driver.rs`, which
//! reaches the driver.

mod aggregate;
mod analyzer;
mod attention;
mod device;
mod driver;
mod dropout;
mod embedding;
mod gemm;
mod gemm_sm90;
mod gradient;
mod graph;
mod group;
pub mod images;
mod launch;
mod linear;
mod lora;
mod loss;
mod memory;
mod mlp;
mod norm;
mod optim;
mod product;
mod rope;
mod rows;
mod sample;
pub mod tile {
    //! The constants of `kernels/tile.h`.
    include!(concat!(env!("OUT_DIR"), "/tile.rs"));
}

pub use device::Cuda;
pub use driver::{DeviceInfo, EMULATOR_VARIABLE, devices, emulator};
pub use memory::{Memory, Weight};

impl crate::ops::Backend for Cuda {}
