//! `dg-run generate`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::device::Task;
use super::expert::{ExpertArgs, FoundExpert};
use super::guidance::GuidanceArgs;
use super::say::{note, warn};
use super::terminal::{has_reader, print, require_reader};
use super::{Guard, ModelArgs, read_text};
use crate::decode::{GenerateOptions, Generated};
use crate::deepguard::DeepGuard;
use crate::error::Error;
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
}

/// Generates.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let prompt = match (&args.prompt_file, args.prompt.as_deref()) {
        (Some(file), _) => read_text(file).map_err(|e| e.context(file.display()))?,
        (None, Some("-")) => read_text("-".as_ref()).map_err(|e| e.context("standard input"))?,
        (None, Some(text)) => text.to_owned(),
        (None, None) => return Err(Error::usage("a prompt is required").into()),
    };
    let expert = args.expert.find(&args.model)?;
    args.model.run(Guard::Unused, Generation { args, prompt: &prompt, expert })
}

struct Generation<'a> {
    args: &'a GenerateArgs,
    prompt: &'a str,
    expert: Option<FoundExpert>,
}

impl Task for Generation<'_> {
    fn run<B: Backend>(self, mut guard: DeepGuard<B>) -> Result<()> {
        self.expert.iter().try_for_each(|expert| expert.attach(&mut guard))?;
        generate(self.args, guard, self.prompt)
    }
}

fn generate<B: Backend>(args: &GenerateArgs, mut guard: DeepGuard<B>, prompt: &str) -> Result<()> {
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
    args.guidance.apply(&guard, &mut options)?;
    if args.num_samples == 1 && !args.json {
        return stream(&guard, prompt, &options);
    }
    let generated = guard.generate(prompt, &options, &mut |_, _| has_reader())?;
    require_reader()?;
    for sample in 0..generated.samples.len() {
        let text = guard.tokenizer.decode(&generated.samples[sample])?;
        if args.json {
            print(&format!("{}\n", to_json(&generated, sample, &text, options.guided)))?;
        } else {
            print(&format!("--- sample {sample}\n{text}\n"))?;
        }
    }
    report(&generated);
    Ok(())
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
    report(&generated);
    Ok(())
}

fn to_json(generated: &Generated, sample: usize, text: &str, guided: bool) -> serde_json::Value {
    json!({
        "sample": sample,
        "text": text,
        "tokens": generated.samples[sample],
        "finish_reason": generated.finish_reasons[sample],
        "guided": guided,
        "prompt_score": generated.prompt_score,
    })
}

fn report(generated: &Generated) {
    let tokens: usize = generated.samples.iter().map(Vec::len).sum();
    let decoded = tokens.saturating_sub(generated.samples.len());
    let score = generated.prompt_score.map_or(String::new(), |s| format!("; prompt score {s:.4}"));
    note(&format!(
        "{tokens} tokens; first after {:.3} s, then {:.1} tokens/s{score}",
        generated.prefill_seconds,
        decoded as f64 / generated.decode_seconds.max(1e-9)
    ));
}
