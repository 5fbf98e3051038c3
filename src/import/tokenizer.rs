//! `tokenizer.json` and its companions, from a GGUF vocabulary.

use super::vocabulary::{Model, TokenKind, Vocabulary};
use super::{bpe, spm};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::tokenizer::template_json;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// The files that describe a tokenizer.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    /// The kind of tokenizer, for the report.
    pub(super) kind: String,
    pub(super) tokenizer: Value,
    pub(super) tokenizer_config: Value,
    pub(super) special_tokens_map: Value,
    pub(super) generation_config: Value,
}

impl TokenizerFiles {
    /// Builds all files and loads `tokenizer.json` once, so that what is written is known to work.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] for a tokenizer that cannot be converted, by name.
    pub(super) fn build(vocabulary: &Vocabulary<'_>, max_length: u64) -> Result<Self> {
        let pipeline = match vocabulary.model {
            Model::Gpt2 => bpe::pipeline(vocabulary)?,
            Model::Llama => spm::pipeline(vocabulary)?,
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added_tokens(vocabulary),
            "post_processor": post_processor(vocabulary, pipeline.add_bos)?,
            "normalizer": pipeline.normalizer,
            "pre_tokenizer": pipeline.pre_tokenizer,
            "decoder": pipeline.decoder,
            "model": pipeline.model,
        });
        verify(vocabulary, &tokenizer)?;
        Ok(TokenizerFiles {
            kind: pipeline.kind,
            tokenizer,
            tokenizer_config: tokenizer_config(vocabulary, max_length)?,
            special_tokens_map: roles(vocabulary),
            generation_config: generation_config(vocabulary),
        })
    }
}

/// Tokens that are matched as a whole before any other step.
fn added_tokens(vocabulary: &Vocabulary<'_>) -> Vec<Value> {
    let whole = |kind| matches!(kind, TokenKind::Special | TokenKind::UserDefined);
    let tokens = vocabulary.iter().filter(|(_, _, kind)| whole(*kind));
    tokens
        .map(|(id, text, kind)| {
            json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == TokenKind::Special,
            })
        })
        .collect()
}

/// Puts the start and end tokens around a text, where the file or its kind of tokenizer asks for them.
fn post_processor(vocabulary: &Vocabulary<'_>, add_bos: bool) -> Result<Value> {
    let flag = |name: &str| vocabulary.metadata.get(&format!("tokenizer.ggml.add_{name}_token"));
    let before = flag("bos")?.unwrap_or(add_bos).then(|| require_bos(vocabulary)).transpose()?;
    let after = flag("eos")?.unwrap_or(false).then_some(vocabulary.eos);
    if before.is_none() && after.is_none() {
        return Ok(Value::Null);
    }
    let [before, after] = [before, after].map(|token| token.map(|id| (id, vocabulary.tokens[id])));
    Ok(template_json(before.as_slice(), after.as_slice()))
}

fn require_bos(vocabulary: &Vocabulary<'_>) -> Result<usize> {
    vocabulary.bos.ok_or_else(|| {
        Error::model(
            "metadata key `tokenizer.ggml.bos_token_id`: expected the start token that texts begin with, found no \
             such key; convert the model again with a recent llama.cpp",
        )
    })
}

fn tokenizer_config(vocabulary: &Vocabulary<'_>, max_length: u64) -> Result<Value> {
    let mut config = roles(vocabulary);
    config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    // By default this class makes token types as well, which models of these architectures do not take.
    config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    config["add_prefix_space"] = json!(false);
    config["padding_side"] = json!("right");
    config["clean_up_tokenization_spaces"] = json!(false);
    config["model_max_length"] = json!(max_length);
    config["chat_template"] = json!(vocabulary.metadata.get::<&str>("tokenizer.chat_template")?);
    Ok(config)
}

/// The texts of the tokens with a role.
fn roles(vocabulary: &Vocabulary<'_>) -> Value {
    json!({
        "bos_token": vocabulary.bos.map(|id| vocabulary.tokens[id]),
        "eos_token": vocabulary.tokens[vocabulary.eos],
        "pad_token": vocabulary.tokens[vocabulary.pad],
        "unk_token": vocabulary.unk.map(|id| vocabulary.tokens[id]),
    })
}

/// The ids of the tokens that start, end and pad a generated text.
fn generation_config(vocabulary: &Vocabulary<'_>) -> Value {
    let eos = match vocabulary.ends.as_slice() {
        [only] => json!(only),
        ends => json!(ends),
    };
    json!({"bos_token_id": vocabulary.bos, "eos_token_id": eos, "pad_token_id": vocabulary.pad})
}

/// Loads the tokenizer and asks it for the id of every token.
fn verify(vocabulary: &Vocabulary<'_>, tokenizer: &Value) -> Result<()> {
    let what = || "tokenizer: expected one that can be loaded; convert the model again".to_string();
    let loaded: Tokenizer = serde_json::from_value(tokenizer.clone()).kind(ErrorKind::Model, what)?;
    let wrong = vocabulary.ids().into_iter().find(|(text, id)| loaded.token_to_id(text) != Some(*id as u32));
    match wrong {
        None => Ok(()),
        Some((text, id)) => Err(Error::model(format!(
            "token {id}: expected `{text}` to keep its id in tokenizer.json, found {:?}; convert the model again",
            loaded.token_to_id(text)
        ))),
    }
}
