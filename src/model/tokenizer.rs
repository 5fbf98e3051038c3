//! Text ↔ token ids, by the `tokenizer.json` of a model directory.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::models::ModelWrapper;

use super::config::Config;
use super::json::read_bounded;
use crate::error::{Context, Error, ErrorKind, Result};

mod stream;

pub use stream::StreamDecoder;

/// Files of the supported families have up to 17 MB.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Those files have up to a million values (128,000 tokens, 280,000 merges of 3). The library takes up to 300 bytes
/// for each.
const MAX_VALUES: usize = 2 << 20;

/// Series of the `tokenizers` crate that reads the files; named where a file needs a newer one.
const LIBRARY: &str = "tokenizers 0.23";

/// A model's tokenizer. Truncation and padding that `tokenizer.json` may ask for are off: they belong to whoever made
/// the file, and would silently cut or pad the data of others.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// Kind `Model`: the file is missing, too large, damaged, of a newer format, or tokenizes at random (BPE dropout).
    pub fn from_dir(dir: &Path) -> Result<Tokenizer> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            return Err(missing(dir));
        }
        let json = read_bounded(&path, MAX_FILE_BYTES)?;
        let mut inner = parse(&json).map_err(|e| e.context(path.display()))?;
        refuse_dropout(&path, &inner)?;
        inner
            .with_padding(None)
            .with_truncation(None)
            .kind(ErrorKind::Internal, || "truncation".to_owned())?;
        Ok(Tokenizer { inner, path })
    }

    /// Checks that the model has an embedding for every id this tokenizer can produce. (A model may have more.)
    ///
    /// # Errors
    /// Kind `Model`, naming the largest id and `vocab_size`.
    pub fn check(&self, config: &Config) -> Result<()> {
        let of_vocabulary = self.inner.get_vocab(true).into_values();
        // A post-processor adds ids of its own, which need not be in the vocabulary.
        let added = self.encode_prompt("")?;
        match of_vocabulary.chain(added).max() {
            Some(id) if id as usize >= config.vocab_size => Err(Error::model(format!(
                "{}: token {:?} has id {id}, but config.json has vocab_size = {}: tokenizer and model do not match",
                self.path.display(),
                self.token_str(id).unwrap_or_default(),
                config.vocab_size
            ))),
            _ => Ok(()),
        }
    }

    /// The ids of `text` and nothing else. (The text of a special token, such as `<|endoftext|>`, becomes that token.)
    ///
    /// # Errors
    /// Kind `Model`, if the tokenizer's own rules fail on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_fast(text, false)
    }

    /// The ids of `text` with the special tokens that the tokenizer puts around a text, usually a start token or none.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_fast(text, true)
    }

    fn encode_fast(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.run("encode", || self.inner.encode_fast(text, add_special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text`, each with the bytes of `text` it stands for. Tokens that share a multi-byte character all
    /// bear its whole range; white space may belong to no token, if the tokenizer trims it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let encoding = self.run("encode", || self.inner.encode(text, false))?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
    }

    /// The text of `ids`, without special tokens. An id that no token has adds nothing: the embedding may have more
    /// rows than the tokenizer has tokens.
    ///
    /// # Errors
    /// Kind `Model`, if the tokenizer's own rules fail on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.run("decode", || self.inner.decode(ids, true))
    }

    /// Decodes ids one by one as they are generated.
    pub fn stream_decoder(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// The entry of the vocabulary with this id, in the vocabulary's own spelling (`Ġreturn` for " return").
    pub fn token_str(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of an entry of the vocabulary, in the vocabulary's own spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, those added to the vocabulary included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    fn run<T>(&self, what: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        no_panic(work).kind(ErrorKind::Model, || format!("{}: cannot {what}", self.path.display()))
    }
}

fn parse(json: &[u8]) -> Result<tokenizers::Tokenizer> {
    // All but the first value of a list or object follow a comma.
    let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(Error::model(format!("expected at most {MAX_VALUES} JSON values, found {values}")));
    }
    // Tells a damaged file from one that is merely not understood.
    serde_json::from_slice::<IgnoredAny>(json).kind(ErrorKind::Model, || "not valid JSON".to_owned())?;
    no_panic(|| tokenizers::Tokenizer::from_bytes(json)).kind(ErrorKind::Model, || {
        format!("damaged, or made for a newer library than the {LIBRARY} built in here")
    })
}

/// The library panics on some files it does not understand; here that is an error like any other. (Nothing it was
/// working on is used again after an error, except a cache behind a lock that remembers the panic.)
fn no_panic<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the tokenizer's rules make no sense".into()))
}

fn missing(dir: &Path) -> Error {
    let hint = "save it with `AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)`";
    Error::model(format!("{}: there is no tokenizer.json, which is needed; {hint}", dir.display()))
}

/// With dropout the same text has other ids every time, and no run could be repeated.
fn refuse_dropout(path: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|p| p != 0.0) => Err(Error::model(format!(
            "{}: dropout is not supported; set model.dropout to null",
            path.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
