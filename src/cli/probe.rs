//! `dg-run probe`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;

use super::device::Task;
use super::keys::named;
use super::leases::{self, facts, of_bytes, to_bytes};
use super::output::write_file;
use super::ranks::RanksArgs;
use super::say::{note, shows_bars};
use super::signals::Signals;
use super::terminal::{has_reader, print, require_reader, set_style};
use super::{Guard, ModelArgs};
use crate::cpu::Cpu;
use crate::deepguard::DeepGuard;
use crate::dist::leases::{Facts, Unit};
use crate::dist::{Crew, Work};
use crate::error::Error;
use crate::files::json_text;
use crate::model::config::Config;
use crate::ops::{Backend, Device};
use crate::probe::{PairStates, ProbeOptions, ProbeReport, Progress, Signal, Watch, probe, probe_states};
use crate::report;
use crate::train::Method;
use crate::train::batch::TokenPair;
use crate::train::config::default_max_seq_len;
use crate::train::data::{OnBadRecord, TokenizedPairs, read_pairs, tokenize};
use crate::train::records::CodePair;

/// Pairs of a unit that a rank leases.
const PAIRS_OF_UNIT: usize = 8;

/// Letters of a bar in the table.
const BAR: f64 = 40.0;

/// Options of `dg-run probe`.
#[derive(Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Pairs of vulnerable and secure functions: a JSONL file or a folder of them (SVEN format).
    #[arg(long)]
    data: PathBuf,
    /// Longest function in tokens; longer ones are cut. If not given, 1024, or the model's context if that is
    /// shorter.
    #[arg(long, alias = "max-length", alias = "max-seq-length")]
    max_seq_len: Option<usize>,
    /// Whether records that cannot be used are an error (exit code 3) or left out.
    #[arg(long, value_parser = named(OnBadRecord::ALL, OnBadRecord::name), default_value = OnBadRecord::default().name())]
    on_bad_record: OnBadRecord,
    /// Parts of the pairs, each of which is held out once: at least 3.
    #[arg(long, default_value_t = 5)]
    folds: usize,
    /// Seed of the order in which pairs are dealt to the folds, and of the test's draws.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Write a page with table and chart, which needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    ranks: RanksArgs,
}

impl ProbeArgs {
    fn options(&self) -> ProbeOptions {
        ProbeOptions { folds: self.folds, seed: self.seed, free_memory: Cpu::new().free_memory() }
    }
}

/// Probes.
pub fn run(args: &ProbeArgs, process: (Option<usize>, &Signals)) -> Result<()> {
    args.options().check()?;
    if args.max_seq_len == Some(0) {
        return Err(Error::usage("--max-seq-len: expected at least 1, found 0").into());
    }
    leases::run(&args.ranks, &args.model, process, |crew, model| {
        let (records, left_out) = match crew.is_first() {
            true => read_pairs(&args.data, "train", args.on_bad_record)?,
            false => (Vec::new(), 0),
        };
        model.run(Guard::Unused, Probing { args, model, crew, records, left_out })
    })
}

struct Probing<'a> {
    args: &'a ProbeArgs,
    model: &'a ModelArgs,
    crew: &'a Crew,
    /// On rank 0.
    records: Vec<CodePair>,
    left_out: usize,
}

impl Task for Probing<'_> {
    fn check(&self, model: &Config) -> Result<()> {
        let limit = model.max_position_embeddings;
        match self.args.max_seq_len.filter(|given| *given > limit) {
            Some(found) => Err(Error::usage(format!(
                "--max-seq-len: expected at most {limit}, the model's context, found {found}"
            ))
            .into()),
            None => Ok(()),
        }
    }

    fn run<B: Backend>(self, guard: DeepGuard<B>) -> Result<()> {
        let Probing { args, model, crew, records, left_out } = self;
        let facts = facts(crew, model, &guard, None, "")?;
        if !crew.is_first() {
            return Ok(crew.serve(facts, &mut |pairs| read_unit(&guard, pairs, args), &|| false)?);
        }
        let limit = guard.model.config.max_position_embeddings;
        let max_seq_len = args.max_seq_len.unwrap_or_else(|| default_max_seq_len(limit));
        let pairs = tokenize(&records, &guard.tokenizer, max_seq_len, Method::Ce)?;
        note(&told(&pairs, left_out));
        let shown = Shown::new();
        let watch = |progress| {
            shown.update(progress);
            args.html.is_some() || has_reader()
        };
        let report = match crew.is_alone() {
            true => probe(&guard.model, guard.attached.as_ref(), &pairs.pairs, &args.options(), &watch),
            false => share(args, (crew, facts), &guard, &pairs.pairs, &watch),
        };
        shown.finish();
        if args.html.is_none() {
            require_reader()?;
        }
        let report = report?;
        if args.json {
            print(&json_text(&report)?)?;
        } else {
            print(&to_text(&report))?;
        }
        if let Some(page) = &args.html {
            let adapter = args.model.adapter.as_deref();
            write_file(page, &report::probe_page(&report, &args.model.model, adapter))?;
        }
        Ok(())
    }
}

