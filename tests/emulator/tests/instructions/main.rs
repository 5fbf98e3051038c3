//! What the executor itself does, instruction by instruction.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod atomics;
mod barriers;
mod calls;
mod clusters;
mod control;
mod copies;
mod matrices;
mod mbarriers;
mod moves;
mod traffic;
mod variables;
mod warp;
