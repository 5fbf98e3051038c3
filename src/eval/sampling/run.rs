//! Follows a generation and writes its samples, scenario by scenario.

use std::collections::BTreeMap;

use super::heat::add_scores;
use super::plan::{Plan, Prompt};
use super::{Progress, Summary};
use crate::decode::{FinishReason, Generated, Next, Watcher};
use crate::deepguard::DeepGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::lines::Lines;
use crate::eval::samples::{Finish, SampleLine};
use crate::eval::stop::Completion;
use crate::model::tokenizer::StreamDecoder;
use crate::ops::Backend;

/// Tokens of the prompt that the text of the first new token may depend on.
const CONTEXT: usize = 8;

/// A sample in progress.
pub(super) struct Open<'a> {
    decoder: StreamDecoder<'a>,
    completion: Completion,
    complete: bool,
}

/// Follows the generation.
pub(super) struct Run<'a, B: Backend> {
    pub(super) guard: &'a DeepGuard<B>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) num_samples: usize,
    /// Samples of the prompts that are being continued.
    pub(super) samples: Vec<Option<Vec<Open<'a>>>>,
    pub(super) lines: Lines,
    /// Lines of prompts that wait for those before them.
    pub(super) finished: BTreeMap<usize, Vec<SampleLine>>,
    /// Prompts that are written.
    pub(super) written: usize,
    /// Scenarios that were there before.
    pub(super) kept: usize,
    pub(super) ended: usize,
    pub(super) tokens: usize,
    pub(super) should_stop: &'a dyn Fn() -> bool,
    pub(super) on_progress: &'a mut dyn FnMut(Progress),
    pub(super) stopped: bool,
    pub(super) failure: Option<Error>,
}

impl<'a, B: Backend> Run<'a, B> {
    /// The samples of a prompt, none of which has a token.
    fn begin(&self, prompt: &Prompt<'_>) -> Result<Vec<Open<'a>>> {
        let mut decoder = self.guard.tokenizer.stream_decoder();
        let tokens = &prompt.request.prompt;
        for &token in &tokens[tokens.len().saturating_sub(CONTEXT)..] {
            decoder.push(token)?;
        }
        let mut completion = Completion::new(prompt.scenario.meta.language, &prompt.scenario.prompt);
        completion.push(&prompt.opening);
        let open = || Open { decoder: decoder.clone(), completion: completion.clone(), complete: false };
        Ok((0..self.num_samples).map(|_| open()).collect())
    }

    /// The samples of a request as they are.
    fn take(&mut self, request: usize) -> Result<Vec<Open<'a>>> {
        match self.samples[request].take() {
            Some(samples) => Ok(samples),
            None => self.begin(&self.plan.samplable[request]),
        }
    }

    fn push(&mut self, request: usize, sample: usize, token: u32) -> Result<bool> {
        let mut samples = self.take(request)?;
        let open = &mut samples[sample];
        let text = open.decoder.push(token)?;
        open.complete = open.completion.push(&text);
        let is_complete = open.complete;
        self.samples[request] = Some(samples);
        Ok(is_complete)
    }

    fn lines_of(&mut self, request: usize, generated: &Generated) -> Result<Vec<SampleLine>> {
        let samples = self.take(request)?;
        let scenario = self.plan.samplable[request].scenario;
        let mut lines = Vec::new();
        for (number, Open { decoder, mut completion, complete }) in samples.into_iter().enumerate() {
            if !complete {
                completion.push(&decoder.finish()?);
            }
            let finish = match generated.finish_reasons[number] {
                FinishReason::Stop if complete => Finish::Stop,
                FinishReason::Stop => Finish::EndOfText,
                FinishReason::Length | FinishReason::Cancelled => Finish::Length,
            };
            let tokens = generated.samples[number].len();
            self.tokens += tokens;
            self.ended += usize::from(finish != Finish::Length);
            lines.push(SampleLine {
                id: scenario.meta.id.clone(),
                sample: number as u32,
                completion: completion.finish(),
                tokens: Some(tokens as u32),
                finish: Some(finish),
                scores: None,
            });
        }
        add_scores(self.guard, &scenario.prompt, &mut lines)?;
        Ok(lines)
    }

    pub(super) fn result(self, seconds: f64) -> Result<Summary> {
        let Run { plan, kept, written, .. } = self;
        if let Some(error) = self.failure {
            return Err(error);
        }
        if self.stopped {
            let (done, all) = (kept + written, kept + plan.samplable.len());
            let text = format!("stopped after {done} of {all} scenarios; --resume goes on from there");
            return Err(Error::new(ErrorKind::Preempted, text));
        }
        Ok(Summary {
            scenarios: kept + written,
            resumed: kept,
            samples: (kept + written) * self.num_samples,
            ended: self.ended,
            tokens: self.tokens,
            seconds,
            unsampled: plan.settings.unsampled.clone(),
            differences: plan.settings.differences.clone(),
        })
    }
}

impl<B: Backend> Watcher for Run<'_, B> {
    fn on_token(&mut self, request: usize, sample: usize, token: u32) -> Next {
        if (self.should_stop)() {
            self.stopped = true;
            return Next::Cancel;
        }
        match self.push(request, sample, token) {
            Ok(false) => Next::GoOn,
            Ok(true) => Next::End,
            Err(error) => {
                self.failure = Some(error);
                Next::Cancel
            }
        }
    }

    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<()> {
        if self.stopped || self.failure.is_some() {
            return Ok(());
        }
        let lines = self.lines_of(request, &generated)?;
        self.finished.insert(request, lines);
        while let Some(lines) = self.finished.remove(&self.written) {
            self.lines.add_all(&lines)?;
            self.written += 1;
            let of = self.kept + self.plan.samplable.len();
            (self.on_progress)(Progress { scenarios: self.kept + self.written, of });
        }
        Ok(())
    }
}
