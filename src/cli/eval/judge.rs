//! `dg-run eval judge`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::super::print;
use super::super::say::note;
use super::super::signals::Signals;
use super::check::excluded_text;
use super::result::finish;
use super::{Bar, SuiteArgs, with_judging};
use crate::error::{Context, Error, ErrorKind, at_most};
use crate::eval::environment::Environment;
use crate::eval::judge::Judge;
use crate::eval::judging::{self, Judged, read_samples};
use crate::eval::lines::read;
use crate::eval::references::{Excluded, Scope, check};
use crate::eval::run::{REFERENCES, SAMPLES, SAMPLING, VERDICTS};
use crate::eval::samples::SampleLine;
use crate::eval::seal::{Judgement, asked, sampling};
use crate::eval::stop;
use crate::eval::suite::{Scenario, Suite};
use crate::eval::verdict::{Functional, Secure};
use crate::files::{self, json_text};
use crate::report::printable;

/// Unknown verdicts that are named.
const MAX_NAMED: usize = 20;

/// Options of `dg-run eval judge`.
#[derive(Args)]
pub(super) struct JudgeArgs {
    /// Samples: a line of JSON each, with the `id` of a scenario and the `completion` that continues its
    /// prompt.
    samples: PathBuf,
    #[command(flatten)]
    suite: SuiteArgs,
    /// Folder for samples.jsonl, references.jsonl, verdicts.jsonl, the seal, page and tables; if not given,
    /// that of the samples, which then have to be called samples.jsonl. What an earlier run left there is not
    /// judged again.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Cut completions where their function ends, as `eval sample` does, for samples that go on behind it.
    /// Needs an --output-dir, where the cut ones are kept.
    #[arg(long, requires = "output_dir")]
    cut: bool,
    /// What made the samples, for tables; if not given, what their sampling.json says, or the folder's name.
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Samples whose verdict may be unknown. With more, the exit code is 7.
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_unknown: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &JudgeArgs, signals: &Signals) -> Result<()> {
    let folder = folder(args)?;
    if args.cut && same_file(&args.samples, &folder.join(SAMPLES)) {
        return Err(Error::usage(format!(
            "--cut: {} is where the cut samples would be kept; give another --output-dir",
            args.samples.display()
        ))
        .into());
    }
    let suite = args.suite.open()?;
    let mut samples = read_samples(&args.samples, &suite)?;
    if args.cut {
        cut(&mut samples, &suite);
    }
    let judge = args.suite.judge.judge(&suite)?;
    keep_samples(&args.samples, &samples, &folder)?;
    let advice = "the same command goes on from there";
    let mut summary = judge_samples(&judge, &samples, &folder, (signals, advice))?;
    summary.seal(&judge, &folder, args.method.as_deref())?;
    if args.json {
        print(&json_text(&summary)?)?;
    } else {
        print(&summary.to_text())?;
    }
    Ok(summary.require_known(args.allow_unknown)?)
}

fn cut(samples: &mut [SampleLine], suite: &Suite) {
    for sample in samples {
        if let Some(scenario) = suite.scenario(&sample.id) {
            sample.completion = stop::cut(scenario.meta.language, &scenario.prompt, &sample.completion);
        }
    }
}

fn folder(args: &JudgeArgs) -> crate::Result<PathBuf> {
    match &args.output_dir {
        Some(folder) => Ok(folder.clone()),
        None if args.samples.file_name().is_some_and(|name| name == SAMPLES) => {
            Ok(files::parent(&args.samples).to_owned())
        }
        None => Err(Error::usage(format!(
            "give a folder for the verdicts with --output-dir; {} is not called {SAMPLES}, and so is of no run's folder",
            args.samples.display()
        ))),
    }
}

/// Writes the samples to the run's folder, each with its number, and what is said of them, unless they come
/// from there.
fn keep_samples(from: &Path, samples: &[SampleLine], folder: &Path) -> crate::Result<()> {
    let kept = folder.join(SAMPLES);
    let complain = || format!("cannot write {}", kept.display());
    files::create_dirs(folder).kind(ErrorKind::Device, complain)?;
    if same_file(from, &kept) {
        return Ok(());
    }
    let mut text = String::new();
    for sample in samples {
        text += &serde_json::to_string(sample).kind(ErrorKind::Internal, complain)?;
        text.push('\n');
    }
    keep(&kept, text.as_bytes(), from)?;
    let settings = files::parent(from).join(SAMPLING);
    if settings.exists() { keep(&folder.join(SAMPLING), &read(&settings)?, &settings) } else { Ok(()) }
}

fn same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().is_some_and(|one| other.canonicalize().is_ok_and(|other| other == one))
}

/// Writes a file that is not there; one that is has to be the same.
fn keep(path: &Path, bytes: &[u8], from: &Path) -> crate::Result<()> {
    match std::fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        Ok(_) => Err(Error::data(format!(
            "{}: expected what {} has, found something else; choose another --output-dir",
            path.display(),
            from.display()
        ))),
        Err(_) => files::write_file(path, bytes),
    }
}

