//! Ranks: processes that compute together, on one machine or many.
//!
//! [`launch`] says which of them this process is. [`control`] is how they meet and how each learns that
//! another one is gone. [`fabric`] has what they compute together, and `mpi` and `nccl` are ways to do that;
//! [`assign`] says who computes what alone. A [`World`] is all of it for one process. Where nothing has to be
//! summed, ranks are a [`Crew`], which [leases] units of work: that needs the control plane alone, and a rank
//! that is lost costs a unit.

pub mod assign;
mod caller;
pub mod control;
mod crew;
pub mod fabric;
pub mod frame;
pub mod launch;
pub mod leases;
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

pub use crew::{Crew, Outcome, Work};
pub use root::OnLoss;
pub use world::{Engine, World};
