//! One prompt and its samples: memory, prefill, decoding passes.

use serde::Serialize;

use crate::attached::Attached;
use crate::decode::GenerateOptions;
use crate::decode::stage::Stage;
use crate::error::{Error, Result};
use crate::model::block::Keys;
use crate::model::kv_cache::KvCache;
use crate::model::transformer::Transformer;
use crate::ops::sample::{Adjustment, mark};
use crate::ops::{Arena, Backend, Buffer};

/// Generated positions (the first token is 0) at which secure tokens get an additional boost.
const BOOSTED: std::ops::RangeInclusive<usize> = 1..=2;

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The sample produced a stop token.
    Stop,
    /// The sample reached the limit of new tokens.
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
    /// Seconds until the first token.
    pub prefill_seconds: f64,
    /// Seconds of all further tokens.
    pub decode_seconds: f64,
}

/// What helps where a generation does not fit.
const ADVICE: &str =
    "lower `num_samples` or `max_new_tokens`, shorten the prompt, or choose another `device`";

/// A generation in progress.
pub(super) struct Session<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: Option<&'a Attached<B>>,
    options: &'a GenerateOptions,
    prefill: Stage<B>,
    /// The stage's ids are the chosen tokens: the next step reads them where they were drawn.
    decode: Stage<B>,
    cache: KvCache<B>,
    /// `[samples, vocab_size]`.
    logits: Buffer<B, B::Act>,
    /// `[vocab_size]` normalised statistics.
    stats: Buffer<B, f32>,
    /// `[samples]` 1/σ.
    strength: Buffer<B, f32>,
    /// `[samples, vocab_size]` marks of tokens, where any logit is adjusted.
    marks: Option<Buffer<B, u8>>,
    /// Sum of the scores of each sample's tokens, the prompt's included.
    score_sums: Vec<f64>,
}

impl<'a, B: Backend> Session<'a, B> {
    pub(super) fn new(
        model: &'a Transformer<B>,
        attached: Option<&'a Attached<B>>,
        prompt_len: usize,
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        let (samples, vocab_size) = (options.num_samples, model.config.vocab_size);
        let adjusted = options.adjusts().then_some("marks of tokens");
        let prompt_rows = attached.map_or(0, Attached::prefix_len) + prompt_len;
        let ((prefill, decode, cache, logits, stats, strength, marks), _) =
            Arena::build(&model.backend, |arena| {
                Ok((
                    Stage::new(arena, model, attached, prompt_rows)?,
                    Stage::new(arena, model, attached, samples)?,
                    KvCache::new(arena, &model.config, prompt_rows, samples, options.max_new_tokens)?,
                    arena.buffer("logits", &[samples, vocab_size])?,
                    arena.buffer("normalised statistics", &[vocab_size])?,
                    arena.buffer("guidance strength", &[samples])?,
                    adjusted.map(|name| arena.buffer(name, &[samples, vocab_size])).transpose()?,
                ))
            })
            .map_err(|e| e.context("working memory of generation").memory_advice(ADVICE))?;
        let score_sums = vec![0.0; samples];
        Ok(Session {
            model,
            attached,
            options,
            prefill,
            decode,
            cache,
            logits,
            stats,
            strength,
            marks,
            score_sums,
        })
    }

    pub(super) fn run(
        mut self,
        prompt: &[u32],
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        let samples = self.options.num_samples;
        let started = std::time::Instant::now();
        self.read_prompt(prompt);
        self.mark_tokens(prompt);
        let mut out = Generated {
            samples: vec![Vec::new(); samples],
            finish_reasons: vec![FinishReason::Length; samples],
            prompt_score: self.guarded().map(|_| self.score_sums[0] / prompt.len() as f64),
            prefill_seconds: 0.0,
            decode_seconds: 0.0,
        };
        let mut open = vec![true; samples];
        let mut first_token = None;
        self.choose(0, prompt.len());
        for position in 0..self.options.max_new_tokens {
            let tokens = self.chosen(position)?;
            first_token.get_or_insert_with(|| started.elapsed().as_secs_f64());
            let going = self.deliver(&tokens, &mut open, &mut out, on_token);
            if !going || !open.contains(&true) || position + 1 == self.options.max_new_tokens {
                break;
            }
            let backend = self.model.backend.clone();
            backend.graph("decoding step", || {
                self.advance();
                self.choose(position + 1, prompt.len());
            });
        }
        out.prefill_seconds = first_token.unwrap_or_default();
        out.decode_seconds = started.elapsed().as_secs_f64() - out.prefill_seconds;
        Ok(out)
    }

