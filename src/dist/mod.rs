//! Ranks: processes that compute together, on one machine or many. [`launch`] says which of them this process
//! is.

pub mod launch;
mod slurm;
