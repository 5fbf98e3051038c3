//! Co-decoding (CoSec, ISSTA 2024): an expert, a model that was trained for secure code, drafts every token,
//! and the model whose samples these are takes the draft if it finds it likely enough, or else its own token.

use std::ops::Range;

use crate::attached::Attached;
use crate::decode::reader::{Own, Reader};
use crate::error::{Error, Result};
use crate::model::transformer::Transformer;
use crate::ops::sample::Sampling;
use crate::ops::{Arena, Backend, Buffer, Ref};

/// A model that drafts tokens for another one of the same vocabulary.
pub struct Expert<'a, B: Backend> {
    /// The model; often that which it drafts for.
    pub model: &'a Transformer<B>,
    /// What makes it an expert.
    pub attached: Option<&'a Attached<B>>,
    /// How it drafts, and what is taken.
    pub options: CoDecoding,
}

impl<B: Backend> Clone for Expert<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Expert<'_, B> {}

/// How an expert drafts, and which of its tokens are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CoDecoding {
    /// Temperature of the drafts; 0 drafts the likeliest token.
    pub temperature: f32,
    /// Drafts are of the likeliest tokens up to this probability.
    pub top_p: f32,
    /// A draft is taken if its probability by the model, at temperature 1, is more than this share of that
    /// with which it was drafted: 0 takes every draft that the model can produce, 1 none.
    pub threshold: f32,
}

impl Default for CoDecoding {
    /// That of the published code.
    fn default() -> Self {
        CoDecoding { temperature: 0.4, top_p: 0.95, threshold: 0.3 }
    }
}

impl CoDecoding {
    /// Refuses numbers that are out of range.
    ///
    /// # Errors
    /// Kind `Usage`, naming the option.
    pub fn validate(&self) -> Result<()> {
        let refused = |option: &str, expected: &str, found: f32| {
            Err(Error::usage(format!("`{option}`: expected {expected}, found {found}")))
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return refused("expert_temperature", "0 to 100", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refused("expert_top_p", "more than 0 and at most 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            return refused("expert_threshold", "0 to 1", self.threshold);
        }
        Ok(())
    }
}

/// What an expert has drafted for the rows of a cohort.
pub(super) struct Drafts<B: Backend> {
    /// `[rows]` tokens.
    tokens: Buffer<B, u32>,
    /// `[rows]` probabilities with which they were drawn.
    probabilities: Buffer<B, f32>,
    options: CoDecoding,
}

impl<B: Backend> Drafts<B> {
    pub(super) fn new(arena: &mut Arena<B>, rows: usize, options: CoDecoding) -> Result<Self> {
        Ok(Drafts {
            tokens: arena.buffer("drafted tokens", &[rows])?,
            probabilities: arena.buffer("probabilities of drafts", &[rows])?,
            options,
        })
    }

    /// Drafts the next token of rows, `numbers` those of their samples, from the expert's logits.
    pub(super) fn draw(
        &mut self,
        expert: &Reader<'_, B>,
        own: &mut Own<B>,
        rows: &Range<usize>,
        numbers: Ref<'_, B, u32>,
        seed: u64,
    ) {
        let CoDecoding { temperature, top_p, .. } = self.options;
        // Another seed than the model's: whether its token is used depends on the draft, of which it must not
        // depend itself.
        let sampling = Sampling::new(temperature, top_p, 0, !seed);
        let n = rows.len();
        let (tokens, probabilities) = (self.tokens.first_mut(n), Some(self.probabilities.first_mut(n)));
        expert.draw(tokens, probabilities, own, rows, numbers, sampling);
    }

    /// Puts drafts in the place of the tokens that the model has drawn itself for rows.
    pub(super) fn verify(&self, model: &mut Reader<'_, B>, rows: &Range<usize>) {
        let n = rows.len();
        model.verify(rows, self.tokens.first(n), self.probabilities.first(n), self.options.threshold);
    }
}
