//! A library in NCCL's place: the functions that `src/dist/nccl.rs` of deepguard calls, and their groups, for
//! nonblocking communicators of processes on one machine. It reaches the GPU through the driver that the
//! process has loaded, so that the emulator can be that one.
//!
//! It does what NCCL may do, at its worst: a call only begins once it has been asked about a few times, and
//! until it is done its destination holds rubbish; sums are taken in any order. What NCCL would hang or be
//! wrong with it refuses, with the rank and the number of the call on stderr.
//!
//! | variable | meaning |
//! |---|---|
//! | `DG_NCCL_SEED` | seed of delays and orders, 0 if not set |
//! | `DG_NCCL_RELEASE` | what it says it is, 22703 if not set |
//! | `DG_NCCL_FAULT` | `rank=1,call=3,KIND`: what goes wrong on a rank, at its third collective |
//!
//! Kinds: `remote`, `system`, `cuda`, `timeout` and `unknown` are results; `hang`, `slow=MS`, `die` and
//! `flip-bit` are what becomes of the collective; `abort-hang` is `remote`, and `ncclCommAbort` hangs after
//! it; `init-hang`, `init-fail` and `finalize-hang` need no call.

#![allow(non_snake_case)]

pub mod api;
mod comm;
mod driver;
mod fault;
mod hub;
mod launch;
mod wire;

pub use api::*;
