//! Converts models of other formats into Hugging Face directories.
