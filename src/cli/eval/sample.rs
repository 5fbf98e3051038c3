//! `dg-run eval sample`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::super::device::Task;
use super::super::expert::{ExpertArgs, FoundExpert};
use super::super::guidance::{GuidanceArgs, has_guard};
use super::super::keys::named;
use super::super::leases::{self, facts};
use super::super::ranks::RanksArgs;
use super::super::say::{note, warn};
use super::super::signals::Signals;
use super::super::{Guard, ModelArgs, print};
use super::Bar;
use crate::decode::GenerateOptions;
use crate::deepguard::DeepGuard;
use crate::dist::Crew;
use crate::error::{Error, at_most};
use crate::eval::presets::{PRESETS, Preset};
use crate::eval::run::SAMPLES;
use crate::eval::sampling::{self, SampleOptions, Sharing, Summary};
use crate::eval::suite::Suite;
use crate::files::json_text;
use crate::ops::Backend;
use crate::ops::sample::Sampling;
use crate::report::printable;

/// Scenarios without samples that are named.
const MAX_NAMED: usize = 20;

/// Options of `dg-run eval sample`.
#[derive(Args)]
pub(super) struct SampleArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Suite of scenarios.
    #[arg(long, value_name = "DIR")]
    suite: PathBuf,
    /// Only scenarios whose id begins so, such as python/cwe-089; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How completions are sampled, and where they go.
#[derive(Args)]
pub(super) struct SamplingArgs {
    /// The publication whose sampling is followed; what differs is said and kept.
    #[arg(long, value_name = "NAME", default_value = "small", value_parser = named(PRESETS, |preset| preset.name), help_heading = "Sampling")]
    preset: Preset,
    /// Sample the first scenarios only, so many.
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    limit: Option<usize>,
    /// Samples of every scenario, in place of the preset's.
    #[arg(long, short, help_heading = "Sampling")]
    num_samples: Option<usize>,
    /// Sampling temperature, in place of the preset's; 0 always takes the likeliest token.
    #[arg(long, help_heading = "Sampling")]
    temperature: Option<f32>,
    /// Keep the likeliest tokens up to this probability, in place of the preset's.
    #[arg(long, help_heading = "Sampling")]
    top_p: Option<f32>,
    /// Keep this many of the likeliest tokens, in place of the preset's; 0 keeps all.
    #[arg(long, help_heading = "Sampling")]
    top_k: Option<usize>,
    /// Most new tokens, in place of the preset's.
    #[arg(long, help_heading = "Sampling")]
    max_new_tokens: Option<usize>,
    /// Seed of the samples.
    #[arg(long, default_value_t = 42, help_heading = "Sampling")]
    seed: u64,
    /// End prompts with a line break and all but one space of the next line's indentation: small models write
    /// prose after a line that is complete.
    #[arg(long, help_heading = "Sampling")]
    open_indent: bool,
    #[command(flatten)]
    guidance: GuidanceArgs,
    #[command(flatten)]
    expert: ExpertArgs,
    /// Name of the method in tables [default: base, or the adapter's folder and how it is used].
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Folder for samples.jsonl and sampling.json.
    #[arg(long, value_name = "DIR")]
    pub(super) output_dir: PathBuf,
    /// Go on with the samples that are in the folder.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    pub(super) ranks: RanksArgs,
}

pub(super) fn run(args: &SampleArgs, process: (Option<usize>, &Signals)) -> Result<()> {
    leases::run(&args.sampling.ranks, &args.model, process, |crew, model| {
        let of_ranks = OfRanks { crew, signals: process.1 };
        if !crew.is_first() {
            return of_ranks.serve(model, &args.sampling);
        }
        let suite = Suite::open(&args.suite, &args.only)?;
        let summary = of_ranks.sample(model, &args.sampling, &suite)?;
        print(&if args.json { json_text(&summary)? } else { to_text(&summary) })?;
        Ok(())
    })
}

/// Samples as one of several ranks.
#[derive(Clone, Copy)]
pub(super) struct OfRanks<'a> {
    pub(super) crew: &'a Crew,
    pub(super) signals: &'a Signals,
}

impl OfRanks<'_> {
    /// Samples a suite into a run's folder, on rank 0.
    pub(super) fn sample(self, model: &ModelArgs, args: &SamplingArgs, suite: &Suite) -> Result<Summary> {
        let mut summary = None;
        self.run(model, args, Some((suite, &mut summary)))?;
        summary.ok_or_else(|| Error::internal("sampling came to nothing").into())
    }

    /// Samples what rank 0 leases.
    pub(super) fn serve(self, model: &ModelArgs, args: &SamplingArgs) -> Result<()> {
        self.run(model, args, None)
    }

    fn run(
        self,
        model: &ModelArgs,
        args: &SamplingArgs,
        own: Option<(&Suite, &mut Option<Summary>)>,
    ) -> Result<()> {
        let adapter = model.adapter(Guard::Unused)?.map(|folder| folder.path().to_owned());
        let expert = args.expert.find(model)?;
        model.run(Guard::Unused, Sample { of_ranks: self, model, args, own, adapter, expert })
    }
}

