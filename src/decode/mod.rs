//! Generation: one prefill, then one token per sample and pass, guided by the security statistics (METHOD
//! §8).

mod session;
mod stage;
pub mod windows;

pub use session::{FinishReason, Generated};
pub use stage::{GuardScores, final_logits, score, score_packed, score_with_attention};

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::model::generation::PENALTY_RANGE;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::ops::sample::Sampling;
use session::Session;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most new tokens per sample.
    pub max_new_tokens: usize,
    /// Samples of the same prompt, decoded as one batch.
    pub num_samples: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Bias towards tokens of secure code; needs a guard.
    pub guided: bool,
    /// Recompute the guidance's strength from everything generated so far every so many tokens; 0 never does.
    pub rescore_every: usize,
    /// Tokens that end a sample.
    pub stop_tokens: Vec<u32>,
    /// Divides the positive and multiplies the negative logits of tokens that are in the prompt or the
    /// sample; 1 leaves them. `None` is the model's own in
    /// [`DeepGuard::generate`](crate::DeepGuard::generate), and 1 in [`generate`].
    pub repetition_penalty: Option<f32>,
    /// Tokens that are never generated; ids beyond the vocabulary are no tokens.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    pub begin_suppress_tokens: Vec<u32>,
}

impl Default for GenerateOptions {
    /// One sample of up to 300 new tokens, without guidance.
    fn default() -> Self {
        GenerateOptions {
            max_new_tokens: 300,
            num_samples: 1,
            sampling: Sampling::default(),
            guided: false,
            rescore_every: 0,
            stop_tokens: Vec::new(),
            repetition_penalty: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// Whether the logits of single tokens are changed.
    fn adjusts(&self) -> bool {
        self.repetition_penalty.is_some_and(|penalty| penalty != 1.0)
            || !self.suppress_tokens.is_empty()
            || !self.begin_suppress_tokens.is_empty()
    }

    fn validate(&self) -> Result<()> {
        let s = &self.sampling;
        if self.max_new_tokens == 0 || self.num_samples == 0 {
            return Err(Error::usage("expected at least 1 new token and 1 sample, found 0"));
        }
        if !(0.0..=100.0).contains(&s.temperature) {
            return Err(Error::usage(format!("`temperature`: expected 0 to 100, found {}", s.temperature)));
        }
        if !(s.top_p > 0.0 && s.top_p <= 1.0) {
            return Err(Error::usage(format!(
                "`top_p`: expected more than 0 and at most 1, found {}",
                s.top_p
            )));
        }
        if let Some(penalty) = self.repetition_penalty.filter(|p| !PENALTY_RANGE.contains(&f64::from(*p))) {
            let (low, high) = PENALTY_RANGE.into_inner();
            return Err(Error::usage(format!(
                "`repetition_penalty`: expected {low} to {high}, found {penalty}"
            )));
        }
        if self.rescore_every > 0 && !self.guided {
            return Err(Error::usage(
                "`rescore_every` adjusts the guidance, but this generation is not guided",
            ));
        }
        if s.temperature == 0.0 && self.num_samples > 1 {
            return Err(Error::usage(format!(
                "{} greedy samples would all be the same: ask for one, or set a temperature above 0",
                self.num_samples
            )));
        }
        Ok(())
    }
}

/// Continues `prompt`. `on_token` is called with (sample, token) as tokens are made and may stop the
/// generation by returning `false`.
pub fn generate<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Result<Generated> {
    options.validate()?;
    let limit = model.config.max_position_embeddings;
    if prompt.is_empty() {
        return Err(Error::data("the prompt is empty: expected at least one token"));
    }
    let prefix = attached.map_or(0, Attached::prefix_len);
    if (prefix + prompt.len()).saturating_add(options.max_new_tokens) > limit {
        return Err(Error::data(format!(
            "the prompt's {} tokens and {} new ones exceed the model's context of {limit}; shorten the prompt or lower \
             `max_new_tokens`",
            prefix + prompt.len(),
            options.max_new_tokens
        )));
    }
    if options.guided {
        let attached = attached.ok_or_else(|| {
            Error::usage("guidance needs an adapter with a guard: attach one, or generate without guidance")
        })?;
        attached.require_guard().map_err(|e| e.context("guidance needs a guard"))?;
    }
    Session::new(model, attached, prompt.len(), options)?.run(prompt, on_token)
}
