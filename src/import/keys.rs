//! The metadata keys of a file against the table of what becomes of them.

use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::model::fields::{GGUF, Handling};

/// Refuses what the table refuses and, below the architecture and the tokenizer, what it does not know: such
/// a key may change what the model computes (experts, sliding windows, scales) or the ids of a text. Returns
/// a sentence about other keys that it does not know.
///
/// # Errors
/// [`crate::ErrorKind::Model`], naming the key.
pub(super) fn check(metadata: &Metadata<'_>, architecture: &str) -> Result<Option<String>> {
    let below = format!("{architecture}.");
    let mut unknown = Vec::new();
    for key in metadata.keys() {
        let in_table = match key.strip_prefix(&below) {
            Some(name) => format!("{{arch}}.{name}"),
            None => key.to_owned(),
        };
        let strict = key.starts_with(&below) || key.starts_with("tokenizer.");
        match GGUF.handling(&in_table) {
            Some(handling @ Handling::Refused(_)) => refuse(metadata, key, handling)?,
            Some(_) => {}
            None if strict => return Err(unsupported(metadata, key, "no such key")),
            None => unknown.push(key),
        }
    }
    Ok((!unknown.is_empty()).then(|| format!("metadata keys not known and not read: {}", unknown.join(", "))))
}

fn refuse(metadata: &Metadata<'_>, key: &str, handling: Handling) -> Result<()> {
    match handling.refusal(&metadata.json(key)) {
        Some(expected) => Err(unsupported(metadata, key, &expected)),
        None => Ok(()),
    }
}

fn unsupported(metadata: &Metadata<'_>, key: &str, expected: &str) -> Error {
    Error::model(format!(
        "metadata key `{key}`: expected {expected}, found {}; this variant is not supported, use a plain model of a \
         supported architecture, or the Hugging Face directory of this one",
        metadata.describe(key)
    ))
}
