//! One prompt and its samples: memory, prefill, decoding passes.

use serde::Serialize;

use crate::attached::Attached;
use crate::decode::GenerateOptions;
use crate::error::{Error, Result};
use crate::guard::{GuardActivations, GuardPass};
use crate::model::activations::{ActivationShape, Activations, Recompute, Rows};
use crate::model::block::{Adapter, Keys, Pass};
use crate::model::kv_cache::KvCache;
use crate::model::transformer::Transformer;
use crate::ops::attention::Segment;
use crate::ops::{Arena, Backend, Buffer};

/// Generated positions (the first token is 0) at which secure tokens get an additional boost.
const BOOSTED: std::ops::RangeInclusive<usize> = 1..=2;

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It produced a stop token.
    Stop,
    /// It reached the limit of new tokens.
    Length,
    /// The caller ended the generation.
    Cancelled,
}

/// All samples of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// New tokens of every sample, without the stop token.
    pub samples: Vec<Vec<u32>>,
    /// Why each sample ended.
    pub finish_reasons: Vec<FinishReason>,
    /// Mean analyzer score of the prompt, with a guard.
    pub prompt_score: Option<f64>,
    /// Per-token scores of the prompt, with a guard.
    pub prompt_scores: Vec<f32>,
    /// Seconds until the first token.
    pub prefill_seconds: f64,
    /// Seconds of all further tokens.
    pub decode_seconds: f64,
}

/// Memory of passes over `rows` rows.
struct Stage<B: Backend> {
    acts: Activations<B>,
    guard: Option<GuardActivations<B>>,
    ids: Buffer<B, u32>,
    positions: Buffer<B, u32>,
}

impl<B: Backend> Stage<B> {
    fn new(
        arena: &mut Arena<B>,
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        rows: usize,
    ) -> Result<Self> {
        let shape = ActivationShape {
            rows: Rows::forward_only(rows),
            adapter_rows: rows,
            taps: attached.map_or(0, |a| a.guard.taps),
            adapters: attached.map_or(0, |a| a.lora.per_layer()),
            rank: attached.map_or(0, |a| a.lora.config.rank),
            recompute: Recompute::Forward,
        };
        Ok(Stage {
            acts: Activations::new(arena, &model.config, shape)?,
            guard: attached.map(|a| GuardActivations::new(arena, &a.guard, rows, false)).transpose()?,
            ids: arena.buffer("ids", &[rows])?,
            positions: arena.buffer("positions", &[rows])?,
        })
    }
}

