//! Tensor cores, matrix loads and the tensor memory accelerator against definitions written down a second
//! time.

mod common;
mod matrix;
mod mma;
mod reduce;
mod tensor_map;
mod tma;
mod wgmma;
