//! Text ↔ token ids, by the `tokenizer.json` of a model directory and what stands beside it.

use std::cell::Cell;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::models::ModelWrapper;

use super::config::Config;
use super::json::read_bounded;
use crate::error::{Context, Error, ErrorKind, Result};

mod settings;
mod stream;

#[cfg(feature = "import")]
pub(crate) use settings::template_json;
use settings::{Around, Settings};
pub use stream::StreamDecoder;

/// Files of the supported families have up to 17 MB.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Tokenizer files have up to a million values (128,000 tokens, 280,000 merges of 3). The library takes up to
/// 300 bytes for each.
const MAX_VALUES: usize = 2 << 20;

/// What some editors write at the beginning of a file.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Series of the `tokenizers` crate that reads the files; named where a file needs a newer one.
const LIBRARY: &str = "tokenizers 0.23";

/// A model's tokenizer. Truncation and padding that `tokenizer.json` may ask for are off: they belong to
/// whoever made the file, and would silently cut or pad the data of others.
///
/// A text has one encoding, for training, scores and prompts: its tokens after what the tokenizer starts
/// every text with, usually a start token or nothing, and before what it ends every text with, usually
/// nothing. A prompt is the beginning of a text, and has the former only.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    around: Around,
    notes: Vec<String>,
    /// Rows of the model's embedding, if they are known.
    rows: Option<usize>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory, and `tokenizer_config.json` and `special_tokens_map.json`
    /// where they are.
    ///
    /// # Errors
    /// Kind `Model`: a file is missing, too large, damaged, of a newer format, or asks for what is not done
    /// here, such as BPE dropout.
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
        let settings = Settings::read(dir)?;
        settings.apply(&mut inner)?;
        let around = settings::around(&inner).map_err(|e| e.context(path.display()))?;
        let notes = settings.notes().collect();
        Ok(Tokenizer { inner, path, around, notes, rows: None })
    }

    /// The tokenizer for a model, whose embedding has `vocab_size` rows. Neither follows the other:
    /// embeddings are often padded, and some tokenizers have tokens that were added without a row. Only a
    /// text with such a token is refused.
    ///
    /// # Errors
    /// Kind `Model`: what the tokenizer adds to every text has no row.
    pub fn for_model(self, config: &Config) -> Result<Self> {
        let tokenizer = Tokenizer { rows: Some(config.vocab_size), ..self };
        tokenizer.check(&tokenizer.around.before)?;
        tokenizer.check(&tokenizer.around.after)?;
        Ok(tokenizer)
    }

    /// The ids of a whole text, without its byte order mark. (The text of a special token, such as
    /// `<|endoftext|>`, becomes that token.)
    ///
    /// # Errors
    /// Kind `Model`, if the tokenizer's own rules fail on the text, or the model has no embedding for a token
    /// of it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let text = without_mark(text);
        let encoding = self.run("encode", || self.inner.encode_fast(text, true))?;
        self.check(encoding.get_ids())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of the beginning of a text, which is to be continued: those of [`Tokenizer::encode`] without
    /// what the tokenizer ends a text with.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        ids.truncate(ids.len().saturating_sub(self.around.after.len()));
        Ok(ids)
    }

    /// Number of tokens that the tokenizer begins every text with.
    pub fn start_len(&self) -> usize {
        self.around.before.len()
    }

    /// Whether the model has an embedding for all of `ids`.
    fn check(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.rows else { return Ok(()) };
        match ids.iter().find(|id| **id as usize >= rows) {
            Some(&id) => Err(Error::model(format!(
                "{}: token {:?} has id {id}, but the model's embedding has {rows} rows; leave it out of the text, or \
                 check that tokenizer and model belong together",
                self.path.display(),
                self.token_str(id).unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }

    /// The ids of [`Tokenizer::encode`], each with the bytes of `text` it stands for. Tokens that share a
    /// multi-byte character all bear its whole range; white space may belong to no token, if the tokenizer
    /// trims it. What the tokenizer adds stands for nothing: `0..0` before the text, and an empty range at
    /// its end.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let source = without_mark(text);
        let skipped = text.len() - source.len();
        let encoding = self.run("encode", || self.inner.encode(source, true))?;
        self.check(encoding.get_ids())?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start + skipped..end + skipped);
        let mut tokens: Vec<_> = encoding.get_ids().iter().copied().zip(ranges).collect();
        let (first, own) =
            (self.start_len().min(tokens.len()), tokens.len().saturating_sub(self.around.after.len()));
        tokens[..first].iter_mut().for_each(|(_, range)| *range = 0..0);
        tokens[own..].iter_mut().for_each(|(_, range)| *range = text.len()..text.len());
        Ok(tokens)
    }

    /// The text of `ids`, special tokens included: in vocabularies of code they are spelt like code. An id
    /// that no token has adds nothing: the embedding may have more rows than the tokenizer has tokens.
    ///
    /// # Errors
    /// Kind `Model`, if the tokenizer's own rules fail on the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.run("decode", || self.inner.decode(ids, false))
    }

    /// What was found in the files and not read; one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
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

/// The text without its byte order mark, which says how a file is encoded and is no part of its text.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
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

/// The library panics on some files it does not understand; here that is an error like any other. (Nothing it
/// was working on is used again after an error, except a cache behind a lock that remembers the panic.)
fn no_panic<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let outer = CATCHING.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.unwrap_or_else(|_| Err("the tokenizer's rules make no sense".into()))
}

thread_local! {
    /// Whether [`no_panic`] will catch a panic of this thread.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that become errors here from being reported as well. For a program's `main`: the panic hook
/// belongs to the whole process.
pub fn silence_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !CATCHING.get() {
            report(panic);
        }
    }));
}

fn missing(dir: &Path) -> Error {
    let hint = "save it with `AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)`";
    Error::model(format!("{}: there is no tokenizer.json, which is needed; {hint}", dir.display()))
}

/// Refuses dropout, with which the same text has other ids every time, and no run could be repeated.
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
