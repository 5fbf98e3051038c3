//! Tensor cores, matrix loads and stores, and the tensor memory accelerator.
//!
//! Everything here is a pure function over register rows and bytes; the executor checks accesses and plugs
//! them in.

mod accumulator;
mod element;
mod fragment;
mod simd;

pub mod descriptor;
pub mod matrix;
pub mod mma;
pub mod reduce;
pub mod swizzle;
pub mod tensor_map;
pub mod tma;
pub mod wgmma;
