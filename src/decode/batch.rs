//! Samples of many prompts in one batch: where one ends, the next takes its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::attached::Attached;
use crate::decode::cohort::{Cohort, Places, Prompt};
use crate::decode::stage::Stage;
use crate::decode::{FinishReason, GenerateOptions, Generated, Next, Request, Watcher};
use crate::error::{Error, Result};
use crate::model::block::Keys;
use crate::model::transformer::Transformer;
use crate::ops::sample::{Adjustment, Sampling};
use crate::ops::{Arena, Backend, Buffer};

/// Generated positions (the first token is 0) at which secure tokens get an additional boost.
const BOOSTED: std::ops::RangeInclusive<usize> = 1..=2;

/// What helps where a generation does not fit.
const ADVICE: &str =
    "lower `num_samples` or `max_new_tokens`, shorten the prompt, or choose another `device`";

/// Rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Most rows of a decoding pass.
    pub(super) rows: usize,
    /// Most samples that begin together.
    pub(super) cohort: usize,
    /// Most cohorts.
    pub(super) cohorts: usize,
    /// Whether a pass has the rows of open samples only. Otherwise passes always have all rows, and cohorts
    /// all of theirs, so that the bits of a sample do not depend on what else there is.
    pub(super) compact: bool,
}

/// Most samples that begin together in a batch of many prompts.
const COHORT: usize = 8;

/// Rows of such a batch where they are always the same.
const FIXED_ROWS: usize = 64;

impl Shape {
    /// For samples of one prompt.
    pub(super) fn of_one<B: Backend>(backend: &B, samples: usize) -> Self {
        let compact = samples <= backend.independent_rows();
        Shape { rows: samples, cohort: samples, cohorts: 1, compact }
    }

    /// For so many prompts, with so many samples each; both are 1 at least.
    pub(super) fn of_many<B: Backend>(backend: &B, prompts: usize, samples: usize) -> Self {
        match backend.independent_rows() {
            rows if rows >= COHORT => Self::compact(rows, prompts, samples),
            _ => Shape { rows: FIXED_ROWS, cohort: COHORT, cohorts: FIXED_ROWS / COHORT, compact: false },
        }
    }

    fn compact(most_rows: usize, prompts: usize, samples: usize) -> Self {
        let rows = most_rows.min(prompts.saturating_mul(samples));
        let cohort = COHORT.min(samples);
        let all = prompts.saturating_mul(samples.div_ceil(cohort));
        // Cohorts of which samples have ended leave rows to others. One of a single sample leaves none.
        let open = if cohort == 1 { rows } else { 2 * most_rows / cohort };
        Shape { rows, cohort, cohorts: open.min(all), compact: true }
    }
}

/// Samples in progress.
pub(super) struct Batch<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: Option<&'a Attached<B>>,
    options: &'a GenerateOptions,
    shape: Shape,
    /// Of one prompt at a time.
    prefill: Stage<B>,
    /// The stage's ids are the chosen tokens: the next step reads them where they were drawn.
    decode: Stage<B>,
    /// `[rows, vocab_size]`.
    logits: Buffer<B, B::Act>,
    /// `[vocab_size]` normalised statistics.
    stats: Buffer<B, f32>,
    /// Memory of cohorts that are no more.
    free: Vec<Places<B>>,
    /// In the order of their rows.
    cohorts: Vec<Cohort<B>>,
    /// The prompt of which not all samples have begun, and the first of those.
    waiting: Option<(Rc<Prompt<B>>, usize)>,
    /// Requests that were taken.
    requests: usize,
    /// What became of requests that are not finished, with the number of their open samples.
    results: BTreeMap<usize, (Generated, usize)>,
}

