//! The vocabulary of a GGUF file: tokens with their kinds, and the tokens with a role.

use super::metadata::Metadata;
use super::reader::DAMAGED;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Tokens at whose text llama.cpp ends a generation, whatever role the file gives them.
const ENDS: [&str; 14] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
];

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Text, reached by merges.
    Normal,
    /// Matched as a whole and left out of decoded text: the unknown token, control tokens, tokens with a role.
    Special,
    /// Matched as a whole, and text.
    UserDefined,
    /// Fills a row of the embedding; no text encodes to it.
    Unused,
    /// One byte of text that no other token covers.
    Byte,
}

/// The kind of tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// Byte-level BPE with listed merges.
    Gpt2,
    /// SentencePiece BPE: merges follow from scores, unknown characters fall back to bytes.
    Llama,
}

/// Tokens, kinds and roles; every id below is inside `tokens`.
#[derive(Debug)]
pub(super) struct Vocabulary<'m> {
    pub(super) metadata: &'m Metadata<'m>,
    pub(super) model: Model,
    /// Distinct and non-empty.
    pub(super) tokens: &'m [&'m str],
    /// The kind of each token.
    pub(super) kinds: Vec<TokenKind>,
    pub(super) bos: Option<usize>,
    pub(super) eos: usize,
    /// Tokens that end a generation: the end of a text, of a turn, of a message. `eos` comes first.
    pub(super) ends: Vec<usize>,
    /// The end token where the file names no padding token.
    pub(super) pad: usize,
    pub(super) unk: Option<usize>,
}

impl<'m> Vocabulary<'m> {
    /// Reads the vocabulary.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] where it contradicts itself or is of an unsupported kind.
    pub(super) fn read(metadata: &'m Metadata<'m>) -> Result<Self> {
        let model = read_model(metadata)?;
        let tokens: &[&str] = metadata.need("tokenizer.ggml.tokens")?;
        refuse_repetition(tokens)?;
        let role = |name: &str, default: usize| {
            // llama.cpp's defaults, for the files of before these keys existed.
            read_role(metadata, name, tokens, (model == Model::Llama).then_some(default))
        };
        let eos = role("eos", 2)?.ok_or_else(|| {
            Error::model(
                "metadata key `tokenizer.ggml.eos_token_id`: expected the end token, found no such key; convert the \
                 model again with a recent llama.cpp",
            )
        })?;
        let (bos, unk) = (role("bos", 1)?, role("unknown", 0)?);
        let pad = read_role(metadata, "padding", tokens, Some(eos))?.unwrap_or(eos);
        let mut kinds = read_kinds(metadata, tokens.len(), model)?;
        let of_turns = [read_role(metadata, "eot", tokens, None)?, read_role(metadata, "eom", tokens, None)?];
        let by_text =
            (0..tokens.len()).filter(|&id| kinds[id] != TokenKind::Unused && ENDS.contains(&tokens[id]));
        let mut ends = vec![eos];
        for id in of_turns.into_iter().flatten().chain(by_text) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        for &id in [bos, unk, Some(pad)].iter().flatten().chain(&ends) {
            kinds[id] = TokenKind::Special;
        }
        Ok(Vocabulary { metadata, model, tokens, kinds, bos, eos, ends, pad, unk })
    }

    /// Ids, texts and kinds, in the order of ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'m str, TokenKind)> {
        self.tokens.iter().zip(&self.kinds).enumerate().map(|(id, (text, kind))| (id, *text, *kind))
    }

    /// The ids of all tokens that exist for the tokenizer.
    pub(super) fn ids(&self) -> HashMap<&'m str, usize> {
        self.iter()
            .filter(|(_, _, kind)| *kind != TokenKind::Unused)
            .map(|(id, text, _)| (text, id))
            .collect()
    }
}

fn read_model(metadata: &Metadata<'_>) -> Result<Model> {
    match metadata.need("tokenizer.ggml.model")? {
        "gpt2" => Ok(Model::Gpt2),
        "llama" => Ok(Model::Llama),
        other => Err(Error::model(format!(
            "tokenizer: expected `gpt2` or `llama`, found `{other}`; use the Hugging Face directory of this model \
             instead"
        ))),
    }
}

fn refuse_repetition(tokens: &[&str]) -> Result<()> {
    let mut seen = HashMap::with_capacity(tokens.len());
    for (id, text) in tokens.iter().enumerate() {
        if text.is_empty() {
            return Err(Error::model(format!(
                "token {id}: expected a text, found none; convert the model again"
            )));
        }
        if let Some(first) = seen.insert(text, id) {
            return Err(Error::model(format!(
                "tokens {first} and {id}: expected different texts, found `{text}` twice; convert the model again"
            )));
        }
    }
    Ok(())
}

fn read_role(
    metadata: &Metadata<'_>,
    name: &str,
    tokens: &[&str],
    default: Option<usize>,
) -> Result<Option<usize>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(id) = metadata.get::<u64>(&key)?.or(default.map(|id| id as u64)) else { return Ok(None) };
    if id < tokens.len() as u64 {
        return Ok(Some(id as usize));
    }
    Err(Error::model(format!(
        "metadata key `{key}`: expected a token below {}, found {id}; convert the model again",
        tokens.len()
    )))
}

fn read_kinds(metadata: &Metadata<'_>, tokens: usize, model: Model) -> Result<Vec<TokenKind>> {
    let key = "tokenizer.ggml.token_type";
    let codes: Vec<i32> = metadata.need(key)?;
    if codes.len() != tokens {
        return Err(Error::model(format!(
            "metadata key `{key}`: expected {tokens} values, one per token, found {}; {DAMAGED}",
            codes.len()
        )));
    }
    codes.into_iter().enumerate().map(|(id, code)| read_kind(id, code, model)).collect()
}

fn read_kind(id: usize, code: i32, model: Model) -> Result<TokenKind> {
    match (code, model) {
        (1, _) => Ok(TokenKind::Normal),
        (2 | 3, _) => Ok(TokenKind::Special),
        (4, _) => Ok(TokenKind::UserDefined),
        (5, _) => Ok(TokenKind::Unused),
        (6, Model::Llama) => Ok(TokenKind::Byte),
        _ => Err(Error::model(format!(
            "token {id}: expected a token type 1 to 5, or 6 for a llama tokenizer, found {code}; convert the model \
             again"
        ))),
    }
}