/// A generation in progress.
pub(super) struct Session<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: Option<&'a Attached<B>>,
    options: &'a GenerateOptions,
    prefill: Stage<B>,
    decode: Stage<B>,
    cache: KvCache<B>,
    /// `[samples, vocab_size]`.
    logits: Buffer<B, B::Act>,
    /// `[samples]` chosen tokens.
    tokens: Buffer<B, u32>,
    /// `[vocab_size]` normalised statistics.
    stats: Buffer<B, f32>,
    /// `[samples]` 1/σ.
    strength: Buffer<B, f32>,
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
        let ((prefill, decode, cache, logits, tokens, stats, strength), _) =
            Arena::build(&model.backend, |arena| {
                Ok((
                    Stage::new(arena, model, attached, prompt_len)?,
                    Stage::new(arena, model, attached, samples)?,
                    KvCache::new(arena, &model.config, prompt_len, samples, options.max_new_tokens)?,
                    arena.buffer("logits", &[samples, vocab_size])?,
                    arena.buffer("tokens", &[samples])?,
                    arena.buffer("normalised statistics", &[vocab_size])?,
                    arena.buffer("guidance strength", &[samples])?,
                ))
            })?;
        let score_sums = vec![0.0; samples];
        Ok(Session {
            model,
            attached,
            options,
            prefill,
            decode,
            cache,
            logits,
            tokens,
            stats,
            strength,
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
        let prompt_scores = self.read_prompt(prompt);
        let mut out = Generated {
            samples: vec![Vec::new(); samples],
            finish_reasons: vec![FinishReason::Length; samples],
            prompt_score: self.attached.map(|_| self.score_sums[0] / prompt.len() as f64),
            prompt_scores,
            prefill_seconds: 0.0,
            decode_seconds: 0.0,
        };
        let mut open = vec![true; samples];
        let mut first_token = None;
        for position in 0..self.options.max_new_tokens {
            let tokens = self.choose(position, prompt.len())?;
            first_token.get_or_insert_with(|| started.elapsed().as_secs_f64());
            let going = self.deliver(&tokens, &mut open, &mut out, on_token);
            if !going || !open.contains(&true) || position + 1 == self.options.max_new_tokens {
                break;
            }
            self.advance(&tokens, prompt.len() + position);
        }
        out.prefill_seconds = first_token.unwrap_or_default();
        out.decode_seconds = started.elapsed().as_secs_f64() - out.prefill_seconds;
        Ok(out)
    }

    /// Prefill: fills the cache, scores the prompt and leaves the logits of the first new token for every sample.
    fn read_prompt(&mut self, prompt: &[u32]) -> Vec<f32> {
        let (model, backend, n) = (self.model, &self.model.backend, prompt.len());
        let Stage { acts, guard, ids, positions } = &mut self.prefill;
        backend.upload(ids.view_mut(), prompt);
        backend.upload(positions.view_mut(), &(0..n as u32).collect::<Vec<_>>());
        let segments = [Segment { start: 0, len: n as u32, prefix_start: 0, prefix_len: 0 }];
        let mut keys = Keys::Prompt(&segments, &mut self.cache);
        let pass = Pass {
            rows: Rows::forward_only(n),
            positions: positions.view(),
            adapter: self.attached.map(|a| Adapter {
                lora: &a.lora,
                params: &a.params,
                rows: n,
                dropout: None,
            }),
        };
        let taps = self.attached.map_or(0, |a| a.guard.taps);
        model.forward(acts, ids.view(), pass, &mut keys, taps, n);

        let (width, vocab_size) = (model.config.hidden_size, model.config.vocab_size);
        let last = acts.hidden.slice((n - 1) * width..n * width);
        model.head(self.logits.first_mut(vocab_size), last);
        let (first, mut others) = self.logits.view_mut().split_at(vocab_size);
        for sample in 1..self.options.num_samples {
            let to = others.reborrow().slice((sample - 1) * vocab_size..sample * vocab_size);
            backend.copy(to, first.view());
        }
        let Some((attached, guard)) = self.attached.zip(guard.as_mut()) else { return Vec::new() };
        let scores = score_rows(model, attached, acts, guard, ids, n);
        self.score_sums.fill(scores.iter().map(|&s| f64::from(s)).sum());
        backend.upload(self.stats.view_mut(), &attached.stats.normalized());
        if let Some(decode_guard) = &mut self.decode.guard {
            attached.guard.prepare(backend, &attached.params, decode_guard);
        }
        scores
    }

    /// Chooses the token at generated position `position` of every sample.
    fn choose(&mut self, position: usize, prompt_len: usize) -> Result<Vec<u32>> {
        let backend = &self.model.backend;
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
        backend.sample(self.tokens.view_mut(), self.logits.view(), self.options.sampling, position as u32);
        let tokens = backend.to_host(self.tokens.view());
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

    /// Feeds the chosen tokens, which stand at `position`, and leaves the next logits.
    fn advance(&mut self, tokens: &[u32], position: usize) {
        let (model, backend, n) = (self.model, &self.model.backend, tokens.len());
        let rescoring = self.options.guided && self.options.rescore_every > 0;
        let Stage { acts, guard, ids, positions } = &mut self.decode;
        backend.upload(ids.view_mut(), tokens);
        backend.upload(positions.view_mut(), &vec![position as u32; n]);
        self.cache.advance();
        let pass = Pass {
            rows: Rows::forward_only(n),
            positions: positions.view(),
            adapter: self.attached.map(|a| Adapter {
                lora: &a.lora,
                params: &a.params,
                rows: n,
                dropout: None,
            }),
        };
        let taps = self.attached.filter(|_| rescoring).map_or(0, |a| a.guard.taps);
        model.forward(acts, ids.view(), pass, &mut Keys::Cache(&mut self.cache), taps, n);
        model.head(self.logits.view_mut(), acts.hidden.first(n * model.config.hidden_size));
        if let Some((attached, guard)) = self.attached.zip(guard.as_mut()).filter(|_| rescoring) {
            let pass = guard_pass(model, attached, acts, ids, n);
            attached.guard.forward(&pass, guard);
            let scores = backend.to_host(guard.scores.first(n));
            self.score_sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += f64::from(score));
        }
    }
}

