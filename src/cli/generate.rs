//! `dg-run generate`.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::device::Task;
use super::expert::{ExpertArgs, FoundExpert};
use super::guidance::GuidanceArgs;
use super::leases::{self, facts, of_bytes, to_bytes};
use super::ranks::RanksArgs;
use super::say::{note, warn};
use super::signals::Signals;
use super::terminal::{has_reader, print, require_reader};
use super::{Guard, ModelArgs, read_text};
use crate::decode::{FinishReason, GenerateOptions, samples_of_pass};
use crate::deepguard::DeepGuard;
use crate::dist::leases::Unit;
use crate::dist::{Crew, Work};
use crate::error::Error;
use crate::model::tokenizer::Tokenizer;
use crate::ops::Backend;
use crate::ops::sample::Sampling;

/// Options of `dg-run generate`.
#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompt; `-` reads standard input.
    #[arg(required_unless_present = "prompt_file")]
    prompt: Option<String>,
    /// File with the prompt.
    #[arg(long, conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Most new tokens.
    #[arg(long, default_value_t = 300, alias = "max-gen-len", alias = "max-tokens")]
    max_new_tokens: usize,
    /// Samples of the prompt, decoded together.
    #[arg(long, short, default_value_t = 1, alias = "num-gen", alias = "num-return-sequences")]
    num_samples: usize,
    /// Sampling temperature; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, alias = "temp")]
    temperature: f32,
    /// Keep the likeliest tokens up to this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    #[arg(long, default_value_t = 50)]
    top_k: usize,
    /// Divide the positive and multiply the negative logits of tokens that are in the prompt or the sample; 1
    /// leaves them [default: that of the model's generation_config.json, else 1].
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Seed of the samples.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    guidance: GuidanceArgs,
    #[command(flatten)]
    expert: ExpertArgs,
    /// Go on after end-of-text tokens.
    #[arg(long)]
    ignore_eos: bool,
    /// One JSON object per sample instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ranks: RanksArgs,
}

/// Generates.
pub fn run(args: &GenerateArgs, process: (Option<usize>, &Signals)) -> Result<()> {
    leases::run(&args.ranks, &args.model, process, |crew, model| {
        // The others are told.
        let prompt = if crew.is_first() { args.read_prompt()? } else { String::new() };
        let expert = args.expert.find(model)?;
        model.run(Guard::Unused, Generation { args, model, crew, prompt, expert })
    })
}

impl GenerateArgs {
    fn read_prompt(&self) -> Result<String> {
        Ok(match (&self.prompt_file, self.prompt.as_deref()) {
            (Some(file), _) => read_text(file).map_err(|e| e.context(file.display()))?,
            (None, Some("-")) => read_text("-".as_ref()).map_err(|e| e.context("standard input"))?,
            (None, Some(text)) => text.to_owned(),
            (None, None) => return Err(Error::usage("a prompt is required").into()),
        })
    }
}

struct Generation<'a> {
    args: &'a GenerateArgs,
    model: &'a ModelArgs,
    crew: &'a Crew,
    prompt: String,
    expert: Option<FoundExpert>,
}

impl Task for Generation<'_> {
    fn run<B: Backend>(self, mut guard: DeepGuard<B>) -> Result<()> {
        self.expert.iter().try_for_each(|expert| expert.attach(&mut guard))?;
        let options = options(self.args, &mut guard)?;
        if self.crew.is_alone() && self.args.num_samples == 1 && !self.args.json {
            return stream(&guard, &self.prompt, &options);
        }
        self.share(&guard, &options)
    }
}

/// How to generate, after a word about what the model's files say.
fn options<B: Backend>(args: &GenerateArgs, guard: &mut DeepGuard<B>) -> Result<GenerateOptions> {
    if args.ignore_eos {
        guard.generation.eos_token_ids.clear();
    }
    let suggestion = guard.generation.suggestion.as_ref();
    let suggested = suggestion.and_then(|s| s.beside(args.temperature, args.top_p, args.top_k));
    guard.generation.notes.iter().chain(&suggested).for_each(|line| warn(line));
    let mut options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        num_samples: args.num_samples,
        sampling: Sampling {
            temperature: args.temperature,
            top_p: args.top_p,
            top_k: args.top_k,
            seed: args.seed,
        },
        repetition_penalty: args.repetition_penalty,
        ..GenerateOptions::default()
    };
    args.guidance.apply(guard, &mut options)?;
    Ok(options)
}

/// A unit: samples of a prompt, by their numbers.
#[derive(Serialize, Deserialize)]
struct Part {
    prompt: String,
    numbers: Range<usize>,
}

/// What a rank tells of a part. Numbers are bit patterns: JSON knows no NaN.
#[derive(Serialize, Deserialize)]
struct Told {
    samples: Vec<Vec<u32>>,
    finish_reasons: Vec<FinishReason>,
    prompt_score: Option<u64>,
    prefill_seconds: f64,
}