impl<'a, B: Backend> Batch<'a, B> {
    /// For prompts of at most `longest` tokens.
    pub(super) fn new(
        model: &'a Transformer<B>,
        attached: Option<&'a Attached<B>>,
        options: &'a GenerateOptions,
        shape: Shape,
        longest: usize,
    ) -> Result<Self> {
        let config = &model.config;
        let prompt_rows = attached.map_or(0, Attached::prefix_len) + longest;
        let ((prefill, decode, logits, mut stats, free), _) = Arena::build(&model.backend, |arena| {
            let places = |arena: &mut Arena<B>| Places::new(arena, config, shape.cohort, options);
            Ok((
                Stage::new(arena, model, attached, prompt_rows)?,
                Stage::new(arena, model, attached, shape.rows)?,
                arena.buffer("logits", &[shape.rows, config.vocab_size])?,
                arena.buffer("normalised statistics", &[config.vocab_size])?,
                (0..shape.cohorts).map(|_| places(arena)).collect::<Result<Vec<_>>>()?,
            ))
        })
        .map_err(complaint)?;
        if options.guided
            && let Some(of_adapter) = attached.and_then(|attached| attached.stats.as_ref())
        {
            let mut values = of_adapter.normalized();
            for &token in &options.unguided_tokens {
                values.get_mut(token as usize).into_iter().for_each(|value| *value = 0.0);
            }
            model.backend.upload(stats.view_mut(), &values);
        }
        let mut batch = Batch {
            model,
            attached,
            options,
            shape,
            prefill,
            decode,
            logits,
            stats,
            free,
            cohorts: Vec::new(),
            waiting: None,
            requests: 0,
            results: BTreeMap::new(),
        };
        if let Some(attached) = attached {
            batch.prefill.prepare(model, attached);
            if batch.rescores() {
                batch.decode.prepare(model, attached);
            }
        }
        Ok(batch)
    }

    /// Decodes the samples of all requests.
    pub(super) fn run(
        mut self,
        requests: &mut dyn Iterator<Item = Request>,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        loop {
            while self.begin(requests)? {
                let last = self.cohorts.len() - 1;
                if !self.deliver(last..last + 1, watcher)? {
                    return self.cancel(watcher);
                }
            }
            if self.cohorts.is_empty() {
                return Ok(());
            }
            let backend = self.model.backend.clone();
            backend.graph("decoding step", || {
                self.advance();
                (0..self.cohorts.len()).for_each(|cohort| self.choose(cohort));
            });
            if !self.deliver(0..self.cohorts.len(), watcher)? {
                return self.cancel(watcher);
            }
        }
    }

    /// Begins the next samples, if there is room for them, and chooses their first token.
    fn begin(&mut self, requests: &mut dyn Iterator<Item = Request>) -> Result<bool> {
        if self.waiting.is_none() && self.room() > 0 {
            let Some(request) = requests.next() else { return Ok(false) };
            self.read(&request)?;
        }
        let (most, samples) = (self.shape.cohort, self.options.num_samples);
        let Some((prompt, first)) = &self.waiting else { return Ok(false) };
        let (prompt, first) = (prompt.clone(), *first);
        let end = if self.shape.compact { samples.min(first + most) } else { first + most };
        if self.room() < end - first {
            return Ok(false);
        }
        let Some(places) = self.free.pop() else { return Ok(false) };
        self.waiting = (end < samples).then(|| (prompt.clone(), end));
        self.cohorts.push(Cohort::new(&self.model.backend, prompt, places, first..end, samples));
        self.place_last();
        self.choose(self.cohorts.len() - 1);
        Ok(true)
    }

    /// Rows that are free, for which there is memory.
    fn room(&self) -> usize {
        if self.free.is_empty() { 0 } else { self.shape.rows - self.rows() }
    }

    /// Rows of the cohorts.
    fn rows(&self) -> usize {
        self.cohorts.iter().map(Cohort::rows).sum()
    }

    /// The rows of a cohort.
    fn rows_of(&self, cohort: usize) -> Range<usize> {
        let first = self.cohorts[..cohort].iter().map(Cohort::rows).sum();
        first..first + self.cohorts[cohort].rows()
    }

    /// Reads the prompt of a request.
    fn read(&mut self, request: &Request) -> Result<()> {
        let stage = &mut self.prefill;
        let prompt = Prompt::read(stage, self.model, self.attached, self.options, (self.requests, request));
        let prompt = Rc::new(prompt.map_err(complaint)?);
        let samples = self.options.num_samples;
        let guarded = self.attached.is_some_and(|attached| attached.guard.is_some());
        let generated = Generated {
            samples: vec![Vec::new(); samples],
            finish_reasons: vec![FinishReason::Cancelled; samples],
            prompt_score: guarded.then(|| prompt.score_sum / prompt.len as f64),
            prefill_seconds: 0.0,
            decode_seconds: 0.0,
        };
        self.results.insert(self.requests, (generated, samples));
        self.requests += 1;
        self.waiting = Some((prompt, 0));
        Ok(())
    }