struct Sample<'a> {
    of_ranks: OfRanks<'a>,
    model: &'a ModelArgs,
    args: &'a SamplingArgs,
    /// On rank 0.
    own: Option<(&'a Suite, &'a mut Option<Summary>)>,
    adapter: Option<PathBuf>,
    expert: Option<FoundExpert>,
}

impl Task for Sample<'_> {
    fn run<B: Backend>(mut self, mut guard: DeepGuard<B>) -> Result<()> {
        self.expert.iter().try_for_each(|expert| expert.attach(&mut guard))?;
        let OfRanks { crew, signals } = self.of_ranks;
        let generate = self.args.generate_options(&guard)?;
        let facts = facts(crew, self.model, &guard, self.expert.as_ref(), &format!("{generate:?}"))?;
        let sharing = Sharing { crew, facts };
        signals.request();
        let should_stop = || signals.received().is_some();
        let Some((suite, summary)) = self.own.take() else {
            return Ok(sampling::serve(&guard, &generate, sharing, &should_stop)?);
        };
        let options = SampleOptions {
            method: self.method(&guard),
            preset: &self.args.preset,
            adapter: self.adapter.as_deref(),
            expert_adapter: self.expert.as_ref().map(|expert| expert.adapter.as_path()),
            generate,
            open_indent: self.args.open_indent,
            limit: self.args.limit,
            resume: self.args.resume,
        };
        guard.generation.notes.iter().for_each(|line| warn(line));
        let bar = Bar::new("scenarios", suite.scenarios.len());
        let folder = &self.args.output_dir;
        let mut show = |progress: sampling::Progress| bar.set(progress.scenarios, progress.of);
        let sampled = sampling::sample(&guard, suite, &options, folder, sharing, &should_stop, &mut show);
        drop(bar);
        *summary = Some(sampled?);
        note(&format!("written: {}", folder.join(SAMPLES).display()));
        Ok(())
    }
}

impl Sample<'_> {
    /// The name of the method in tables, if none is given.
    fn method<B: Backend>(&self, guard: &DeepGuard<B>) -> String {
        if let Some(name) = &self.args.method {
            return name.clone();
        }
        let expert =
            self.expert.as_ref().map(|expert| format!("co-decoded with {}", folder_name(&expert.adapter)));
        let own = self.adapter.as_deref().map(folder_name);
        let guidance = match (has_guard(guard), self.args.guidance.guides()) {
            (true, true) => Some("guided".to_owned()),
            (true, false) => Some("not guided".to_owned()),
            (false, _) => None,
        };
        let parts: Vec<String> = [own, guidance, expert].into_iter().flatten().collect();
        if parts.is_empty() { "base".to_owned() } else { parts.join(", ") }
    }
}

/// The name of an adapter's folder, or of the run's folder that it is in.
fn folder_name(adapter: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name(adapter).filter(|name| name != "adapter");
    own.or_else(|| name(adapter.parent()?)).unwrap_or_else(|| "adapter".to_owned())
}

impl SamplingArgs {
    fn generate_options<B: Backend>(&self, guard: &DeepGuard<B>) -> Result<GenerateOptions> {
        let preset = &self.preset;
        let mut options = GenerateOptions {
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            num_samples: self.num_samples.unwrap_or(preset.num_samples),
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(preset.temperature),
                top_p: self.top_p.unwrap_or(preset.top_p),
                top_k: self.top_k.unwrap_or(preset.top_k),
                seed: self.seed,
            },
            ..GenerateOptions::default()
        };
        self.guidance.apply(guard, &mut options)?;
        Ok(options)
    }
}

/// What sampling came to, for people.
pub(super) fn to_text(summary: &Summary) -> String {
    let Summary { scenarios, resumed, samples, ended, tokens, seconds, unsampled, differences, .. } = summary;
    let mut text = format!("{samples} samples of {scenarios} scenarios");
    if *resumed > 0 {
        text += &format!(", {resumed} of which were there before");
    }
    if *tokens > 0 {
        let rate = *tokens as f64 / seconds.max(1e-9);
        text += &format!("; {ended} new ones end by themselves; {tokens} tokens, {rate:.1} tokens/s");
    }
    text.push('\n');
    let named = unsampled.iter().map(|(id, reason)| format!("not sampled: {id}: {reason}"));
    at_most(MAX_NAMED, named).iter().for_each(|line| text += &format!("  {}\n", printable(line)));
    for difference in differences {
        text += &format!("  not as published: {difference}\n");
    }
    text
}
