//! Samples of one prompt that are decoded side by side, at the same position.

use std::ops::Range;
use std::rc::Rc;

use crate::decode::reader::{Own, Read, Reader};
use crate::decode::{GenerateOptions, Request};
use crate::error::Result;
use crate::model::kv_cache::CachedRows;
use crate::ops::{Arena, Backend, Buffer};

/// Generated positions (the first token is 0) at which secure tokens get an additional boost.
const BOOSTED: std::ops::RangeInclusive<usize> = 1..=2;

/// A prompt that has been read.
pub(super) struct Prompt<B: Backend> {
    /// Its place among the requests.
    pub(super) request: usize,
    pub(super) seed: u64,
    /// Most new tokens of its samples.
    pub(super) limit: usize,
    /// What the model knows of it.
    pub(super) main: Read<B>,
    /// What the expert knows of it.
    pub(super) expert: Option<Read<B>>,
}

impl<B: Backend> Prompt<B> {
    pub(super) fn read(
        main: &mut Reader<'_, B>,
        expert: Option<&mut Reader<'_, B>>,
        options: &GenerateOptions,
        (number, request): (usize, &Request),
    ) -> Result<Self> {
        let room = |reader: &Reader<'_, B>| reader.context() - request.prompt.len();
        let limit = expert.iter().map(|expert| room(expert)).fold(room(main), usize::min);
        Ok(Prompt {
            request: number,
            seed: request.seed,
            limit: options.max_new_tokens.min(limit),
            main: main.read(&request.prompt, options)?,
            expert: expert.map(|expert| expert.read(&request.prompt, options)).transpose()?,
        })
    }
}

/// Memory of a cohort.
pub(super) struct Places<B: Backend> {
    pub(super) main: Own<B>,
    pub(super) expert: Option<Own<B>>,
    /// `[samples]` of which the random numbers are drawn.
    pub(super) numbers: Buffer<B, u32>,
    /// `[samples]` what the statistics are multiplied with.
    pub(super) strength: Buffer<B, f32>,
}

impl<B: Backend> Places<B> {
    pub(super) fn new(
        arena: &mut Arena<B>,
        main: &Reader<'_, B>,
        expert: Option<&Reader<'_, B>>,
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Self> {
        Ok(Places {
            main: main.own(arena, samples, options)?,
            expert: expert.map(|expert| expert.own(arena, samples, options)).transpose()?,
            numbers: arena.buffer("numbers of samples", &[samples])?,
            strength: arena.buffer("guidance strength", &[samples])?,
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
    /// Position, among the generated ones, of the token that the last pass was started for.
    pub(super) position: usize,
    /// Tokens of each sample that were handed out.
    pub(super) delivered: usize,
}

/// What a pass asks of the device for the rows of a cohort: the same for every token, but for the first ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The prompt's place among the requests.
    request: usize,
    /// The address of what the samples have of their own.
    places: usize,
    rows: usize,
    boosted: bool,
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
        places.main.begin(backend, &prompt.main, numbers.len());
        if let (Some(own), Some(read)) = (&mut places.expert, &prompt.expert) {
            own.begin(backend, read, numbers.len());
        }
        let sample = |number| Sample {
            number,
            // Beyond any vocabulary: nothing has been chosen.
            token: u32::MAX,
            open: number < wanted,
            score_sum: prompt.main.score_sum,
            strength: 0.0,
        };
        let samples = numbers.map(sample).collect();
        Cohort { prompt, places, samples, position: 0, delivered: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn is_done(&self) -> bool {
        !self.samples.iter().any(|sample| sample.open)
    }

    /// Whether there is a sample whose row a pass need not have: one that has ended, in a `compact` batch, or
    /// else all.
    pub(super) fn has_rows_to_give(&self, compact: bool) -> bool {
        let has_ended = |sample: &Sample| !sample.open;
        self.is_done() || compact && self.samples.iter().any(has_ended)
    }

    /// Whether the token that the last pass was started for is the last of every sample.
    pub(super) fn is_at_limit(&self) -> bool {
        self.position + 1 == self.prompt.limit
    }

    /// Whether secure tokens get an additional boost now.
    pub(super) fn is_boosted(&self) -> bool {
        BOOSTED.contains(&self.position)
    }

    /// Its part of the current pass, which is `guided` or not.
    pub(super) fn part(&self, guided: bool) -> Part {
        Part {
            request: self.prompt.request,
            places: self.places.numbers.view().address(),
            rows: self.rows(),
            boosted: guided && self.is_boosted(),
        }
    }

    /// Begins the next pass, which has one more token.
    pub(super) fn advance(&mut self) {
        self.position += 1;
        self.places.main.advance();
        self.places.expert.iter_mut().for_each(Own::advance);
    }

    /// The model's rows of a pass.
    pub(super) fn cached(&mut self) -> CachedRows<'_, B> {
        self.places.main.cached(&self.prompt.main, self.samples.len())
    }

    /// The expert's, if there is one.
    pub(super) fn cached_by_expert(&mut self) -> Option<CachedRows<'_, B>> {
        let (own, read) = (self.places.expert.as_mut()?, self.prompt.expert.as_ref()?);
        Some(own.cached(read, self.samples.len()))
    }

    /// Counts the scores of the tokens that were read last.
    pub(super) fn add_scores(&mut self, scores: &[f32]) {
        let samples = self.samples.iter_mut().zip(scores);
        samples.for_each(|(sample, &score)| sample.score_sum += f64::from(score));
    }

    /// Makes the strength of the guidance that of the scores so far: `1 / mean score`.
    pub(super) fn measure_strength(&mut self, backend: &B, options: &GenerateOptions) {
        let seen = self.prompt.main.len + if options.rescore_every > 0 { self.position } else { 0 };
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

    /// Random numbers are drawn for samples that are numbered from `first` on.
    pub(super) fn upload_numbers(&mut self, backend: &B, first: usize) {
        let numbers: Vec<u32> = self.samples.iter().map(|sample| (first + sample.number) as u32).collect();
        backend.upload(self.places.numbers.first_mut(numbers.len()), &numbers);
    }

    /// Gives the rows of samples that have ended to others; `first` as for [`Self::upload_numbers`].
    pub(super) fn compact(&mut self, backend: &B, first: usize) {
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
            self.upload_numbers(backend, first);
            self.upload_strength(backend);
        }
    }

    /// Moves what lies behind the rows that are left to `row`.
    fn move_last(&mut self, backend: &B, row: usize) {
        let (last, prompt, places) = (self.samples.len(), &self.prompt, &mut self.places);
        places.main.move_sample(backend, &prompt.main, last, row);
        if let (Some(own), Some(read)) = (&mut places.expert, &prompt.expert) {
            own.move_sample(backend, read, last, row);
        }
    }
}
