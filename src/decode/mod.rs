//! Generation: one prefill, then one token per sample and pass, guided by the security statistics (METHOD
//! §8).

mod batch;
mod cohort;
mod expert;
mod reader;
mod shape;
mod stage;
pub mod windows;

pub use expert::{CoDecoding, Expert};
pub use shape::{rows_of_pass, samples_of_pass};
pub use stage::{GuardScores, final_logits, score, score_packed, score_with_attention};

use std::ops::Range;

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::model::generation::PENALTY_RANGE;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::ops::sample::Sampling;
use batch::Batch;
use serde::{Deserialize, Serialize};
use shape::Shape;

/// Largest factor of the guidance.
const MOST_GUIDANCE: f32 = 100.0;

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
    /// Multiplies what the guidance adds to logits.
    pub guidance_strength: f32,
    /// Most that the normalised statistics, which are at most 1, are multiplied with.
    pub guidance_cap: Option<f32>,
    /// Tokens that the guidance leaves alone.
    pub unguided_tokens: Vec<u32>,
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
            guidance_strength: 1.0,
            guidance_cap: None,
            unguided_tokens: Vec::new(),
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

    /// What the guidance adds to the logits of secure tokens at the first positions.
    fn boost(&self) -> f32 {
        self.guidance_cap.map_or(self.guidance_strength, |cap| self.guidance_strength.min(cap))
    }

    /// Whether the options go together, whatever the model.
    ///
    /// # Errors
    /// Kind `Usage`, naming the option.
    pub fn validate(&self) -> Result<()> {
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
        self.validate_guidance()
    }

    /// Refuses samples that would all be the same.
    fn validate_samples(&self, drafted_greedily: bool) -> Result<()> {
        if self.sampling.temperature == 0.0 && self.num_samples > 1 && drafted_greedily {
            return Err(Error::usage(format!(
                "{} greedy samples would all be the same: ask for one, or set a temperature above 0",
                self.num_samples
            )));
        }
        Ok(())
    }

    fn validate_guidance(&self) -> Result<()> {
        let adjusting = [
            ("rescore_every", self.rescore_every > 0),
            ("guidance_strength", self.guidance_strength != 1.0),
            ("guidance_cap", self.guidance_cap.is_some()),
            ("unguided_tokens", !self.unguided_tokens.is_empty()),
        ];
        if let Some((option, _)) = adjusting.into_iter().find(|(_, given)| *given && !self.guided) {
            return Err(Error::usage(format!(
                "`{option}` adjusts the guidance, but this generation is not guided"
            )));
        }
        let measures = [
            Some(("guidance_strength", self.guidance_strength)),
            self.guidance_cap.map(|cap| ("guidance_cap", cap)),
        ];
        for (name, value) in measures.into_iter().flatten() {
            if !(0.0..=MOST_GUIDANCE).contains(&value) {
                return Err(Error::usage(format!("`{name}`: expected 0 to {MOST_GUIDANCE}, found {value}")));
            }
        }
        Ok(())
    }
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The sample produced a stop token, or the caller ended it.
    Stop,
    /// The sample reached the limit of new tokens, or of the context.
    Length,
    /// The caller ended the generation.
    Cancelled,
}

/// All samples of a prompt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// New tokens of every sample, without the stop token.
    pub samples: Vec<Vec<u32>>,
    /// Why each sample ended.
    pub finish_reasons: Vec<FinishReason>,
    /// Mean analyzer score of the prompt, with a guard.
    pub prompt_score: Option<f64>,
    /// Seconds until the first token; 0 in a batch of many prompts.
    pub prefill_seconds: f64,
    /// Seconds of all further tokens; 0 in a batch of many prompts.
    pub decode_seconds: f64,
}

/// A prompt of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Seed of its samples, in place of that of the options.
    pub seed: u64,
}

/// What becomes of a sample after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    GoOn,
    /// It is complete.
    End,
    /// The whole generation ends.
    Cancel,
}

/// What follows a batch.
pub trait Watcher {
    /// Sample `sample` of request `request` has one more token.
    fn on_token(&mut self, request: usize, sample: usize, token: u32) -> Next;

    /// All samples of a request have ended. After [`Next::Cancel`], also of those whose samples have not.
    ///
    /// # Errors
    /// Those of the implementation; they end the generation.
    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<()>;
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
    Decoder { model, attached, expert: None }.generate(prompt, options, on_token)
}

/// What decodes: a model, and what helps it.
pub struct Decoder<'a, B: Backend> {
    /// The model whose samples are decoded.
    pub model: &'a Transformer<B>,
    /// What is attached to it.
    pub attached: Option<&'a Attached<B>>,
    /// The expert that drafts for it.
    pub expert: Option<Expert<'a, B>>,
}

impl<B: Backend> Clone for Decoder<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Decoder<'_, B> {}

