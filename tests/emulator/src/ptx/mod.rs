//! From PTX text to a syntax tree.
//!
//! The subset is what nvcc and Triton write. Names are kept as text; scopes, registers and labels are
//! resolved by [`crate::decode`].

pub mod ast;
mod body;
mod lexer;
mod parser;

pub use parser::{parse, type_bytes};
