//! deepguard: harden code language models.

pub mod adapter;
pub mod attached;
pub mod cpu;
pub mod decode;
pub mod error;
pub mod files;
pub mod guard;
pub mod import;
pub mod init;
pub mod model;
pub mod ops;
pub mod train;
pub use error::{Error, ErrorKind, Result};
