//! Memory spaces.

pub mod access;
pub mod between;
pub mod clock;
pub mod exchange;
pub mod footprint;
pub mod global;
pub mod l2;
pub mod numbers;
pub mod shared;
pub mod zeroed;
