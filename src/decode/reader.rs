//! A model as it takes part in a batch: what it computes in, what it knows of a prompt, and of samples.

use std::ops::Range;

use crate::attached::Attached;
use crate::decode::stage::Stage;
use crate::decode::{GenerateOptions, context};
use crate::error::Result;
use crate::model::block::Keys;
use crate::model::kv_cache::{CachedRows, PromptCache, SampleCache};
use crate::model::transformer::Transformer;
use crate::ops::sample::{Adjustment, Sampling, mark};
use crate::ops::{Arena, Backend, Buffer, Mut, Ref};

/// A model that reads prompts and samples.
pub(super) struct Reader<'a, B: Backend> {
    pub(super) model: &'a Transformer<B>,
    pub(super) attached: Option<&'a Attached<B>>,
    /// Of one prompt at a time.
    prefill: Stage<B>,
    /// The stage's ids are the chosen tokens: the next step reads them where they were drawn.
    pub(super) decode: Stage<B>,
    /// `[rows, vocab_size]`.
    logits: Buffer<B, B::Act>,
}

impl<'a, B: Backend> Reader<'a, B> {
    /// For prompts of at most `longest` tokens, and so many rows of samples.
    pub(super) fn new(
        arena: &mut Arena<B>,
        model: &'a Transformer<B>,
        attached: Option<&'a Attached<B>>,
        longest: usize,
        rows: usize,
    ) -> Result<Self> {
        let prompt_rows = attached.map_or(0, Attached::prefix_len) + longest;
        Ok(Reader {
            model,
            attached,
            prefill: Stage::new(arena, model, attached, prompt_rows)?,
            decode: Stage::new(arena, model, attached, rows)?,
            logits: arena.buffer("logits", &[rows, model.config.vocab_size])?,
        })
    }

    /// Makes the guard ready: of prompts, and of samples that are `rescored`.
    pub(super) fn prepare(&mut self, rescored: bool) {
        if let Some(attached) = self.attached {
            self.prefill.prepare(self.model, attached);
            if rescored {
                self.decode.prepare(self.model, attached);
            }
        }
    }

    /// Tokens that a prompt and a sample of it may have together.
    pub(super) fn context(&self) -> usize {
        context(self.model, self.attached)
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.model.config.vocab_size
    }

    /// Prefill: keys and values, score, and the logits of the first new token.
    pub(super) fn read(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<Read<B>> {
        let (model, attached, stage) = (self.model, self.attached, &mut self.prefill);
        let (backend, config) = (&model.backend, &model.config);
        let prefix = attached.map_or(0, Attached::prefix_len);
        let (n, width, vocab_size) = (prefix + prompt.len(), config.hidden_size, config.vocab_size);
        let ((mut cache, mut logits), _) = Arena::build(backend, |arena| {
            Ok((PromptCache::new(arena, config, n)?, arena.buffer("logits of a prompt", &[vocab_size])?))
        })?;
        let segments = stage.place(backend, &[prompt], prefix, 0);
        stage.run_first(n, model, attached, &mut Keys::Prompt(&segments, &mut cache), true);
        model.head(logits.view_mut(), stage.acts.hidden.slice((n - 1) * width..n * width));
        let mut score_sum = 0.0;
        if let Some(attached) = attached.filter(|attached| attached.guard.is_some()) {
            score_sum = stage.score_first(n, model, attached).into_iter().map(f64::from).sum();
        }
        Ok(Read { len: n, cache, logits, score_sum, marks: marks(prompt, options, vocab_size) })
    }

    /// Memory of a cohort of so many samples.
    pub(super) fn own(
        &self,
        arena: &mut Arena<B>,
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Own<B>> {
        let config = &self.model.config;
        let most = options.max_new_tokens.min(config.max_position_embeddings);
        let adjusted = options.adjusts().then_some("marks of tokens");
        Ok(Own {
            cache: SampleCache::new(arena, config, samples, most)?,
            marks: adjusted.map(|name| arena.buffer(name, &[samples, config.vocab_size])).transpose()?,
        })
    }

    /// Writes positions and first logits of samples of a prompt, which have no token yet.
    pub(super) fn place(&mut self, prompt: &Read<B>, rows: Range<usize>) {
        let (backend, vocab_size) = (&self.model.backend, self.vocab_size());
        let positions = vec![prompt.len as u32; rows.len()];
        backend.upload(self.decode.positions.slice_mut(rows.clone()), &positions);
        if !prompt.marks.is_empty() {
            backend.upload(self.decode.ids.slice_mut(rows.clone()), &vec![u32::MAX; rows.len()]);
        }
        for row in rows {
            let to = self.logits.slice_mut(row * vocab_size..(row + 1) * vocab_size);
            backend.copy(to, prompt.logits.view());
        }
    }

    /// Writes tokens and positions of all samples, each with its prompt.
    pub(super) fn place_all<'p>(&mut self, tokens: &[u32], prompts: impl Iterator<Item = &'p Read<B>>)
    where
        B: 'p,
    {
        let positions: Vec<u32> = prompts.map(|prompt| prompt.len as u32).collect();
        let backend = &self.model.backend;
        backend.upload(self.decode.ids.first_mut(tokens.len()), tokens);
        backend.upload(self.decode.positions.first_mut(positions.len()), &positions);
    }

    /// Where the logits of rows lie.
    fn place_of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.vocab_size()..rows.end * self.vocab_size()
    }

