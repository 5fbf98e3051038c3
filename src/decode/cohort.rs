//! Samples of one prompt that are decoded side by side, at the same position.

use std::ops::Range;
use std::rc::Rc;

use crate::attached::Attached;
use crate::decode::stage::Stage;
use crate::decode::{GenerateOptions, Request};
use crate::error::Result;
use crate::model::block::Keys;
use crate::model::config::Config;
use crate::model::kv_cache::{CachedRows, PromptCache, SampleCache};
use crate::model::transformer::Transformer;
use crate::ops::sample::mark;
use crate::ops::{Arena, Backend, Buffer};

/// A prompt that has been read.
pub(super) struct Prompt<B: Backend> {
    /// Its place among the requests.
    pub(super) request: usize,
    pub(super) seed: u64,
    /// Most new tokens of its samples.
    pub(super) limit: usize,
    /// Rows of it, those of a prefix included.
    pub(super) len: usize,
    pub(super) cache: PromptCache<B>,
    /// `[vocab_size]`, from which the first new token of every sample is chosen.
    pub(super) logits: Buffer<B, B::Act>,
    /// Sum of the scores of its tokens, with a guard.
    pub(super) score_sum: f64,
    /// `[vocab_size]` marks of tokens before anything is chosen; empty where no logit is adjusted.
    marks: Vec<u8>,
}

impl<B: Backend> Prompt<B> {
    /// Prefill: keys and values, score, and the logits of the first new token. `stage`, in which this is
    /// computed, is prepared.
    pub(super) fn read(
        stage: &mut Stage<B>,
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        options: &GenerateOptions,
        (number, request): (usize, &Request),
    ) -> Result<Self> {
        let (backend, config, tokens) = (&model.backend, &model.config, &request.prompt);
        let prefix = attached.map_or(0, Attached::prefix_len);
        let (n, width, vocab_size) = (prefix + tokens.len(), config.hidden_size, config.vocab_size);
        let ((mut cache, mut logits), _) = Arena::build(backend, |arena| {
            Ok((PromptCache::new(arena, config, n)?, arena.buffer("logits of a prompt", &[vocab_size])?))
        })?;
        let segments = stage.place(backend, &[tokens], prefix, 0);
        stage.run_first(n, model, attached, &mut Keys::Prompt(&segments, &mut cache), true);
        model.head(logits.view_mut(), stage.acts.hidden.slice((n - 1) * width..n * width));
        let mut score_sum = 0.0;
        if let Some(attached) = attached.filter(|attached| attached.guard.is_some()) {
            score_sum = stage.score_first(n, model, attached).into_iter().map(f64::from).sum();
        }
        Ok(Prompt {
            request: number,
            seed: request.seed,
            limit: options.max_new_tokens.min(config.max_position_embeddings - n),
            len: n,
            cache,
            logits,
            score_sum,
            marks: marks(tokens, options, vocab_size),
        })
    }
}

/// Marks of the tokens of a prompt and of those to be suppressed, if the options adjust any logit.
fn marks(prompt: &[u32], options: &GenerateOptions, vocab_size: usize) -> Vec<u8> {
    if !options.adjusts() {
        return Vec::new();
    }
    let mut row = vec![0u8; vocab_size];
    for (tokens, bit) in [
        (prompt, mark::SEEN),
        (&options.suppress_tokens, mark::SUPPRESSED),
        (&options.begin_suppress_tokens, mark::SUPPRESSED_FIRST),
    ] {
        for &token in tokens {
            row.get_mut(token as usize).into_iter().for_each(|mark| *mark |= bit);
        }
    }
    row
}

/// Memory of a cohort.
pub(super) struct Places<B: Backend> {
    cache: SampleCache<B>,
    /// `[samples]` of which the random numbers are drawn.
    pub(super) numbers: Buffer<B, u32>,
    /// `[samples]` what the statistics are multiplied with.
    pub(super) strength: Buffer<B, f32>,
    /// `[samples, vocab_size]` marks of tokens, where any logit is adjusted.
    pub(super) marks: Option<Buffer<B, u8>>,
}

