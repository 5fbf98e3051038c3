//! Samples of many prompts in one batch: where one ends, the next takes its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::decode::cohort::{Cohort, Places, Prompt};
use crate::decode::expert::Drafts;
use crate::decode::reader::Reader;
use crate::decode::{Decoder, FinishReason, GenerateOptions, Generated, Next, Request, Watcher};
use crate::error::{Error, Result};
use crate::model::block::Keys;
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
    backend: B,
    options: &'a GenerateOptions,
    shape: Shape,
    /// The model whose samples these are.
    main: Reader<'a, B>,
    /// The expert that drafts tokens for it.
    expert: Option<(Reader<'a, B>, Drafts<B>)>,
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
        decoder: Decoder<'a, B>,
        options: &'a GenerateOptions,
        shape: Shape,
        longest: usize,
    ) -> Result<Self> {
        let backend = decoder.model.backend.clone();
        let ((main, expert, stats, free), _) = Arena::build(&backend, |arena| {
            let main = Reader::new(arena, decoder.model, decoder.attached, longest, shape.rows)?;
            let expert = decoder.expert.map(|expert| {
                let reader = Reader::new(arena, expert.model, expert.attached, longest, shape.rows)?;
                Ok::<_, Error>((reader, Drafts::new(arena, shape.rows, expert.options)?))
            });
            let expert = expert.transpose()?;
            let of_expert = expert.as_ref().map(|(reader, _)| reader);
            let mut places = || Places::new(arena, &main, of_expert, shape.cohort, options);
            let free = (0..shape.cohorts).map(|_| places()).collect::<Result<Vec<_>>>()?;
            let stats = arena.buffer("normalised statistics", &[main.vocab_size()])?;
            Ok((main, expert, stats, free))
        })
        .map_err(complaint)?;
        let mut batch = Batch {
            backend,
            options,
            shape,
            main,
            expert,
            stats,
            free,
            cohorts: Vec::new(),
            waiting: None,
            requests: 0,
            results: BTreeMap::new(),
        };
        batch.upload_statistics();
        let rescored = batch.rescores();
        batch.main.prepare(rescored);
        batch.expert.iter_mut().for_each(|(reader, _)| reader.prepare(false));
        Ok(batch)
    }

    fn upload_statistics(&mut self) {
        let stats = self.main.attached.and_then(|attached| attached.stats.as_ref());
        let Some(stats) = stats.filter(|_| self.options.guided) else { return };
        let mut values = stats.normalized();
        for &token in &self.options.unguided_tokens {
            values.get_mut(token as usize).into_iter().for_each(|value| *value = 0.0);
        }
        self.backend.upload(self.stats.view_mut(), &values);
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
            let backend = self.backend.clone();
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
        self.cohorts.push(Cohort::new(&self.backend, prompt, places, first..end, samples));
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
        let expert = self.expert.as_mut().map(|(reader, _)| reader);
        let prompt = Prompt::read(&mut self.main, expert, self.options, (self.requests, request));
        let prompt = Rc::new(prompt.map_err(complaint)?);
        let samples = self.options.num_samples;
        let guarded = self.main.attached.is_some_and(|attached| attached.guard.is_some());
        let generated = Generated {
            samples: vec![Vec::new(); samples],
            finish_reasons: vec![FinishReason::Cancelled; samples],
            prompt_score: guarded.then(|| prompt.main.score_sum / prompt.main.len as f64),
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
        let rows = self.rows_of(self.cohorts.len() - 1);
        let Some(cohort) = self.cohorts.last_mut() else { return };
        cohort.upload_numbers(&self.backend);
        self.main.place(&cohort.prompt.main, rows.clone());
        if let (Some((reader, _)), Some(read)) = (&mut self.expert, &cohort.prompt.expert) {
            reader.place(read, rows);
        }
    }

    /// Chooses the next token of every sample of a cohort.
    fn choose(&mut self, cohort: usize) {
        let (backend, rows) = (&self.backend, self.rows_of(cohort));
        let (cohort, options, n) = (&mut self.cohorts[cohort], self.options, rows.len());
        let position = cohort.position;
        let repetition_penalty = options.repetition_penalty.unwrap_or(1.0);
        let adjustment = Adjustment { repetition_penalty, first: position == 0 };
        if options.guided {
            let every = options.rescore_every;
            if position == 0 || (every > 0 && position.is_multiple_of(every)) {
                cohort.measure_strength(backend, options);
            }
        }
        self.main.adjust(&mut cohort.places.main, &rows, adjustment);
        if options.guided {
            let boost = if BOOSTED.contains(&position) { options.boost() } else { 0.0 };
            let strength = cohort.places.strength.first(n);
            backend.guide(self.main.logits_of(&rows), self.stats.view(), strength, boost);
        }
        let (numbers, seed, position) = (cohort.places.numbers.first(n), cohort.prompt.seed, position as u32);
        self.main.sample(&rows, numbers, Sampling { seed, ..options.sampling }, position);
        if let (Some((expert, drafts)), Some(own)) = (&mut self.expert, &mut cohort.places.expert) {
            expert.adjust(own, &rows, adjustment);
            drafts.draw(backend, expert.logits_of(&rows).view(), numbers, seed, position);
            drafts.verify(&mut self.main, &rows);
            backend.copy(expert.decode.ids.slice_mut(rows.clone()), self.main.decode.ids.slice(rows));
        }
    }

    /// Hands out the tokens that were chosen for some cohorts. Returns whether to go on.
    fn deliver(&mut self, cohorts: Range<usize>, watcher: &mut dyn Watcher) -> Result<bool> {
        let rows = self.rows_of(cohorts.start).start..self.rows_of(cohorts.end - 1).end;
        let mut tokens = vec![0; rows.len()];
        self.backend.fetch(&mut tokens, self.main.decode.ids.slice(rows))?;
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
        let backend = &self.backend;
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
        let samples = || self.cohorts.iter().flat_map(|c| c.samples.iter().map(move |s| (s, &c.prompt)));
        let tokens: Vec<u32> = samples().map(|(sample, _)| sample.token).collect();
        self.main.place_all(&tokens, samples().map(|(_, prompt)| &prompt.main));
        if let Some((reader, _)) = &mut self.expert {
            reader.place_all(&tokens, samples().filter_map(|(_, prompt)| prompt.expert.as_ref()));
        }
    }

    /// Whether scores are computed while decoding.
    fn rescores(&self) -> bool {
        self.options.guided && self.options.rescore_every > 0
    }

    /// Feeds the chosen tokens and leaves the next logits.
    fn advance(&mut self) {
        let rescoring = self.rescores();
        let rows = if self.shape.compact { self.rows() } else { self.shape.rows };
        self.cohorts.iter_mut().for_each(Cohort::advance);
        let mut keys = Keys::Cache(self.cohorts.iter_mut().map(Cohort::cached).collect());
        self.main.advance(rows, &mut keys, rescoring);
        if let Some((reader, _)) = &mut self.expert {
            let mut keys =
                Keys::Cache(self.cohorts.iter_mut().filter_map(Cohort::cached_by_expert).collect());
            reader.advance(rows, &mut keys, false);
        }
        if let Some(attached) = self.main.attached.filter(|_| rescoring) {
            let scores = self.main.decode.score_first(rows, self.main.model, attached);
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
        "the logits of generated token {position} are not numbers; the model's, adapter's or expert's weights are damaged"
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
