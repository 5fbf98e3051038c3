//! Memory spaces.

pub mod access;
pub mod clock;
pub mod global;
pub mod shared;
