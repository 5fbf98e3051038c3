//! Byte-level BPE (`gpt2`): the listed merges, and the pre-tokenizer that the file names.
//!
//! GGUF stores only the name of the rules that split text before merging. The rules below are those of the
//! model's own `tokenizer.json`, which llama.cpp reproduces.

use super::pipeline::Pipeline;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Patterns that are applied one after the other.
const DEEPSEEK_CODER: [&str; 4] =
    [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"];
/// What llama.cpp applies where a converter did not recognise the tokenizer: the second is GPT-2's own rule.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
];

/// What a pre-tokenizer's name stands for.
struct Rules {
    normalizer: Value,
    steps: Vec<Value>,
    /// A piece that is a token as a whole is not built from merges.
    ignore_merges: bool,
    /// Where the file does not say.
    add_bos: bool,
}

/// The parts of `tokenizer.json` that are particular to byte-level BPE.
///
/// # Errors
/// [`crate::ErrorKind::Model`] for a pre-tokenizer that is not known here, and for merges of unknown tokens.
pub(super) fn pipeline(vocabulary: &Vocabulary<'_>) -> Result<Pipeline> {
    let name: &str = vocabulary.metadata.need("tokenizer.ggml.pre")?;
    let rules = rules(name)?;
    Ok(Pipeline {
        kind: format!("gpt2 ({name})"),
        normalizer: rules.normalizer,
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": rules.steps }),
        decoder: byte_level(true),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": rules.ignore_merges, "vocab": vocabulary.ids(), "merges": merges(vocabulary)?,
        }),
        add_bos: rules.add_bos,
    })
}

fn rules(name: &str) -> Result<Rules> {
    let steps = match name {
        "gpt-2" => vec![byte_level(true)],
        "smollm" | "starcoder" | "refact" => vec![digits(), byte_level(true)],
        "qwen2" => vec![split(QWEN2), byte_level(false)],
        "llama-bpe" | "llama3" | "llama-v3" => vec![split(LLAMA3), byte_level(false)],
        "seed-coder" => vec![split(SEED_CODER), byte_level(false)],
        "deepseek-coder" => {
            DEEPSEEK_CODER.into_iter().map(split).chain([digits(), byte_level(false)]).collect()
        }
        "default" => DEFAULT.into_iter().map(split).chain([byte_level(false)]).collect(),
        _ => {
            return Err(Error::model(format!(
                "pre-tokenizer: expected gpt-2, smollm, starcoder, refact, qwen2, llama-bpe, seed-coder, \
                 deepseek-coder or default, found `{name}`; use the Hugging Face directory of this model instead"
            )));
        }
    };
    let llama3 = matches!(name, "llama-bpe" | "llama3" | "llama-v3");
    let normalizer = if name == "qwen2" { json!({ "type": "NFC" }) } else { Value::Null };
    Ok(Rules { normalizer, steps, ignore_merges: llama3, add_bos: llama3 })
}

/// Maps bytes to characters; `split` also applies GPT-2's splitting rule first.
fn byte_level(split: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split })
}

fn digits() -> Value {
    json!({ "type": "Digits", "individual_digits": true })
}

fn split(regex: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false })
}

/// The merges as pairs, in order of rank.
fn merges<'m>(vocabulary: &Vocabulary<'m>) -> Result<Vec<[&'m str; 2]>> {
    let ids = vocabulary.ids();
    let merges: &[&str] = vocabulary.metadata.need("tokenizer.ggml.merges")?;
    merges.iter().enumerate().map(|(rank, merge)| read_merge(&ids, rank, merge)).collect()
}

fn read_merge<'m>(ids: &HashMap<&str, usize>, rank: usize, merge: &'m str) -> Result<[&'m str; 2]> {
    let known = |token: &str| ids.contains_key(token);
    match merge.split_once(' ') {
        Some((left, right)) if known(left) && known(right) && known(&[left, right].concat()) => {
            Ok([left, right])
        }
        _ => Err(Error::model(format!(
            "merge {rank}: expected two tokens that together are a token, found `{merge}`; convert the model again"
        ))),
    }
}