    /// Writes what the device has to know of the last cohort, whose samples have no token yet.
    fn place_last(&mut self) {
        let (backend, rows) = (&self.model.backend, self.rows_of(self.cohorts.len() - 1));
        let Some(cohort) = self.cohorts.last_mut() else { return };
        cohort.upload_numbers(backend);
        let positions = vec![cohort.prompt.len as u32; rows.len()];
        backend.upload(self.decode.positions.slice_mut(rows.clone()), &positions);
        if cohort.places.marks.is_some() {
            backend.upload(self.decode.ids.slice_mut(rows.clone()), &vec![u32::MAX; rows.len()]);
        }
        let vocab_size = self.model.config.vocab_size;
        for row in rows {
            let to = self.logits.slice_mut(row * vocab_size..(row + 1) * vocab_size);
            backend.copy(to, cohort.prompt.logits.view());
        }
    }

    /// Chooses the next token of every sample of a cohort.
    fn choose(&mut self, cohort: usize) {
        let (backend, vocab_size, rows) =
            (&self.model.backend, self.model.config.vocab_size, self.rows_of(cohort));
        let (cohort, options, n) = (&mut self.cohorts[cohort], self.options, rows.len());
        let mut logits = self.logits.slice_mut(rows.start * vocab_size..rows.end * vocab_size);
        let position = cohort.position;
        if let Some(marks) = &mut cohort.places.marks {
            let repetition_penalty = options.repetition_penalty.unwrap_or(1.0);
            let adjustment = Adjustment { repetition_penalty, first: position == 0 };
            let last = self.decode.ids.slice(rows.clone());
            backend.adjust(logits.reborrow(), marks.first_mut(n * vocab_size), last, adjustment);
        }
        if options.guided {
            let every = options.rescore_every;
            if position == 0 || (every > 0 && position.is_multiple_of(every)) {
                cohort.measure_strength(backend, options);
            }
            let boost = if BOOSTED.contains(&position) { options.boost() } else { 0.0 };
            backend.guide(logits.reborrow(), self.stats.view(), cohort.places.strength.first(n), boost);
        }
        let sampling = Sampling { seed: cohort.prompt.seed, ..options.sampling };
        let numbers = cohort.places.numbers.first(n);
        backend.sample(self.decode.ids.slice_mut(rows), logits.view(), numbers, sampling, position as u32);
    }

    /// Hands out the tokens that were chosen for some cohorts. Returns whether to go on.
    fn deliver(&mut self, cohorts: Range<usize>, watcher: &mut dyn Watcher) -> Result<bool> {
        let rows = self.rows_of(cohorts.start).start..self.rows_of(cohorts.end - 1).end;
        let mut tokens = vec![0; rows.len()];
        self.model.backend.fetch(&mut tokens, self.decode.ids.slice(rows))?;
        let mut tokens = tokens.into_iter();
        let mut ended = false;
        for cohort in &mut self.cohorts[cohorts] {
            let (request, limit) = (cohort.prompt.request, cohort.prompt.limit);
            let is_last = cohort.position + 1 == limit;
            let Some((generated, open)) = self.results.get_mut(&request) else { continue };
            for (sample, token) in cohort.samples.iter_mut().zip(&mut tokens) {
                if token == u32::MAX {
                    return Err(damaged(cohort.position));
                }
                sample.token = token;
                if !sample.open {
                    continue;
                }
                let next = if self.options.stop_tokens.contains(&token) {
                    Next::End
                } else {
                    generated.samples[sample.number].push(token);
                    watcher.on_token(request, sample.number, token)
                };
                let reason = match next {
                    Next::Cancel => return Ok(false),
                    Next::End => FinishReason::Stop,
                    Next::GoOn if is_last => FinishReason::Length,
                    Next::GoOn => continue,
                };
                generated.finish_reasons[sample.number] = reason;
                (sample.open, ended) = (false, true);
                *open -= 1;
            }
        }
        if ended {
            self.settle(watcher)?;
        }
        Ok(true)
    }