fn guard_pass<'x, B: Backend>(
    model: &'x Transformer<B>,
    attached: &'x Attached<B>,
    acts: &'x Activations<B>,
    ids: &'x Buffer<B, u32>,
    rows: usize,
) -> GuardPass<'x, B> {
    GuardPass {
        backend: &model.backend,
        params: &attached.params,
        taps: acts.taps.first(attached.guard.taps * rows * model.config.hidden_size),
        ids: ids.first(rows),
        rows,
        dropout: None,
    }
}

/// Scores of the first `rows` rows of a pass.
fn score_rows<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    acts: &Activations<B>,
    guard: &mut GuardActivations<B>,
    ids: &Buffer<B, u32>,
    rows: usize,
) -> Vec<f32> {
    attached.guard.prepare(&model.backend, &attached.params, guard);
    attached.guard.forward(&guard_pass(model, attached, acts, ids, rows), guard);
    model.backend.to_host(guard.scores.first(rows))
}

/// Reads `tokens` in one pass; the stage then holds hidden states and taps.
fn read<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    tokens: &[u32],
) -> Result<Stage<B>> {
    let (backend, n) = (&model.backend, tokens.len());
    let (mut stage, _) = Arena::build(backend, |arena| Stage::new(arena, model, attached, n))?;
    backend.upload(stage.ids.view_mut(), tokens);
    backend.upload(stage.positions.view_mut(), &(0..n as u32).collect::<Vec<_>>());
    let segments = [Segment { start: 0, len: n as u32, prefix_start: 0, prefix_len: 0 }];
    let adapter = attached.map(|a| Adapter { lora: &a.lora, params: &a.params, rows: n, dropout: None });
    let pass = Pass { rows: Rows::forward_only(n), positions: stage.positions.view(), adapter };
    let taps = attached.map_or(0, |a| a.guard.taps);
    model.forward(&mut stage.acts, stage.ids.view(), pass, &mut Keys::Packed(&segments), taps, n);
    Ok(stage)
}

/// Scores every token of `tokens` (METHOD §5), in (0, 1); high is secure.
pub fn score<B: Backend>(model: &Transformer<B>, attached: &Attached<B>, tokens: &[u32]) -> Result<Vec<f32>> {
    let mut stage = read(model, Some(attached), tokens)?;
    let Some(guard) = &mut stage.guard else { return Ok(Vec::new()) };
    Ok(score_rows(model, attached, &stage.acts, guard, &stage.ids, tokens.len()))
}

/// Logits `[tokens, vocab_size]` of a text.
pub fn final_logits<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    tokens: &[u32],
) -> Result<Vec<f32>> {
    let stage = read(model, attached, tokens)?;
    let (n, backend) = (tokens.len(), &model.backend);
    let shape = [n, model.config.vocab_size];
    let (mut logits, _) = Arena::build(backend, |arena| arena.buffer("logits", &shape))?;
    model.head(logits.view_mut(), stage.acts.hidden.first(n * model.config.hidden_size));
    Ok(backend.download_act(logits.view()))
}
