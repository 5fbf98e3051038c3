//! deepguard: harden code language models.

pub mod attached;
pub mod cpu;
pub mod error;
pub mod guard;
pub mod import;
pub mod model;
pub mod ops;
pub mod train;
pub use error::{Error, ErrorKind, Result};
