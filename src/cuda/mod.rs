//! CUDA: the kernels of `kernels/`, and functions that launch them.
//!
//! [`Cuda::new`] opens a device, and [`Cuda::on_stream`] one on a stream of the program's own. It is a
//! [`Backend`](crate::ops::Backend) with bf16 activations. `docs/kernels.md` tells how kernels are built, run
//! without a GPU, and tested.
//!
//! `unsafe` is where the driver is called: `driver.rs` reaches it, `launch.rs` starts kernels, `memory.rs`
//! allocates and copies, `inputs.rs` copies to the device, `weights.rs` loads, `graph.rs` records,
//! `branch.rs` copies beside other work, `shards.rs` opens memory of other devices, `gather.rs` copies from
//! it, `fetch.rs` copies to the host, `bounce.rs` copies for other devices.

mod aggregate;
mod analyzer;
mod attention;
#[cfg(unix)]
mod bounce;
mod branch;
mod device;
mod driver;
mod dropout;
mod elementwise;
mod embedding;
mod fetch;
mod gather;
mod gemm;
mod graph;
pub mod images;
mod inputs;
mod launch;
mod linear;
mod lock;
mod loss;
mod matmul;
mod memory;
mod mlp;
mod norm;
mod optim;
mod params;
mod pinned;
mod prefix;
mod refusal;
mod rope;
mod rows;
mod sample;
mod shards;
mod split;
pub mod view;
mod waves;
mod weights;
pub mod tile {
    //! The constants of `kernels/tile.h`.
    include!(concat!(env!("OUT_DIR"), "/tile.rs"));
}

/// The release of cudarc whose slices and streams are taken here.
pub use cudarc;
pub use device::Cuda;
pub use driver::{DeviceInfo, EMULATOR_VARIABLE, devices, emulator, has_driver};
pub use memory::Memory;
pub use shards::{Share, ShareHandle};
pub use view::{View, ViewMut, WeightRef};
pub use weights::Weight;

#[cfg(unix)]
pub(crate) use bounce::BounceBuffer;

impl crate::ops::Backend for Cuda {}