    /// Prefill: fills the cache, scores the prompt and leaves the logits of the first new token for every
    /// sample.
    fn read_prompt(&mut self, prompt: &[u32]) {
        let (model, backend) = (self.model, &self.model.backend);
        let prefix = self.attached.map_or(0, Attached::prefix_len);
        let n = prefix + prompt.len();
        let segments = self.prefill.place(backend, &[prompt], prefix);
        let mut keys = Keys::Prompt(&segments, &mut self.cache);
        self.prefill.run(model, self.attached, &mut keys, true);
        backend.upload(self.decode.positions.view_mut(), &vec![n as u32; self.options.num_samples]);

        let (width, vocab_size) = (model.config.hidden_size, model.config.vocab_size);
        let last = self.prefill.acts.hidden.slice((n - 1) * width..n * width);
        model.head(self.logits.first_mut(vocab_size), last);
        let (first, mut others) = self.logits.view_mut().split_at(vocab_size);
        for sample in 1..self.options.num_samples {
            let to = others.reborrow().slice((sample - 1) * vocab_size..sample * vocab_size);
            backend.copy(to, first.view());
        }
        let Some(attached) = self.guarded() else { return };
        self.prefill.prepare(model, attached);
        self.decode.prepare(model, attached);
        let scores = self.prefill.score(model, attached);
        self.score_sums.fill(scores.iter().map(|&s| f64::from(s)).sum());
        if let Some(stats) = &attached.stats {
            backend.upload(self.stats.view_mut(), &stats.normalized());
        }
    }

    /// What is attached, if a guard is part of it.
    fn guarded(&self) -> Option<&'a Attached<B>> {
        self.attached.filter(|attached| attached.guard.is_some())
    }

    /// Marks the tokens of the prompt and those to be suppressed. Nothing has been chosen yet.
    fn mark_tokens(&mut self, prompt: &[u32]) {
        let Some(marks) = &mut self.marks else { return };
        let (samples, vocab_size) = (self.options.num_samples, self.model.config.vocab_size);
        let mut row = vec![0u8; vocab_size];
        for (tokens, bit) in [
            (prompt, mark::SEEN),
            (&self.options.suppress_tokens, mark::SUPPRESSED),
            (&self.options.begin_suppress_tokens, mark::SUPPRESSED_FIRST),
        ] {
            for &token in tokens {
                row.get_mut(token as usize).into_iter().for_each(|mark| *mark |= bit);
            }
        }
        let backend = &self.model.backend;
        backend.upload(marks.view_mut(), &row.repeat(samples));
        backend.upload(self.decode.ids.view_mut(), &vec![u32::MAX; samples]);
    }

    /// Chooses the token at generated position `position` of every sample.
    fn choose(&mut self, position: usize, prompt_len: usize) {
        let backend = &self.model.backend;
        if let Some(marks) = &mut self.marks {
            let repetition_penalty = self.options.repetition_penalty.unwrap_or(1.0);
            let adjustment = Adjustment { repetition_penalty, first: position == 0 };
            let last = self.decode.ids.view();
            backend.adjust(self.logits.view_mut(), marks.view_mut(), last, adjustment);
        }
        if self.options.guided {
            let every = self.options.rescore_every;
            if position == 0 || (every > 0 && position.is_multiple_of(every)) {
                let seen = (prompt_len + if every > 0 { position } else { 0 }) as f64;
                let strength: Vec<f32> = self.score_sums.iter().map(|sum| (seen / sum) as f32).collect();
                backend.upload(self.strength.view_mut(), &strength);
            }
            let boost = if BOOSTED.contains(&position) { 1.0 } else { 0.0 };
            backend.guide(self.logits.view_mut(), self.stats.view(), self.strength.view(), boost);
        }
        backend.sample(
            self.decode.ids.view_mut(),
            self.logits.view(),
            self.options.sampling,
            position as u32,
        );
    }

    /// The tokens that were chosen for generated position `position`.
    fn chosen(&self, position: usize) -> Result<Vec<u32>> {
        let mut tokens = vec![0; self.options.num_samples];
        self.model.backend.fetch(&mut tokens, self.decode.ids.view())?;
        match tokens.contains(&u32::MAX) {
            true => Err(Error::model(format!(
                "the logits of generated token {position} are not numbers; the model's or adapter's weights are damaged"
            ))),
            false => Ok(tokens),
        }
    }

    /// Appends tokens to the samples that are still open. Returns whether to go on.
    fn deliver(
        &self,
        tokens: &[u32],
        open: &mut [bool],
        out: &mut Generated,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> bool {
        for (sample, &token) in tokens.iter().enumerate().filter(|(s, _)| open[*s]).collect::<Vec<_>>() {
            if self.options.stop_tokens.contains(&token) {
                open[sample] = false;
                out.finish_reasons[sample] = FinishReason::Stop;
                continue;
            }
            out.samples[sample].push(token);
            if !on_token(sample, token) {
                let cancelled = (0..open.len()).filter(|&s| open[s]);
                cancelled.for_each(|s| out.finish_reasons[s] = FinishReason::Cancelled);
                return false;
            }
        }
        true
    }

    /// Feeds the chosen tokens and leaves the next logits.
    fn advance(&mut self) {
        let (model, n) = (self.model, self.options.num_samples);
        let rescoring = self.options.guided && self.options.rescore_every > 0;
        self.cache.advance();
        let mut keys = Keys::Cache(&mut self.cache);
        self.decode.run(model, self.attached, &mut keys, rescoring);
        let hidden = self.decode.acts.hidden.first(n * model.config.hidden_size);
        model.head(self.logits.view_mut(), hidden);
        if let Some(attached) = self.attached.filter(|_| rescoring) {
            let scores = self.decode.score(model, attached);
            self.score_sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += f64::from(score));
        }
    }
}
