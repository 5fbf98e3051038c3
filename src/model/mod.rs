//! Decoder-only Transformers in Hugging Face layout (METHOD §1).

pub mod config;
pub mod hub;
pub mod tokenizer;
pub mod weights;

mod json;
mod rope;

pub use config::{Architecture, Config, Dtype};
pub use hub::resolve_model;
pub use rope::RopeScaling;
pub use tokenizer::{StreamDecoder, Tokenizer};
pub use weights::{TensorSpec, TensorView, Weights, expected_tensors};
