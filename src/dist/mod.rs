//! Ranks: processes that compute together, on one machine or many.
//!
//! [`launch`] says which of them this process is. [`control`] is how they meet and how each learns that
//! another one is gone. [`fabric`] has what they compute together, and `mpi` is one way to do that;
//! [`assign`] says who computes what alone. A [`World`] is all of it for one process.

pub mod assign;
mod caller;
pub mod control;
pub mod fabric;
pub mod frame;
pub mod launch;
mod meeting;
mod message;
#[cfg(all(feature = "cli", unix))]
pub mod mpi;
mod root;
mod shared;
mod slurm;
mod watch;
mod world;

pub use world::{Engine, World};
