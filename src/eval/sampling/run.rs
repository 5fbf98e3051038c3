//! Follows a generation and makes the lines of its samples, prompt by prompt.

use super::heat::add_scores;
use super::plan::Prompt;
use crate::decode::{FinishReason, GenerateOptions, Generated, Next, Request, Watcher};
use crate::deepguard::DeepGuard;
use crate::error::{Error, Result};
use crate::eval::samples::{Finish, SampleLine};
use crate::eval::stop::Completion;
use crate::model::tokenizer::StreamDecoder;
use crate::ops::Backend;

/// Tokens of the prompt that the text of the first new token may depend on.
const CONTEXT: usize = 8;

/// Takes the samples of a prompt, which has this place among the prompts.
type OnLines<'a> = dyn FnMut(usize, Vec<SampleLine>) -> Result<()> + 'a;

/// A sample in progress.
struct Open<'a> {
    decoder: StreamDecoder<'a>,
    completion: Completion,
    complete: bool,
}

/// Follows the generation.
struct Run<'a, B: Backend> {
    guard: &'a DeepGuard<B>,
    prompts: &'a [Prompt],
    num_samples: usize,
    /// Samples of the prompts that are being continued.
    samples: Vec<Option<Vec<Open<'a>>>>,
    should_stop: &'a dyn Fn() -> bool,
    on_lines: &'a mut OnLines<'a>,
    /// Why it ends before all is done.
    failure: Option<Error>,
}

/// Samples all prompts. Those that are complete go to `on_lines`, in any order.
///
/// # Errors
/// Kind `Interrupted`: it was asked to stop. Those of the generation and of `on_lines`.
pub(super) fn sample_all<B: Backend>(
    guard: &DeepGuard<B>,
    prompts: &[Prompt],
    generate: &GenerateOptions,
    should_stop: &dyn Fn() -> bool,
    on_lines: &mut dyn FnMut(usize, Vec<SampleLine>) -> Result<()>,
) -> Result<()> {
    let requests: Vec<Request> = prompts.iter().map(|prompt| prompt.request.clone()).collect();
    let samples = prompts.iter().map(|_| None).collect();
    let num_samples = generate.num_samples;
    let mut run = Run { guard, prompts, num_samples, samples, should_stop, on_lines, failure: None };
    guard.generate_all(&requests, generate, &mut run)?;
    run.failure.map_or(Ok(()), Err)
}

impl<'a, B: Backend> Run<'a, B> {
    /// The samples of a prompt, none of which has a token.
    fn begin(&self, prompt: &Prompt) -> Result<Vec<Open<'a>>> {
        let mut decoder = self.guard.tokenizer.stream_decoder();
        let tokens = &prompt.request.prompt;
        for &token in &tokens[tokens.len().saturating_sub(CONTEXT)..] {
            decoder.push(token)?;
        }
        let mut completion = Completion::new(prompt.language, &prompt.text);
        completion.push(&prompt.opening);
        let open = || Open { decoder: decoder.clone(), completion: completion.clone(), complete: false };
        Ok((0..self.num_samples).map(|_| open()).collect())
    }

    /// The samples of a request as they are.
    fn take(&mut self, request: usize) -> Result<Vec<Open<'a>>> {
        match self.samples[request].take() {
            Some(samples) => Ok(samples),
            None => self.begin(&self.prompts[request]),
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
        let prompt = &self.prompts[request];
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
            lines.push(SampleLine {
                id: prompt.id.clone(),
                sample: number as u32,
                completion: completion.finish(),
                tokens: Some(generated.samples[number].len() as u32),
                finish: Some(finish),
                scores: None,
            });
        }
        add_scores(self.guard, &prompt.text, &mut lines)?;
        Ok(lines)
    }
}

impl<B: Backend> Watcher for Run<'_, B> {
    fn on_token(&mut self, request: usize, sample: usize, token: u32) -> Next {
        let pushed = match (self.should_stop)() {
            true => Err(Error::interrupted()),
            false => self.push(request, sample, token),
        };
        match pushed {
            Ok(false) => Next::GoOn,
            Ok(true) => Next::End,
            Err(error) => {
                self.failure = Some(error);
                Next::Cancel
            }
        }
    }

    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        let lines = self.lines_of(request, &generated)?;
        (self.on_lines)(request, lines)
    }
}
