//! Memory spaces.

pub mod access;
pub mod global;
