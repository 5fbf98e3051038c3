//! Decoder-only Transformers in Hugging Face layout (METHOD §1).
