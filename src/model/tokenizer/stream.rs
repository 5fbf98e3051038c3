//! Decoding token by token. A token is not always text: it may be a part of a character, and what it reads as
//! may depend on the token before it.

use super::Tokenizer;
use crate::error::Result;

/// What stands in decoded text for bytes that are not (yet) UTF-8.
const REPLACEMENT: char = '\u{FFFD}';

/// An unfinished UTF-8 character has at most three bytes, thus three tokens, thus three replacement
/// characters.
const MAX_UNFINISHED: usize = 3;

/// Only a generation that is no UTF-8 at all gets to this length; without it, decoding it would take
/// quadratic time.
const MAX_WINDOW: usize = 64;

/// Turns ids into text as they come; made by [`Tokenizer::stream_decoder`]. The pieces make up what
/// [`Tokenizer::decode`] gives for all ids at once. (Where that text contains U+FFFD, their number may
/// differ.)
#[derive(Clone, Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids whose text may still change, after the ids of the piece before them.
    window: Vec<u32>,
    /// How many ids of `window` only serve as context.
    context: usize,
    /// The part of `decode(window)` that has been given out.
    emitted: String,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        StreamDecoder { tokenizer, window: Vec::new(), context: 0, emitted: String::new() }
    }

    /// Takes the next id and gives the text that is now certain, often empty: a character is held back until
    /// its last byte has come, and so are up to three replacement characters, which could become one.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        let mut text = self.tokenizer.decode(&self.window)?;
        if !text.starts_with(&self.emitted) && self.window.len() - self.context > MAX_UNFINISHED {
            // Bytes that never became a character have spoilt the text of the context too: go on without it.
            self.window.drain(..self.context);
            self.keep_as_context(0, String::new());
            text = self.tokenizer.decode(&self.window)?;
        }
        let certain = without_unfinished(&text);
        let Some(piece) = certain.strip_prefix(&self.emitted).map(str::to_owned) else {
            return Ok(String::new());
        };
        self.advance(&piece, certain, certain.len() == text.len())?;
        Ok(piece)
    }

    /// The text that was held back; whatever is still unfinished shows as U+FFFD.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        match text.strip_prefix(&self.emitted) {
            Some(rest) => Ok(rest.to_owned()),
            None => self.tokenizer.decode(&self.window[self.context..]),
        }
    }

    /// Moves the window on after `piece` has been given out.
    fn advance(&mut self, piece: &str, certain: &str, nothing_held: bool) -> Result<()> {
        if nothing_held && !piece.is_empty() {
            self.window.drain(..self.context);
            let emitted = self.tokenizer.decode(&self.window)?;
            self.keep_as_context(self.window.len(), emitted);
        } else if self.window.len() > MAX_WINDOW {
            self.window.drain(..self.window.len() - MAX_UNFINISHED);
            let text = self.tokenizer.decode(&self.window)?;
            self.keep_as_context(self.window.len(), without_unfinished(&text).to_owned());
        } else {
            self.emitted = certain.to_owned();
        }
        Ok(())
    }

    fn keep_as_context(&mut self, context: usize, emitted: String) {
        self.context = context;
        self.emitted = emitted;
    }
}

fn without_unfinished(text: &str) -> &str {
    let mut certain = text;
    for _ in 0..MAX_UNFINISHED {
        certain = certain.strip_suffix(REPLACEMENT).unwrap_or(certain);
    }
    certain
}
