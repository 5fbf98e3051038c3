//! deepguard: harden code language models.

pub mod cpu;
pub mod error;
pub mod guard;
pub mod import;
pub mod model;
pub mod ops;
pub use error::{Error, ErrorKind, Result};