/// What judging came to.
#[derive(Serialize)]
pub(super) struct Summary {
    samples: usize,
    judged: usize,
    /// Samples in the rates: without those of excluded scenarios, with those that are missing.
    counted: usize,
    parsed: usize,
    functional: usize,
    secure: usize,
    insecure: usize,
    unknown: usize,
    /// Samples whose verdict is unknown, with the reason.
    unknown_samples: Vec<Unknown>,
    /// Scenarios that cannot be judged here, with the reason.
    excluded: Excluded,
    environment: Environment,
}

#[derive(Serialize)]
struct Unknown {
    id: String,
    sample: u32,
    reason: String,
}

/// Judges samples into a run's folder: first the references of the scenarios that were asked for, then those
/// samples whose scenarios can be judged. The advice is for a stop by a signal.
pub(super) fn judge_samples(
    judge: &Judge<'_>,
    samples: &[SampleLine],
    folder: &Path,
    (signals, advice): (&Signals, &str),
) -> crate::Result<Summary> {
    let generation = sampling(folder)?;
    let asked = asked(samples, generation.as_ref());
    let known = |id: &&str| {
        let stranger = || Error::data(format!("{}: the suite has no scenario {id:?}", folder.display()));
        judge.suite().scenario(id).ok_or_else(stranger)
    };
    let scenarios: Vec<&Scenario> = asked.iter().map(known).collect::<crate::Result<_>>()?;
    with_judging(judge, signals, advice, |judging| {
        let bar = Bar::new("references", 2 * scenarios.len());
        let file = folder.join(REFERENCES);
        let (_, excluded) = check(judging, &scenarios, Scope::Pair, Some(&file), &mut |_| bar.advance())?;
        drop(bar);
        let usable: Vec<SampleLine> =
            samples.iter().filter(|sample| !excluded.contains_key(&sample.id)).cloned().collect();
        let bar = Bar::new("samples", usable.len());
        let file = folder.join(VERDICTS);
        let judged = judging::judge(judging, &usable, &file, &mut |_| bar.advance())?;
        drop(bar);
        note(&format!("written: {}", file.display()));
        Ok(Summary::new(samples.len(), &judged, excluded, judge.environment().clone()))
    })
}

impl Summary {
    fn new(samples: usize, judged: &Judged, excluded: Excluded, environment: Environment) -> Self {
        let count = |is: &dyn Fn(&crate::eval::verdict::Verdict) -> bool| {
            judged.lines.iter().filter(|line| is(&line.verdict)).count()
        };
        let unknown = judged.lines.iter().filter(|line| !line.verdict.is_known()).map(|line| Unknown {
            id: line.id.clone(),
            sample: line.sample,
            reason: line.verdict.reason.clone(),
        });
        let unjudged = judged.unjudged.iter().map(|(sample, reason)| Unknown {
            id: sample.id.clone(),
            sample: sample.sample,
            reason: reason.clone(),
        });
        Summary {
            samples,
            judged: judged.lines.len(),
            counted: judged.lines.len() + judged.unjudged.len(),
            parsed: count(&|verdict| verdict.parsed == Some(true)),
            functional: count(&|verdict| verdict.functional == Functional::Pass),
            secure: count(&|verdict| verdict.secure == Secure::Yes),
            insecure: count(&|verdict| verdict.secure == Secure::No),
            unknown: judged.unknown(),
            unknown_samples: unknown.chain(unjudged).collect(),
            excluded,
            environment,
        }
    }

    /// Seals the run's folder and writes its page and tables. What the seal counts as unknown, samples that
    /// are missing included, is what counts.
    ///
    /// # Errors
    /// Those of [`finish`].
    pub(super) fn seal(
        &mut self,
        judge: &Judge<'_>,
        folder: &Path,
        method: Option<&str>,
    ) -> crate::Result<()> {
        if self.judged == 0 {
            return Ok(());
        }
        let judgement = Judgement {
            suite: judge.suite(),
            environment: judge.environment(),
            harness: judge.harness_hash(),
            excluded: &self.excluded,
        };
        let totals = finish(folder, &judgement, method)?.totals;
        (self.counted, self.unknown) = (totals.samples, totals.unknown);
        Ok(())
    }

    pub(super) fn to_text(&self) -> String {
        let Summary { samples, judged, parsed, functional, secure, insecure, unknown, .. } = self;
        let mut text = format!(
            "{samples} samples, {judged} judged: {parsed} parse, {functional} functional, {secure} of them secure, \
             {insecure} insecure; {unknown} unknown\n"
        );
        let line =
            |Unknown { id, sample, reason }: &Unknown| format!("unknown: {id}, sample {sample}: {reason}");
        let named = at_most(MAX_NAMED, self.unknown_samples.iter().map(line));
        named.iter().for_each(|line| text += &format!("  {}\n", printable(line)));
        text + &excluded_text(&self.excluded)
    }

    /// # Errors
    /// Kind `Verdict`: more is unknown than may be, or nothing was judged.
    pub(super) fn require_known(&self, allowed: usize) -> crate::Result<()> {
        let (unknown, samples) = (self.unknown, self.counted);
        if self.judged == 0 {
            return Err(Error::new(ErrorKind::Verdict, "no sample was judged"));
        }
        if unknown > allowed {
            return Err(Error::new(
                ErrorKind::Verdict,
                format!(
                    "the verdicts on {unknown} of {samples} samples are unknown; --allow-unknown {unknown} accepts that"
                ),
            ));
        }
        Ok(())
    }
}
