//! deepguard: harden code language models.

pub mod adapter;
pub mod attached;
pub mod cli;
pub mod cpu;
pub mod decode;
pub mod deepguard;
pub mod error;
pub mod export;
pub mod files;
pub mod guard;
pub mod import;
pub mod init;
pub mod model;
pub mod ops;
pub mod train;
pub use deepguard::DeepGuard;
pub use error::{Error, ErrorKind, Result};
