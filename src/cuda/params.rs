//! Structs that kernels take by value: the build script generates them from those that are marked
//! `KERNEL_PARAMETER` in `kernels/`.

use super::launch::TensorMap;
use super::tile::*;

/// An address in device memory; 0 is null.
pub type DevicePointer = u64;

include!(concat!(env!("OUT_DIR"), "/params.rs"));
