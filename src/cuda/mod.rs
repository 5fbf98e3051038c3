//! CUDA: the kernels of `kernels/`, and functions that launch them.
//!
//! [`Cuda::new`] opens a device; its methods check shapes and start a kernel each, on buffers of `cudarc`. Nothing here
//! is used by the commands yet. `docs/kernels.md` tells how kernels are built, run without a GPU, and tested.
//!
//! `unsafe` is in `launch.rs`, which starts kernels, and in `driver.rs`, which reaches the driver.

mod device;
mod driver;
mod gemm;
pub mod images;
mod launch;
mod norm;
mod optim;
pub mod tile {
    //! The constants of `kernels/tile.h`.
    include!(concat!(env!("OUT_DIR"), "/tile.rs"));
}

pub use device::Cuda;
pub use driver::{DeviceInfo, EMULATOR_VARIABLE, devices, emulator};
pub use gemm::Gemm;
