//! Decoder-only Transformers in Hugging Face layout (METHOD §1), with LoRA (§2) and taps (§3).

pub mod activations;
pub mod block;
pub mod config;
pub mod fields;
pub mod generation;
pub(crate) mod kv_cache;
pub mod lora;
pub mod params;
pub mod prefix;
#[cfg(feature = "text")]
pub mod tokenizer;
pub mod transformer;
pub mod weights;

pub(crate) mod json;
mod rope;

pub use config::{Architecture, Config};
pub use lora::{Lora, LoraConfig, Projection};
pub use rope::RopeScaling;
#[cfg(feature = "text")]
pub use tokenizer::{StreamDecoder, Tokenizer};
pub use transformer::Transformer;
pub use weights::{Weights, expected_tensors};
