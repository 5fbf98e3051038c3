//! Kernels that do something wrong, each with the fault it must end in, and their corrected twins, which must
//! not fault in any order.

#[path = "../support/mod.rs"]
mod support;

mod asynchronous;
mod barriers;
mod blocks;
mod clusters;
mod convergence;
mod deadlocks;
mod memory;
mod races;
mod refusals;
mod registers;
mod wgmma;