    /// The logits of rows.
    pub(super) fn logits_of(&mut self, rows: &Range<usize>) -> Mut<'_, B, B::Act> {
        let place = self.place_of(rows);
        self.logits.slice_mut(place)
    }

    /// Adjusts the logits of rows as the marks of their samples say.
    pub(super) fn adjust(&mut self, own: &mut Own<B>, rows: &Range<usize>, adjustment: Adjustment) {
        let Some(marks) = &mut own.marks else { return };
        let place = self.place_of(rows);
        let (marks, last) = (marks.first_mut(place.len()), self.decode.ids.slice(rows.clone()));
        let logits = self.logits.slice_mut(place);
        self.model.backend.adjust(logits, marks, last, adjustment);
    }

    /// Draws the next token of rows, `numbers` those of their samples, for the next pass to read.
    pub(super) fn sample(
        &mut self,
        own: &mut Own<B>,
        rows: &Range<usize>,
        numbers: Ref<'_, B, u32>,
        sampling: Sampling,
    ) {
        let (logits, positions) = (self.logits.slice(self.place_of(rows)), own.cache.tokens_mut(rows.len()));
        let tokens = self.decode.ids.slice_mut(rows.clone());
        self.model.backend.sample(tokens, None, positions, logits, numbers, sampling);
    }

    /// Draws the next token of rows, `numbers` those of their samples.
    pub(super) fn draw(
        &self,
        tokens: Mut<'_, B, u32>,
        probabilities: Option<Mut<'_, B, f32>>,
        own: &mut Own<B>,
        rows: &Range<usize>,
        numbers: Ref<'_, B, u32>,
        sampling: Sampling,
    ) {
        let (logits, positions) = (self.logits.slice(self.place_of(rows)), own.cache.tokens_mut(rows.len()));
        self.model.backend.sample(tokens, probabilities, positions, logits, numbers, sampling);
    }

    /// Takes drafts in the place of the tokens of rows where they are likely enough.
    pub(super) fn verify(
        &mut self,
        rows: &Range<usize>,
        drafts: Ref<'_, B, u32>,
        probabilities: Ref<'_, B, f32>,
        threshold: f32,
    ) {
        let logits = self.logits.slice(self.place_of(rows));
        let tokens = self.decode.ids.slice_mut(rows.clone());
        self.model.backend.verify(tokens, drafts, probabilities, logits, threshold);
    }

    /// Feeds the chosen tokens of the first `rows` rows and leaves the next logits; taps stay, if `tapped`.
    pub(super) fn advance(&mut self, rows: usize, keys: &mut Keys<'_, B>, tapped: bool) {
        self.decode.run_first(rows, self.model, self.attached, keys, tapped);
        let (width, vocab_size) = (self.model.config.hidden_size, self.vocab_size());
        let hidden = self.decode.acts.hidden.first(rows * width);
        self.model.head(self.logits.first_mut(rows * vocab_size), hidden);
    }
}

/// What a model knows of a prompt.
pub(super) struct Read<B: Backend> {
    /// Rows of it, those of a prefix included.
    pub(super) len: usize,
    cache: PromptCache<B>,
    /// `[vocab_size]`, from which the first new token of every sample is chosen.
    logits: Buffer<B, B::Act>,
    /// Sum of the scores of its tokens, with a guard.
    pub(super) score_sum: f64,
    /// `[vocab_size]` marks of tokens before anything is chosen; empty where no logit is adjusted.
    marks: Vec<u8>,
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

/// What a model keeps of the samples of a cohort.
pub(super) struct Own<B: Backend> {
    cache: SampleCache<B>,
    /// `[samples, vocab_size]` marks of tokens, where any logit is adjusted.
    marks: Option<Buffer<B, u8>>,
}

impl<B: Backend> Own<B> {
    /// Forgets what was, for so many samples of a prompt.
    pub(super) fn begin(&mut self, backend: &B, prompt: &Read<B>, samples: usize) {
        self.cache.clear(backend);
        if let Some(marks) = &mut self.marks {
            let rows = prompt.marks.repeat(samples);
            backend.upload(marks.first_mut(rows.len()), &rows);
        }
    }

    /// Makes room for one more token.
    pub(super) fn advance(&mut self) {
        self.cache.advance();
    }

    /// The rows of a pass.
    pub(super) fn cached<'a>(&'a mut self, prompt: &'a Read<B>, rows: usize) -> CachedRows<'a, B> {
        CachedRows { rows, prompt: &prompt.cache, own: &mut self.cache }
    }

    /// Moves a sample of a prompt to another row.
    pub(super) fn move_sample(&mut self, backend: &B, prompt: &Read<B>, from: usize, to: usize) {
        self.cache.move_sample(backend, from, to);
        if let Some(marks) = &mut self.marks {
            let width = prompt.marks.len();
            let (before, source) = marks.view_mut().split_at(from * width);
            backend.copy(before.slice(to * width..(to + 1) * width), source.view().slice(0..width));
        }
    }
}
