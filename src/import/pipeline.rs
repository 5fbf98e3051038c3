//! What kinds of tokenizers differ in.

use serde_json::Value;

/// The parts of `tokenizer.json` that differ between kinds of tokenizers.
pub(super) struct Pipeline {
    pub(super) kind: String,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
    /// Whether the start token is prepended where the file does not say.
    pub(super) add_bos: bool,
}