impl Generation<'_> {
    /// As many samples as make a pass are a unit, whoever decodes them.
    fn share<B: Backend>(self, guard: &DeepGuard<B>, options: &GenerateOptions) -> Result<()> {
        let Generation { args, model, crew, prompt, expert } = self;
        guard.validate(&guard.with_model_options(options)?)?;
        let facts = facts(crew, model, guard, expert.as_ref(), &format!("{options:?}"))?;
        let mut compute = |part: &[u8]| compute(crew, guard, options, of_bytes(part)?);
        if !crew.is_first() {
            return Ok(crew.serve(facts, &mut compute, &|| false)?);
        }
        let (all, most) = (args.num_samples, samples_of_pass(&guard.model.backend));
        let mut units = Vec::new();
        let no_room = |_| Error::memory(format!("there is no room for {all} samples; ask for fewer"));
        units.try_reserve_exact(all.div_ceil(most)).map_err(no_room)?;
        for first in (0..all).step_by(most) {
            units.push(unit(&prompt, first..all.min(first.saturating_add(most)))?);
        }
        let mut shown = Shown::new(args, options);
        let tokenizer = &guard.tokenizer;
        let mut merge = |part: usize, told: Option<Vec<u8>>| {
            let told = told.map(|told| of_bytes(&told)).transpose()?;
            told.map_or(Ok(()), |told| shown.show(tokenizer, most * part, told))
        };
        let should_stop = || !has_reader();
        let lent = crew.lend(Work {
            units,
            facts,
            compute: &mut compute,
            merge: &mut merge,
            should_stop: &should_stop,
        });
        require_reader()?;
        shown.report();
        Ok(lent?)
    }
}

fn unit(prompt: &str, numbers: Range<usize>) -> crate::Result<Unit> {
    let name = match numbers.len() {
        1 => format!("sample {}", numbers.start),
        _ => format!("samples {} to {}", numbers.start, numbers.end - 1),
    };
    Ok(Unit { name, input: to_bytes(&Part { prompt: prompt.to_owned(), numbers })? })
}

/// Samples of a unit, as a rank tells them.
fn compute<B: Backend>(
    crew: &Crew,
    guard: &DeepGuard<B>,
    options: &GenerateOptions,
    Part { prompt, numbers }: Part,
) -> crate::Result<Vec<u8>> {
    // Rank 0 alone knows who reads.
    let mut goes_on = |_, _| if crew.is_first() { has_reader() } else { !crew.is_over() };
    let generated = guard.generate_some(&prompt, options, numbers, &mut goes_on)?;
    if crew.is_first() {
        require_reader()?;
    }
    to_bytes(&Told {
        samples: generated.samples,
        finish_reasons: generated.finish_reasons,
        prompt_score: generated.prompt_score.map(f64::to_bits),
        prefill_seconds: generated.prefill_seconds,
    })
}

/// Samples that have been printed.
struct Shown<'a> {
    args: &'a GenerateArgs,
    guided: bool,
    began: Instant,
    tokens: usize,
    samples: usize,
    /// Seconds until the first token, and the score of the prompt.
    first: Option<(f64, Option<f64>)>,
}

impl<'a> Shown<'a> {
    fn new(args: &'a GenerateArgs, options: &GenerateOptions) -> Self {
        Shown { args, guided: options.guided, began: Instant::now(), tokens: 0, samples: 0, first: None }
    }

    fn show(&mut self, tokenizer: &Tokenizer, first: usize, told: Told) -> crate::Result<()> {
        let score = told.prompt_score.map(f64::from_bits);
        for (i, (tokens, reason)) in told.samples.iter().zip(&told.finish_reasons).enumerate() {
            let (sample, text) = (first + i, tokenizer.decode(tokens)?);
            let shown = match self.args {
                GenerateArgs { json: true, .. } => json!({
                    "sample": sample,
                    "text": text,
                    "tokens": tokens,
                    "finish_reason": reason,
                    "guided": self.guided,
                    "prompt_score": score,
                })
                .to_string(),
                GenerateArgs { num_samples: 1, .. } => text,
                _ => format!("--- sample {sample}\n{text}"),
            };
            print(&format!("{shown}\n"))?;
            self.tokens += tokens.len();
            self.samples += 1;
        }
        self.first.get_or_insert((told.prefill_seconds, score));
        Ok(())
    }

    fn report(&self) {
        let (prefill, score) = self.first.unwrap_or_default();
        report([self.tokens, self.samples], prefill, self.began.elapsed().as_secs_f64() - prefill, score);
    }
}

/// A single sample, as it is made.
fn stream<B: Backend>(guard: &DeepGuard<B>, prompt: &str, options: &GenerateOptions) -> Result<()> {
    let mut decoder = guard.tokenizer.stream_decoder();
    let mut failure = None;
    let generated = guard.generate(prompt, options, &mut |_, token| {
        let shown = decoder.push(token).and_then(|text| print(&text));
        shown.map_err(|e| failure = Some(e)).is_ok()
    })?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    print(&format!("{}\n", decoder.finish()?))?;
    let tokens = generated.samples.iter().map(Vec::len).sum();
    report([tokens, 1], generated.prefill_seconds, generated.decode_seconds, generated.prompt_score);
    Ok(())
}

fn report([tokens, samples]: [usize; 2], prefill_seconds: f64, decode_seconds: f64, score: Option<f64>) {
    let score = score.map_or(String::new(), |s| format!("; prompt score {s:.4}"));
    note(&format!(
        "{tokens} tokens; first after {prefill_seconds:.3} s, then {:.1} tokens/s{score}",
        tokens.saturating_sub(samples) as f64 / decode_seconds.max(1e-9)
    ));
}
