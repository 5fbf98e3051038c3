//! deepguard: harden code language models.

pub mod cpu;
pub mod error;
pub mod import;
pub mod model;
pub use error::{Error, ErrorKind, Result};