    /// Ends the requests whose samples have all ended, and takes the rows of those that have.
    fn settle(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        let finished: Vec<usize> =
            self.results.iter().filter(|(_, (_, open))| *open == 0).map(|(&request, _)| request).collect();
        for request in finished {
            if let Some((generated, _)) = self.results.remove(&request) {
                watcher.on_finished(request, generated)?;
            }
        }
        let backend = &self.model.backend;
        let before = self.rows();
        for cohort in std::mem::take(&mut self.cohorts) {
            if cohort.is_done() {
                self.free.push(cohort.places);
            } else {
                self.cohorts.push(cohort);
            }
        }
        if self.shape.compact {
            self.cohorts.iter_mut().for_each(|cohort| cohort.compact(backend));
        }
        if self.rows() < before {
            self.place_all();
        }
        Ok(())
    }

    /// Writes tokens and positions of all samples, whose rows have changed.
    fn place_all(&mut self) {
        let (backend, rows) = (&self.model.backend, self.rows());
        let samples = || self.cohorts.iter().flat_map(|c| c.samples.iter().map(|s| (s.token, c.prompt.len)));
        let tokens: Vec<u32> = samples().map(|(token, _)| token).collect();
        let positions: Vec<u32> = samples().map(|(_, len)| len as u32).collect();
        backend.upload(self.decode.ids.first_mut(rows), &tokens);
        backend.upload(self.decode.positions.first_mut(rows), &positions);
    }

    /// Whether scores are computed while decoding.
    fn rescores(&self) -> bool {
        self.options.guided && self.options.rescore_every > 0
    }

    /// Feeds the chosen tokens and leaves the next logits.
    fn advance(&mut self) {
        let (model, rescoring) = (self.model, self.rescores());
        let rows = if self.shape.compact { self.rows() } else { self.shape.rows };
        let mut keys = Keys::Cache(self.cohorts.iter_mut().map(Cohort::advance).collect());
        self.decode.run_first(rows, model, self.attached, &mut keys, rescoring);
        drop(keys);
        let (width, vocab_size) = (model.config.hidden_size, model.config.vocab_size);
        model.head(self.logits.first_mut(rows * vocab_size), self.decode.acts.hidden.first(rows * width));
        if let Some(attached) = self.attached.filter(|_| rescoring) {
            let scores = self.decode.score_first(rows, model, attached);
            let mut scores = scores.as_slice();
            for cohort in &mut self.cohorts {
                let (own, others) = scores.split_at(cohort.rows());
                cohort.add_scores(own);
                scores = others;
            }
        }
    }

    /// Ends all requests as they are.
    fn cancel(self, watcher: &mut dyn Watcher) -> Result<()> {
        let mut results = self.results.into_iter();
        results.try_for_each(|(request, (generated, _))| watcher.on_finished(request, generated))
    }
}

fn complaint(error: Error) -> Error {
    error.context("working memory of generation").memory_advice(ADVICE)
}

fn damaged(position: usize) -> Error {
    Error::model(format!(
        "the logits of generated token {position} are not numbers; the model's or adapter's weights are damaged"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::ops::Device;

    /// Memory for as many samples as fill a pass, and for no more than there are, or twice as many.
    #[test]
    fn a_batch_is_as_large_as_its_samples_need() {
        let most_rows = Cpu::new().independent_rows();
        for (prompts, samples) in [(1, 1), (3, 1), (500, 1), (1, 3), (7, 3), (500, 5), (2, 11), (500, 20)] {
            let Shape { rows, cohort, cohorts, compact } = Shape::of_many(&Cpu::new(), prompts, samples);
            let shown = format!("{prompts} prompts, {samples} samples: {rows} {cohort} {cohorts}");
            assert!(compact && rows == most_rows.min(prompts * samples), "{shown}");
            assert!(cohort <= samples && cohorts * cohort >= rows, "{shown}");
            assert!(cohorts <= prompts * samples.div_ceil(cohort), "{shown}");
            assert!(cohorts * cohort <= 2 * most_rows, "{shown}");
        }
        let single = Shape::of_many(&Cpu::new(), 500, 1);
        assert_eq!((single.cohort, single.cohorts), (1, most_rows), "samples that end leave their memory");
    }
}
