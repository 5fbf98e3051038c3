//! Samples of many prompts in one batch: where one ends, the next takes its place.
//!
//! A step is a pass over the last tokens and the choice of the next. All that changes from one to the next is
//! counted on the device, so a step is recorded once for each composition of the batch and then repeated. And
//! it is started before the host has seen the tokens that it reads, unless the host has to decide something
//! in between: a sample that has ended meanwhile has a row in one pass more, whose token nobody sees.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::decode::cohort::{Cohort, Part, Places, Prompt};
use crate::decode::expert::Drafts;
use crate::decode::reader::Reader;
use crate::decode::shape::Shape;
use crate::decode::{Decoder, FinishReason, GenerateOptions, Generated, Next, Request, Watcher};
use crate::error::{Error, Result};
use crate::model::block::Keys;
use crate::ops::sample::{Adjustment, Sampling};
use crate::ops::{Arena, Backend, Buffer, Recording};

/// What helps where a generation does not fit.
const ADVICE: &str =
    "lower `num_samples` or `max_new_tokens`, shorten the prompt, or choose another `device`";

/// Samples in progress.
pub(super) struct Batch<'a, B: Backend> {
    backend: B,
    options: &'a GenerateOptions,
    shape: Shape,
    /// The number of the first sample, by which its random numbers are drawn.
    first: usize,
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
    /// What the recordings are of.
    parts: Vec<Part>,
    /// Of a pass, and of a choice; of both together, the first.
    recordings: [Recording; 2],
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
            first: 0,
            main,
            expert,
            stats,
            free,
            cohorts: Vec::new(),
            waiting: None,
            requests: 0,
            results: BTreeMap::new(),
            parts: Vec::new(),
            recordings: [Recording::none(); 2],
        };
        batch.upload_statistics();
        let rescored = batch.rescores();
        batch.main.prepare(rescored);
        batch.expert.iter_mut().for_each(|(reader, _)| reader.prepare(false));
        Ok(batch)
    }

    /// Numbers the samples of a prompt from `first` on.
    pub(super) fn numbered_from(self, first: usize) -> Self {
        Batch { first, ..self }
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
        let ended = self.decode_all(requests, watcher);
        if !matches!(ended, Ok(true)) {
            // A step may still run. What goes wrong there is the same again, or nobody asks for it any more.
            let _ = self.backend.finish();
        }
        if ended? { Ok(()) } else { self.cancel(watcher) }
    }

    /// Returns whether it came to the end, and was not cancelled.
    fn decode_all(
        &mut self,
        requests: &mut dyn Iterator<Item = Request>,
        watcher: &mut dyn Watcher,
    ) -> Result<bool> {
        loop {
            while self.begin(requests)? {
                let last = self.cohorts.len() - 1;
                if !self.deliver_last_step(last..last + 1, watcher)? {
                    return Ok(false);
                }
            }
            if self.cohorts.is_empty() {
                return Ok(true);
            }
            if !self.decode(watcher)? {
                return Ok(false);
            }
        }
    }

    /// Does one step, and more as long as no row is left over and they can be started ahead. Returns whether
    /// to go on.
    fn decode(&mut self, watcher: &mut dyn Watcher) -> Result<bool> {
        let all = 0..self.cohorts.len();
        self.step();
        while self.can_step_ahead() {
            let tokens = self.backend.start_fetch(self.main.decode.ids.first(self.rows()));
            self.step();
            if !self.deliver(all.clone(), &tokens.wait()?, watcher)? {
                return Ok(false);
            }
        }
        self.deliver_last_step(all, watcher)
    }

    /// Whether the next step can be started before the tokens of the last are known: where the device needs
    /// no host for it, no strength has to be measured, and no row is known to be left over.
    fn can_step_ahead(&self) -> bool {
        let goes_on = |cohort: &Cohort<B>| !cohort.is_at_limit();
        self.backend.runs_behind()
            && !self.rescores()
            && self.cohorts.iter().all(goes_on)
            && !self.has_rows_to_give()
    }

    /// Whether the batch would have fewer rows if it was settled.
    fn has_rows_to_give(&self) -> bool {
        self.cohorts.iter().any(|cohort| cohort.has_rows_to_give(self.shape.compact))
    }

    /// Reads the chosen tokens and chooses the next ones.
    fn step(&mut self) {
        self.cohorts.iter_mut().for_each(Cohort::advance);
        let guided = self.options.guided;
        let parts: Vec<Part> = self.cohorts.iter().map(|cohort| cohort.part(guided)).collect();
        if parts != self.parts {
            (self.parts, self.recordings) = (parts, [Recording::none(); 2]);
        }
        if self.rescores() {
            self.repeat(0, "decoding pass", Self::pass);
            self.measure();
            self.repeat(1, "choice of tokens", Self::choose_all);
        } else {
            self.repeat(0, "decoding step", |batch| {
                batch.pass();
                batch.choose_all();
            });
        }
    }

    /// Does a part of a step, as it was recorded if the parts of the batch are the same as then.
    fn repeat(&mut self, recording: usize, name: &'static str, work: impl FnOnce(&mut Self)) {
        let (backend, mut recorded) = (self.backend.clone(), self.recordings[recording]);
        backend.repeat(name, &mut recorded, || work(self));
        self.recordings[recording] = recorded;
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
        let last = self.cohorts.len() - 1;
        if self.options.guided {
            self.cohorts[last].measure_strength(&self.backend, self.options);
        }
        self.choose(last);
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
            samples: filled(samples, Vec::new()).map_err(complaint)?,
            finish_reasons: filled(samples, FinishReason::Cancelled).map_err(complaint)?,
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
        cohort.upload_numbers(&self.backend, self.first);
        self.main.place(&cohort.prompt.main, rows.clone());
        if let (Some((reader, _)), Some(read)) = (&mut self.expert, &cohort.prompt.expert) {
            reader.place(read, rows);
        }
    }

    /// Chooses the next token of every sample.
    fn choose_all(&mut self) {
        (0..self.cohorts.len()).for_each(|cohort| self.choose(cohort));
    }

    /// Chooses the next token of every sample of a cohort.
    fn choose(&mut self, cohort: usize) {
        let (backend, rows) = (&self.backend, self.rows_of(cohort));
        let (cohort, options, n) = (&mut self.cohorts[cohort], self.options, rows.len());
        let repetition_penalty = options.repetition_penalty.unwrap_or(1.0);
        let adjustment = Adjustment { repetition_penalty, first: cohort.position == 0 };
        self.main.adjust(&mut cohort.places.main, &rows, adjustment);
        if options.guided {
            let boost = if cohort.is_boosted() { options.boost() } else { 0.0 };
            let strength = cohort.places.strength.first(n);
            backend.guide(self.main.logits_of(&rows), self.stats.view(), strength, boost);
        }
        let (numbers, seed) = (cohort.places.numbers.first(n), cohort.prompt.seed);
        let sampling = Sampling { seed, ..options.sampling };
        self.main.sample(&mut cohort.places.main, &rows, numbers, sampling);
        if let (Some((expert, drafts)), Some(own)) = (&mut self.expert, &mut cohort.places.expert) {
            expert.adjust(own, &rows, adjustment);
            drafts.draw(expert, own, &rows, numbers, seed);
            drafts.verify(&mut self.main, &rows);
            backend.copy(expert.decode.ids.slice_mut(rows.clone()), self.main.decode.ids.slice(rows));
        }
    }

    /// Hands out the tokens that some cohorts were given by the last step, and takes the rows that are left
    /// over. Returns whether to go on.
    fn deliver_last_step(&mut self, cohorts: Range<usize>, watcher: &mut dyn Watcher) -> Result<bool> {
        let rows = self.rows_of(cohorts.start).start..self.rows_of(cohorts.end - 1).end;
        let mut tokens = vec![0; rows.len()];
        self.backend.fetch(&mut tokens, self.main.decode.ids.slice(rows))?;
        if !self.deliver(cohorts, &tokens, watcher)? {
            return Ok(false);
        }
        if self.has_rows_to_give() {
            self.settle(watcher)?;
        }
        Ok(true)
    }

    /// Hands out the next tokens of some cohorts. Returns whether to go on.
    fn deliver(&mut self, cohorts: Range<usize>, tokens: &[u32], watcher: &mut dyn Watcher) -> Result<bool> {
        let mut tokens = tokens.iter().copied();
        for cohort in &mut self.cohorts[cohorts] {
            let (request, position) = (cohort.prompt.request, cohort.delivered);
            cohort.delivered += 1;
            let is_last = cohort.delivered == cohort.prompt.limit;
            let Some((generated, open)) = self.results.get_mut(&request) else { continue };
            for (sample, token) in cohort.samples.iter_mut().zip(&mut tokens) {
                if token == u32::MAX {
                    return Err(damaged(position));
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
                sample.open = false;
                *open -= 1;
            }
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
        let (backend, first) = (&self.backend, self.first);
        let before = self.rows();
        for cohort in std::mem::take(&mut self.cohorts) {
            if cohort.is_done() {
                self.free.push(cohort.places);
            } else {
                self.cohorts.push(cohort);
            }
        }
        if self.shape.compact {
            self.cohorts.iter_mut().for_each(|cohort| cohort.compact(backend, first));
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

    /// Rows of a pass.
    fn rows_of_pass(&self) -> usize {
        if self.shape.compact { self.rows() } else { self.shape.rows }
    }

    /// Feeds the chosen tokens and leaves the next logits, and the scores of the tokens if they are needed.
    fn pass(&mut self) {
        let (rescoring, rows) = (self.rescores(), self.rows_of_pass());
        let mut keys = Keys::Cache(self.cohorts.iter_mut().map(Cohort::cached).collect());
        self.main.advance(rows, &mut keys, rescoring);
        if let Some((reader, _)) = &mut self.expert {
            let mut keys =
                Keys::Cache(self.cohorts.iter_mut().filter_map(Cohort::cached_by_expert).collect());
            reader.advance(rows, &mut keys, false);
        }
        if let Some(attached) = self.main.attached.filter(|_| rescoring) {
            self.main.decode.guard_first(rows, self.main.model, attached);
        }
    }

    /// Counts the scores of the tokens that were read, and measures the strength of the guidance where it is
    /// time for that.
    fn measure(&mut self) {
        let scores = self.main.decode.scores_of_first(self.rows_of_pass(), &self.backend);
        let mut scores = scores.as_slice();
        for cohort in &mut self.cohorts {
            let (own, others) = scores.split_at(cohort.rows());
            cohort.add_scores(own);
            scores = others;
            if cohort.position.is_multiple_of(self.options.rescore_every) {
                cohort.measure_strength(&self.backend, self.options);
            }
        }
    }

    /// Ends all requests as they are.
    fn cancel(self, watcher: &mut dyn Watcher) -> Result<()> {
        let mut results = self.results.into_iter();
        results.try_for_each(|(request, (generated, _))| watcher.on_finished(request, generated))
    }
}

/// As many values as there are samples: somebody may have asked for more than memory can hold.
fn filled<T: Clone>(samples: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(samples)
        .map_err(|_| Error::memory(format!("there is no room for {samples} samples")))?;
    values.resize(samples, value);
    Ok(values)
}

fn complaint(error: Error) -> Error {
    error.context("working memory of generation").memory_advice(ADVICE)
}

fn damaged(position: usize) -> Error {
    Error::model(format!(
        "the logits of generated token {position} are not numbers; the model's, adapter's or expert's weights are damaged"
    ))
}
