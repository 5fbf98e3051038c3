//! Runs PTX on the CPU behind the CUDA driver API.

pub mod alu;
pub mod client;
pub mod counters;
pub mod decode;
pub mod driver;
pub mod exec;
pub mod machine;
pub mod memory;
pub mod numeric;
pub mod ptx;
pub mod report;
pub mod row;
pub mod schedule;
pub mod tensor;

pub use client::load;
