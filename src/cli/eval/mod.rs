//! `dg-run eval`.

mod check;
mod compare;
mod judge;
mod result;
mod run;
mod sample;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::on_threads;
use super::say::{detail, shows_bars, warn};
use super::signals::Signals;
use super::terminal::set_style;
use crate::error::{Error, ErrorKind};
use crate::eval::environment::PYTHON;
use crate::eval::judge::{Judge, JudgeOptions};
use crate::eval::judging::Judging;
use crate::eval::suite::{Scenario, Suite};

/// What to do with a suite.
#[derive(Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Subcommand)]
enum EvalCommand {
    /// Judge a suite's references: which scenarios can be judged on this machine.
    Check(check::CheckArgs),
    /// Judge samples, whoever made them: is the code functional, is it secure?
    Judge(judge::JudgeArgs),
    /// Sample completions of a suite's prompts.
    Sample(Box<sample::SampleArgs>),
    /// Sample completions of a suite's prompts, and judge them.
    Run(Box<run::RunArgs>),
    /// Compare runs of the same scenarios in pairs.
    Compare(compare::CompareArgs),
    /// Make the seal of a run again and name every difference.
    Verify(verify::VerifyArgs),
}

/// The suite, and how its checks are run.
#[derive(Args)]
struct SuiteArgs {
    /// Suite of scenarios.
    #[arg(long, value_name = "DIR")]
    suite: PathBuf,
    /// Only scenarios whose id begins so, such as python/cwe-089; may be given several times.
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// How checks are run.
#[derive(Args)]
struct JudgeArgs {
    /// Python interpreter that runs the checks, such as that of a virtual environment with a suite's
    /// packages.
    #[arg(long, value_name = "FILE", default_value = PYTHON)]
    python: PathBuf,
    /// Judge every program so often; verdicts that differ are unknown.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Run programs without a sandbox, with limits only. For machines that are thrown away afterwards.
    #[arg(long)]
    unsafe_no_sandbox: bool,
}

impl SuiteArgs {
    fn open(&self) -> crate::Result<Suite> {
        Suite::open(&self.suite, &self.only)
    }
}

impl JudgeArgs {
    fn judge<'a>(&self, suite: &'a Suite) -> crate::Result<Judge<'a>> {
        let JudgeArgs { python, repeat, unsafe_no_sandbox } = self;
        let options =
            JudgeOptions { python: python.clone(), repeat: *repeat, without_sandbox: *unsafe_no_sandbox };
        let judge = Judge::new(suite, &options)?;
        let environment = judge.environment();
        detail(&format!("sandbox: {}; Python {}", environment.sandbox, environment.python));
        if !judge.is_walled() {
            warn("generated code runs without namespaces: it sees this machine's processes");
        }
        Ok(judge)
    }
}

/// Does it.
pub fn run(args: &EvalArgs, process: (Option<usize>, &Signals)) -> Result<()> {
    let (threads, signals) = process;
    match &args.command {
        EvalCommand::Check(args) => on_threads(threads, || check::run(args, signals)),
        EvalCommand::Judge(args) => on_threads(threads, || judge::run(args, signals)),
        EvalCommand::Sample(args) => sample::run(args, process),
        EvalCommand::Run(args) => run::run(args, process),
        EvalCommand::Compare(args) => on_threads(threads, || compare::run(args)),
        EvalCommand::Verify(args) => on_threads(threads, || verify::run(args)),
    }
}

/// Does something with a judge that stops on a signal, on as many threads as there are.
/// `advice` says how to go on after one.
fn with_judging<T>(
    judge: &Judge<'_>,
    signals: &Signals,
    advice: &str,
    work: impl FnOnce(&Judging<'_>) -> crate::Result<T>,
) -> crate::Result<T> {
    signals.request();
    let should_stop = || signals.received().is_some();
    let on_run = |scenario: &Scenario, program: &str, wall: Duration| {
        let hash = blake3::hash(program.as_bytes()).to_hex();
        detail(&format!("{}, program {hash}: {:.2} s in the sandbox", scenario.meta.id, wall.as_secs_f64()));
    };
    let workers = rayon::current_num_threads();
    let judging = Judging { judge, workers, should_stop: &should_stop, on_run: &on_run };
    let is_stop = |error: &Error| [ErrorKind::Preempted, ErrorKind::Interrupted].contains(&error.kind());
    work(&judging).map_err(|error| if is_stop(&error) { error.advice(advice) } else { error })
}

/// A bar on a terminal, which counts.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(what: &'static str, length: usize) -> Self {
        let bar = shows_bars().then(|| ProgressBar::new(length as u64));
        if let Some(bar) = &bar {
            set_style(bar, "{msg} {bar:24} {pos}/{len} {elapsed} eta {eta}");
            bar.set_message(what);
        }
        Bar(bar)
    }

    fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    fn set(&self, position: usize, length: usize) {
        if let Some(bar) = &self.0 {
            bar.set_length(length as u64);
            bar.set_position(position as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