impl<B: Backend> Decoder<'_, B> {
    /// As [`generate`].
    ///
    /// # Errors
    /// Kind `Usage` for options that contradict each other, kind `Data` for a prompt that does not fit.
    pub fn generate(
        &self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        self.generate_some(prompt, options, 0..options.num_samples, on_token)
    }

    /// Those samples of [`Decoder::generate`] that have these numbers, in a pass of their own: drawn with the
    /// same random numbers as among all of them, and the same bit by bit where a sample's bits do not depend
    /// on how many are decoded together. The result, and `on_token`, count them from 0.
    ///
    /// # Errors
    /// Those of [`Decoder::generate`].
    pub fn generate_some(
        &self,
        prompt: &[u32],
        options: &GenerateOptions,
        numbers: Range<usize>,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        let options = &self.checked(options)?;
        let limit = self.context();
        if !prompt.is_empty() && prompt.len().saturating_add(options.max_new_tokens) > limit {
            return Err(Error::data(format!(
                "the prompt's {} tokens and {} new ones exceed the context of {limit}; shorten the prompt or lower \
                 `max_new_tokens`",
                prompt.len(),
                options.max_new_tokens
            )));
        }
        check_prompt(prompt, limit)?;
        let shape = Shape::of_one(&self.model.backend, numbers.len());
        let started = std::time::Instant::now();
        let mut one = One { on_token, started, first_token: None, generated: None };
        let request = Request { prompt: prompt.to_vec(), seed: options.sampling.seed };
        let some = &GenerateOptions { num_samples: numbers.len(), ..options.clone() };
        let batch = Batch::new(*self, some, shape, prompt.len())?.numbered_from(numbers.start);
        batch.run(&mut std::iter::once(request), &mut one)?;
        let mut generated = one.generated.ok_or_else(|| Error::internal("a generation without an end"))?;
        generated.prefill_seconds = one.first_token.unwrap_or_default();
        generated.decode_seconds = started.elapsed().as_secs_f64() - generated.prefill_seconds;
        Ok(generated)
    }

    /// As [`generate_all`].
    ///
    /// # Errors
    /// Those of [`Decoder::generate`], and of the watcher.
    pub fn generate_all(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let options = &self.checked(options)?;
        let limit = self.context();
        requests.iter().try_for_each(|request| check_prompt(&request.prompt, limit))?;
        let Some(longest) = requests.iter().map(|request| request.prompt.len()).max() else { return Ok(()) };
        let shape = Shape::of_many(&self.model.backend, requests.len(), options.num_samples);
        let batch = Batch::new(*self, options, shape, longest)?;
        batch.run(&mut requests.iter().cloned(), watcher)
    }

    /// Tokens that prompt and new ones may have together.
    pub fn context(&self) -> usize {
        let of_expert = self.expert.iter().map(|expert| context(expert.model, expert.attached));
        of_expert.fold(context(self.model, self.attached), usize::min)
    }

    /// Refuses options that do not go together, or not with what decodes.
    ///
    /// # Errors
    /// Kind `Usage`, naming the option.
    pub fn validate(&self, options: &GenerateOptions) -> Result<()> {
        self.checked(options).map(drop)
    }

    /// The options, if they go together with what decodes. Tokens that the expert cannot read are suppressed:
    /// tables of embeddings of one vocabulary are padded to several lengths.
    fn checked(&self, options: &GenerateOptions) -> Result<GenerateOptions> {
        options.validate()?;
        options.validate_samples(self.expert.is_none_or(|expert| expert.options.temperature == 0.0))?;
        if options.guided {
            let attached = self.attached.ok_or_else(|| {
                Error::usage(
                    "guidance needs an adapter with a guard: attach one, or generate without guidance",
                )
            })?;
            attached.require_guard().map_err(|e| e.context("guidance needs a guard"))?;
        }
        let mut options = options.clone();
        if let Some(expert) = &self.expert {
            expert.options.validate()?;
            let [own, read] = [self.model, expert.model].map(|model| model.config.vocab_size as u32);
            options.suppress_tokens.extend(read..own);
        }
        Ok(options)
    }
}

/// Follows the only request of a batch.
struct One<'a> {
    on_token: &'a mut dyn FnMut(usize, u32) -> bool,
    started: std::time::Instant,
    /// Seconds until then.
    first_token: Option<f64>,
    generated: Option<Generated>,
}

impl Watcher for One<'_> {
    fn on_token(&mut self, _: usize, sample: usize, token: u32) -> Next {
        self.first_token.get_or_insert_with(|| self.started.elapsed().as_secs_f64());
        if (self.on_token)(sample, token) { Next::GoOn } else { Next::Cancel }
    }

    fn on_finished(&mut self, _: usize, generated: Generated) -> Result<()> {
        self.generated = Some(generated);
        Ok(())
    }
}

/// Continues many prompts in one batch, `options.num_samples` times each: where samples end, those that wait
/// take their rows, and a prompt is read once. A sample's tokens depend on the model, the options, its
/// prompt, its seed and its number alone, not on what else is in the batch. Samples end at the model's
/// context, too.
///
/// # Errors
/// Those of [`generate`], and of the watcher.
pub fn generate_all<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    requests: &[Request],
    options: &GenerateOptions,
    watcher: &mut dyn Watcher,
) -> Result<()> {
    Decoder { model, attached, expert: None }.generate_all(requests, options, watcher)
}

/// Tokens that prompt and new ones may have together: the model's context, less a prefix.
pub fn context<B: Backend>(model: &Transformer<B>, attached: Option<&Attached<B>>) -> usize {
    model.config.max_position_embeddings.saturating_sub(attached.map_or(0, Attached::prefix_len))
}

/// Refuses a prompt that is none, or that leaves no room for a token in a context of `limit`.
fn check_prompt(prompt: &[u32], limit: usize) -> Result<()> {
    match prompt.len() {
        0 => Err(Error::data("the prompt is empty: expected at least one token")),
        n if n < limit => Ok(()),
        n => Err(Error::data(format!(
            "the prompt's {n} tokens leave no room in the context of {limit}; shorten the prompt"
        ))),
    }
}
