//! One module per operation family; each test body runs on any backend.

pub mod aggregate;
pub mod analyzer;
pub mod attention;
pub mod bench;
pub mod contracts;
pub mod elementwise;
pub mod embedding;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod mlp;
pub mod norm;
pub mod optim;
pub mod prefix;
pub mod rope;
pub mod sample;
