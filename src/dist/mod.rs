//! Ranks: processes that compute together, on one machine or many.
//!
//! [`launch`] says which of them this process is. [`control`] is how they meet and how each learns that
//! another one is gone. [`fabric`] has what they compute together, and `mpi` and `nccl` are ways to do that;
//! [`assign`] says who computes what alone. A [`World`] is all of it for one process.

pub mod assign;
mod caller;
pub mod control;
pub mod fabric;
pub mod frame;
pub mod launch;
#[cfg(all(feature = "cuda", unix))]
mod library;
mod meeting;
mod message;
#[cfg(all(feature = "cli", unix))]
pub mod mpi;
#[cfg(all(feature = "cuda", unix))]
pub mod nccl;
#[cfg(all(feature = "cuda", unix))]
mod pace;
mod root;
mod shared;
mod slurm;
mod watch;
mod world;

pub use world::{Engine, World};