/// Probes pairs that all ranks read.
fn share<B: Backend>(
    args: &ProbeArgs,
    (crew, facts): (&Crew, Facts),
    guard: &DeepGuard<B>,
    pairs: &[TokenPair],
    watch: &Watch<'_>,
) -> crate::Result<ProbeReport> {
    let options = args.options();
    let unit = |(i, pairs): (usize, &[TokenPair])| {
        let first = PAIRS_OF_UNIT * i + 1;
        let name = format!("pairs {first} to {}", first + pairs.len() - 1);
        Ok(Unit { name, input: to_bytes(&pairs)? })
    };
    let units = pairs.chunks(PAIRS_OF_UNIT).enumerate().map(unit).collect::<crate::Result<_>>()?;
    probe_states(pairs, &options, watch, |tell| {
        let mut states = PairStates::with_room(&guard.model.config, pairs.len(), options.free_memory)?;
        let mut done = 0;
        tell(done)?;
        let mut merge = |unit: usize, read: Option<Vec<u8>>| {
            let pairs = PAIRS_OF_UNIT.min(pairs.len() - PAIRS_OF_UNIT * unit);
            done += pairs;
            read.map_or(Ok(()), |read| states.add_bytes(pairs, &read))?;
            tell(done)
        };
        let mut compute = |pairs: &[u8]| read_unit(guard, pairs, args);
        let should_stop = || args.html.is_none() && !has_reader();
        crew.lend(Work {
            units,
            facts,
            compute: &mut compute,
            merge: &mut merge,
            should_stop: &should_stop,
        })?;
        Ok(states)
    })
}

/// The states of the pairs of a unit.
fn read_unit<B: Backend>(guard: &DeepGuard<B>, pairs: &[u8], args: &ProbeArgs) -> crate::Result<Vec<u8>> {
    let pairs: Vec<TokenPair> = of_bytes(pairs)?;
    let free = args.options().free_memory;
    let states = PairStates::read(&guard.model, guard.attached.as_ref(), &pairs, free, &mut |_| Ok(()))?;
    Ok(states.to_bytes())
}

fn told(pairs: &TokenizedPairs, left_out: usize) -> String {
    format!(
        "{} pairs ({} cut to the length limit, {} dropped as identical within it, {left_out} records left out)",
        pairs.pairs.len(),
        pairs.limit.cut,
        pairs.limit.lost + pairs.identical
    )
}

/// Progress on standard error: a bar on a terminal, a line before the fits elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new() -> Self {
        Shown { bar: shows_bars().then(ProgressBar::no_length) }
    }

    fn update(&self, progress: Progress) {
        match (&self.bar, progress) {
            (Some(bar), Progress::Read(0, of)) => restart(bar, of, "pairs read"),
            (Some(bar), Progress::Fitted(0, of)) => restart(bar, of, "probes fitted"),
            (Some(bar), Progress::Read(done, _) | Progress::Fitted(done, _)) => bar.set_position(done as u64),
            (None, Progress::Fitted(0, of)) => note(&format!("pairs read; fitting {of} probes")),
            (None, _) => {}
        }
    }

    /// Removes the bar.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Begins a bar anew.
fn restart(bar: &ProgressBar, of: usize, what: &str) {
    bar.reset();
    bar.set_length(of as u64);
    set_style(bar, &format!("{{bar:24}} {{pos}}/{{len}} {what}, eta {{eta}}"));
}

fn to_text(report: &ProbeReport) -> String {
    let mut text = format!(
        "{} pairs in {} groups, {} folds; intervals of {:.0} %; chance is {}\n\n\
         layer  classified correctly     secure above vulnerable       p\n",
        report.pairs,
        report.groups,
        report.folds,
        100.0 * report.confidence,
        report.chance
    );
    for probe in &report.layers {
        let (a, p) = (probe.accuracy, probe.pair_accuracy);
        let above = ((p.value - report.chance).max(0.0) / (1.0 - report.chance) * BAR).round() as usize;
        text += &format!(
            "{:>5}  {:.3} ({:.3} to {:.3})   {:.3} ({:.3} to {:.3})  {:>7}  {}\n",
            probe.layer,
            a.value,
            a.low,
            a.high,
            p.value,
            p.low,
            p.high,
            report::p_text(probe.p_value),
            "█".repeat(above)
        );
    }
    text + "\n" + &conclusion(report) + "\n"
}

/// What the probes say, in words.
fn conclusion(report: &ProbeReport) -> String {
    let p = match report::p_text(report.p_value()) {
        p if p.starts_with('<') => format!("p {p}"),
        p => format!("p = {p}"),
    };
    let Some(Signal { best_layer, band: [first, last], guard_layers }) = &report.signal else {
        return format!(
            "No layer is above chance for certain ({p}): with these pairs, the model shows no signal, or too few pairs \
             show it. There is nothing to suggest."
        );
    };
    format!(
        "Layer {best_layer} of {} is best ({p}); layers {first} to {last} are not worse for certain. \
         --guard-layers {guard_layers} reaches them.",
        report.layers.len()
    )
}
