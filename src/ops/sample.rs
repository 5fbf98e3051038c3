//! Choosing the next token from logits.

use super::contract::{expect_exactly, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Site of sampling's Philox counters: (number of the sample, position, site, 0), of which the first word is
/// used.
pub(crate) const SAMPLING_SITE: u32 = u32::MAX - 3;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Divides the logits; 0 chooses the largest one.
    pub temperature: f32,
    /// Keeps the smallest set of likeliest tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Sampling {
    /// Sampling with all parameters given.
    pub const fn new(temperature: f32, top_p: f32, top_k: usize, seed: u64) -> Self {
        Sampling { temperature, top_p, top_k, seed }
    }
}

impl Default for Sampling {
    /// Always the likeliest token; where a temperature is set, of the 50 likeliest up to a probability of
    /// 0.95.
    fn default() -> Self {
        Sampling::new(0.0, 0.95, 50, 42)
    }
}

/// Bits of a token's mark in a sample, for [`Sample::adjust`].
pub mod mark {
    /// The token is in the prompt or the sample.
    pub const SEEN: u8 = 1;
    /// The token is never chosen.
    pub const SUPPRESSED: u8 = 2;
    /// The token is not chosen first.
    pub const SUPPRESSED_FIRST: u8 = 4;
}

/// Parameters of [`Sample::adjust`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment {
    /// Divides the positive and multiplies the negative logits of tokens that were seen.
    pub repetition_penalty: f32,
    /// Whether the next token is the first one generated.
    pub first: bool,
}

impl Adjustment {
    /// Bits of marks whose tokens are suppressed now.
    pub(crate) fn suppressed(self) -> u8 {
        if self.first { mark::SUPPRESSED | mark::SUPPRESSED_FIRST } else { mark::SUPPRESSED }
    }
}

/// Refuses logits and marks that are not `rows` rows of one width.
pub(crate) fn check_adjust(rows: usize, logits: usize, marks: usize) -> Result<()> {
    check("adjust", rows, logits)?;
    expect_exactly("adjust", "marks", marks, Some(logits))
}

/// Refuses logits that are not a row for each strength, as wide as the statistics.
pub(crate) fn check_guide(logits: usize, stats: usize, strength: usize) -> Result<()> {
    expect_exactly("guide", "logits", logits, strength.checked_mul(stats))
}

/// Refuses logits that are not a row for each token, and positions, numbers or probabilities that are not one
/// for each.
pub(crate) fn check_sample(
    rows: usize,
    probabilities: Option<usize>,
    positions: usize,
    logits: usize,
    numbers: usize,
) -> Result<()> {
    check("sample", rows, logits)?;
    expect_exactly("sample", "probabilities", probabilities.unwrap_or(rows), Some(rows))?;
    expect_exactly("sample", "positions", positions, Some(rows))?;
    expect_exactly("sample", "numbers", numbers, Some(rows))
}

/// Refuses logits that are not a row for each token, and drafts or probabilities that are not one for each.
pub(crate) fn check_verify(rows: usize, drafts: usize, probabilities: usize, logits: usize) -> Result<()> {
    check("verify", rows, logits)?;
    expect_exactly("verify", "drafts", drafts, Some(rows))?;
    expect_exactly("verify", "probabilities", probabilities, Some(rows))
}

/// Refuses logits that are not `rows` rows of one width.
fn check(op: &str, rows: usize, logits: usize) -> Result<()> {
    match rows == 0 || logits > 0 && logits.is_multiple_of(rows) {
        true => Ok(()),
        false => {
            Err(refused(op, format!("logits: expected {rows} rows of one width, found {logits} elements")))
        }
    }
}

/// Guidance and sampling.
pub trait Sample: Device {
    /// Marks each row's last token as seen, then changes the logits of marked tokens: of those seen by the
    /// repetition penalty, `x < 0 ? x · penalty : x / penalty`; those suppressed become −∞. logits and marks
    /// ([`mark`]) `[samples, vocab_size]`, last `[samples]`, in which an id beyond the vocabulary is no
    /// token.
    fn adjust(
        &self,
        logits: Mut<'_, Self, Self::Act>,
        marks: Mut<'_, Self, u8>,
        last: Ref<'_, Self, u32>,
        adjustment: Adjustment,
    );

    /// `logits[i] += stats · strength[i] + boost · max(stats, 0)` (METHOD §8); logits `[samples,
    /// vocab_size]`, stats `[vocab_size]` normalised, strength `[samples]` (1/σ).
    fn guide(
        &self,
        logits: Mut<'_, Self, Self::Act>,
        stats: Ref<'_, Self, f32>,
        strength: Ref<'_, Self, f32>,
        boost: f32,
    );

    /// Chooses one token per row: temperature, then top-k, then top-p, then a draw with the Philox number of
    /// (seed, number of the row's sample, its position), so that it does not depend on the row's place in a
    /// batch; then moves `positions` on by one. `probabilities` get those of the chosen tokens among the kept
    /// ones. tokens, probabilities, positions and numbers `[samples]`, logits `[samples, vocab_size]`. A row
    /// that holds a NaN gives [`u32::MAX`] and the probability 1.
    fn sample(
        &self,
        tokens: Mut<'_, Self, u32>,
        probabilities: Option<Mut<'_, Self, f32>>,
        positions: Mut<'_, Self, u32>,
        logits: Ref<'_, Self, Self::Act>,
        numbers: Ref<'_, Self, u32>,
        sampling: Sampling,
    );

    /// Puts drafted tokens, those of another model, in the place of `tokens` where this model finds them
    /// likely enough: where `min(1, p / q) > threshold`, p being the probability of the draft by `logits`, at
    /// temperature 1, and q, of `probabilities`, that with which it was drafted. tokens, drafts and
    /// probabilities `[samples]`, logits `[samples, vocab_size]`. A draft beyond the vocabulary is never
    /// taken, but for [`u32::MAX`]: where token or draft is that, so is the token.
    fn verify(
        &self,
        tokens: Mut<'_, Self, u32>,
        drafts: Ref<'_, Self, u32>,
        probabilities: Ref<'_, Self, f32>,
        logits: Ref<'_, Self, Self::Act>,
        threshold: f32,
    );
}
