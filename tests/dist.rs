//! Ranks: what starts them, how they meet, what they notice of each other.

#[path = "dist/assign.rs"]
mod assign;
#[cfg(unix)]
#[path = "dist/check.rs"]
mod check;
#[path = "dist/control.rs"]
mod control;
#[cfg(unix)]
#[path = "dist/crew.rs"]
mod crew;
#[cfg(unix)]
#[path = "dist/faults.rs"]
mod faults;
#[cfg(target_os = "linux")]
#[path = "dist/hosts.rs"]
mod hosts;
#[path = "dist/launch.rs"]
mod launch;
#[cfg(unix)]
#[path = "dist/leases.rs"]
mod leases;
#[cfg(target_os = "linux")]
#[path = "dist/machines.rs"]
mod machines;
#[cfg(unix)]
#[path = "dist/mpi.rs"]
mod mpi;
#[cfg(unix)]
#[path = "dist/nccl.rs"]
mod nccl;
#[path = "common/places.rs"]
mod places;
#[cfg(unix)]
#[path = "common/required.rs"]
mod required;
#[cfg(unix)]
#[path = "dist/shards.rs"]
mod shards;
#[cfg(target_os = "linux")]
#[path = "dist/slurm.rs"]
mod slurm;
#[path = "budgets/sven_lengths.rs"]
mod sven_lengths;
#[path = "common/tiny.rs"]
mod tiny;
#[cfg(unix)]
#[path = "dist/train.rs"]
mod train;
