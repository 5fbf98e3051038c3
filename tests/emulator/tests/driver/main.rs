//! The driver API, through unmodified cudarc.

mod abi;
mod capture;
mod context;
mod copies;
mod dependents;
mod graph;
mod handles;
mod ipc;
mod kernels;
mod launch_limits;
mod memory;
mod modules;
mod order;
mod support;
mod tensor_map;