impl<B: Backend> Places<B> {
    pub(super) fn new(
        arena: &mut Arena<B>,
        config: &Config,
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Self> {
        let most = options.max_new_tokens.min(config.max_position_embeddings);
        let adjusted = options.adjusts().then_some("marks of tokens");
        Ok(Places {
            cache: SampleCache::new(arena, config, samples, most)?,
            numbers: arena.buffer("numbers of samples", &[samples])?,
            strength: arena.buffer("guidance strength", &[samples])?,
            marks: adjusted.map(|name| arena.buffer(name, &[samples, config.vocab_size])).transpose()?,
        })
    }
}

/// A sample that has a row.
pub(super) struct Sample {
    /// Its number among those of its prompt.
    pub(super) number: usize,
    /// The token that was chosen last.
    pub(super) token: u32,
    /// Whether it goes on.
    pub(super) open: bool,
    /// Sum of the scores of its tokens, the prompt's included.
    score_sum: f64,
    strength: f32,
}

/// Samples of one prompt, a row each.
pub(super) struct Cohort<B: Backend> {
    pub(super) prompt: Rc<Prompt<B>>,
    pub(super) places: Places<B>,
    pub(super) samples: Vec<Sample>,
    /// Position, among the generated ones, of the token that is chosen next.
    pub(super) position: usize,
}

impl<B: Backend> Cohort<B> {
    /// Rows for samples of these numbers; those from `wanted` on only fill their rows.
    pub(super) fn new(
        backend: &B,
        prompt: Rc<Prompt<B>>,
        mut places: Places<B>,
        numbers: Range<usize>,
        wanted: usize,
    ) -> Self {
        places.cache.clear();
        if let Some(marks) = &mut places.marks {
            let rows = prompt.marks.repeat(numbers.len());
            backend.upload(marks.first_mut(rows.len()), &rows);
        }
        let sample = |number| Sample {
            number,
            // Beyond any vocabulary: nothing has been chosen.
            token: u32::MAX,
            open: number < wanted,
            score_sum: prompt.score_sum,
            strength: 0.0,
        };
        let samples = numbers.map(sample).collect();
        Cohort { prompt, places, samples, position: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn is_done(&self) -> bool {
        !self.samples.iter().any(|sample| sample.open)
    }

    /// Rows of the next pass, which has one more token.
    pub(super) fn advance(&mut self) -> CachedRows<'_, B> {
        self.places.cache.advance();
        self.position += 1;
        CachedRows { rows: self.samples.len(), prompt: &self.prompt.cache, own: &mut self.places.cache }
    }

    /// Counts the scores of the tokens that were read last.
    pub(super) fn add_scores(&mut self, scores: &[f32]) {
        let samples = self.samples.iter_mut().zip(scores);
        samples.for_each(|(sample, &score)| sample.score_sum += f64::from(score));
    }

    /// Makes the strength of the guidance that of the scores so far: `1 / mean score`.
    pub(super) fn measure_strength(&mut self, backend: &B, options: &GenerateOptions) {
        let seen = self.prompt.len + if options.rescore_every > 0 { self.position } else { 0 };
        for sample in &mut self.samples {
            let strength = (seen as f64 / sample.score_sum) as f32 * options.guidance_strength;
            sample.strength = options.guidance_cap.map_or(strength, |cap| strength.min(cap));
        }
        self.upload_strength(backend);
    }

    fn upload_strength(&mut self, backend: &B) {
        let strength: Vec<f32> = self.samples.iter().map(|sample| sample.strength).collect();
        backend.upload(self.places.strength.first_mut(strength.len()), &strength);
    }

    pub(super) fn upload_numbers(&mut self, backend: &B) {
        let numbers: Vec<u32> = self.samples.iter().map(|sample| sample.number as u32).collect();
        backend.upload(self.places.numbers.first_mut(numbers.len()), &numbers);
    }

    /// Gives the rows of samples that have ended to others.
    pub(super) fn compact(&mut self, backend: &B) {
        let before = self.samples.len();
        let mut row = 0;
        while row < self.samples.len() {
            if self.samples[row].open {
                row += 1;
                continue;
            }
            self.samples.swap_remove(row);
            if row < self.samples.len() {
                self.move_last(backend, row);
            }
        }
        if self.samples.len() < before {
            self.upload_numbers(backend);
            self.upload_strength(backend);
        }
    }

    /// Moves what lies behind the rows that are left to `row`.
    fn move_last(&mut self, backend: &B, row: usize) {
        let last = self.samples.len();
        self.places.cache.move_sample(backend, last, row);
        if let Some(marks) = &mut self.places.marks {
            let width = self.prompt.marks.len();
            let (before, source) = marks.view_mut().split_at(last * width);
            backend.copy(before.slice(row * width..(row + 1) * width), source.view().slice(0..width));
        }
    }
}
