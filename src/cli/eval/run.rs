//! `dg-run eval run`.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::super::signals::Signals;
use super::super::{ModelArgs, leases, print};
use super::sample::{self, OfRanks, SamplingArgs};
use super::{SuiteArgs, judge};
use crate::dist::Crew;
use crate::eval::judging::read_samples;
use crate::eval::run::SAMPLES;
use crate::eval::sampling;
use crate::files::json_text;

/// Options of `dg-run eval run`.
#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    suite: SuiteArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Samples whose verdict may be unknown. With more, the exit code is 7.
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_unknown: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What both parts came to.
#[derive(Serialize)]
struct Summary<'a> {
    sampling: &'a sampling::Summary,
    judging: &'a judge::Summary,
}

pub(super) fn run(args: &RunArgs, process: (Option<usize>, &Signals)) -> Result<()> {
    leases::run(&args.sampling.ranks, &args.model, process, |crew, model| match crew.is_first() {
        true => sample_and_judge(args, crew, model, process.1),
        false => OfRanks { crew, signals: process.1 }.serve(model, &args.sampling),
    })
}

fn sample_and_judge(args: &RunArgs, crew: &Crew, model: &ModelArgs, signals: &Signals) -> Result<()> {
    let suite = args.suite.open()?;
    // Before anything is sampled, which may take long.
    let judge = args.suite.judge.judge(&suite)?;
    let sampled = OfRanks { crew, signals }.sample(model, &args.sampling, &suite)?;
    // Programs are judged by this rank alone.
    crew.finish()?;
    let folder = &args.sampling.output_dir;
    let samples = read_samples(&folder.join(SAMPLES), &suite)?;
    let advice = "the same command with --resume goes on from there";
    let mut judged = judge::judge_samples(&judge, &samples, folder, (signals, advice))?;
    judged.seal(&judge, folder, None)?;
    if args.json {
        print(&json_text(&Summary { sampling: &sampled, judging: &judged })?)?;
    } else {
        print(&(sample::to_text(&sampled) + &judged.to_text()))?;
    }
    Ok(judged.require_known(args.allow_unknown)?)
}
