//! Sampling completions of a suite into a run's folder: `samples.jsonl`, and `sampling.json`, which says of
//! what they are samples. Scenarios are written whole, in the order of the suite, whatever ends first, and
//! what is there is never sampled again.

mod heat;
mod merge;
mod plan;
mod run;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::lines::Lines;
use super::presets::Preset;
use super::run::{SAMPLES, SAMPLING};
use super::samples::SampleLine;
use super::suite::{Scenario, Suite};
use crate::decode::{GenerateOptions, rows_of_pass};
use crate::deepguard::DeepGuard;
use crate::dist::leases::{Facts, Unit};
use crate::dist::{Crew, Work};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files;
use crate::ops::Backend;
use merge::Merge;
use plan::{Plan, Prompt, whole_scenarios};
use run::sample_all;
use settings::Settings;

/// What to sample, and how.
#[derive(Clone, Debug)]
pub struct SampleOptions<'a> {
    /// Name of the method in tables.
    pub method: String,
    /// The preset that the options come from.
    pub preset: &'a Preset,
    /// Folder of the adapter, if one is attached.
    pub adapter: Option<&'a Path>,
    /// Folder of the expert's adapter, if one drafts.
    pub expert_adapter: Option<&'a Path>,
    /// How tokens are chosen, with the seed of all scenarios.
    pub generate: GenerateOptions,
    /// End prompts in the middle of the indentation of the next line.
    pub open_indent: bool,
    /// Sample the first scenarios only, so many.
    pub limit: Option<usize>,
    /// Go on with what is in the folder.
    pub resume: bool,
}

/// How far sampling is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Scenarios that are written.
    pub scenarios: usize,
    /// All scenarios that can be sampled.
    pub of: usize,
}

/// What sampling came to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Scenarios in the folder.
    pub scenarios: usize,
    /// Scenarios that were there before.
    pub resumed: usize,
    /// Samples in the folder.
    pub samples: usize,
    /// New samples that are complete functions, or that their model ended.
    pub ended: usize,
    /// Tokens of new samples.
    pub tokens: usize,
    /// Seconds for them.
    pub seconds: f64,
    /// Scenarios that cannot be sampled, with the reason.
    pub unsampled: BTreeMap<String, String>,
    /// What is not as the preset's publication has it.
    pub differences: Vec<String>,
}

/// Who samples.
pub struct Sharing<'a> {
    /// All ranks.
    pub crew: &'a Crew,
    /// What has to be the same on them.
    pub facts: Facts,
}

/// Samples what `options` says into `folder`, on rank 0 of a crew. `should_stop` is asked after every token.
///
/// # Errors
/// Kind `Usage`: the folder has samples already, and they are not to be gone on with. Kind `Data`: they are
/// samples of something else; every option that differs is named. Kind `Preempted`: it was asked to stop.
/// Kind `Verdict`: scenarios were given up with which ranks were lost twice. What is complete is kept.
pub fn sample<B: Backend>(
    guard: &DeepGuard<B>,
    suite: &Suite,
    options: &SampleOptions<'_>,
    folder: &Path,
    sharing: Sharing<'_>,
    should_stop: &dyn Fn() -> bool,
    on_progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Summary> {
    let generate = guard.with_model_options(&options.generate)?;
    guard.validate(&generate)?;
    let limit = options.limit.unwrap_or(usize::MAX);
    let scenarios: Vec<&Scenario> = suite.scenarios.iter().take(limit).collect();
    let Plan { settings, samplable } = Plan::new(guard, &scenarios, options, &generate)?;
    let (lines, places) = open(folder, options.resume, &settings, &samplable)?;
    let kept = places.len();
    let mut merge = Merge::new(lines, samplable.len(), places, on_progress);
    let started = std::time::Instant::now();
    let sampled = sharing.sample(guard, &samplable, &generate, should_stop, &mut merge);
    sampled.map_err(|error| match error.kind() {
        ErrorKind::Interrupted => {
            let (done, all) = (merge.scenarios(), samplable.len());
            let text = format!("stopped after {done} of {all} scenarios; --resume goes on from there");
            Error::new(ErrorKind::Preempted, text)
        }
        ErrorKind::Verdict => error.advice("--resume goes on with what is missing"),
        _ => error,
    })?;
    merge.put_in_order(&folder.join(SAMPLES), &samplable)?;
    Ok(Summary {
        scenarios: merge.scenarios(),
        resumed: kept,
        samples: merge.scenarios() * generate.num_samples,
        ended: merge.ended,
        tokens: merge.tokens,
        seconds: started.elapsed().as_secs_f64(),
        unsampled: settings.unsampled,
        differences: settings.differences,
    })
}

/// The samples of a folder, and the places of the scenarios that have all of theirs there.
fn open(folder: &Path, resume: bool, settings: &Settings, prompts: &[Prompt]) -> Result<(Lines, Vec<usize>)> {
    let is_begun = settings.is_begun(folder, resume)?;
    let path = folder.join(SAMPLES);
    let (mut lines, there) = Lines::open::<SampleLine>(&path)?;
    let places = whole_scenarios(prompts, settings.num_samples, &there, &path)?;
    if !is_begun && !there.is_empty() {
        return Err(Error::data(format!(
            "{}: there are samples without {SAMPLING}; choose another --output-dir",
            path.display()
        )));
    }
    if !is_begun {
        files::write_json(&folder.join(SAMPLING), settings)?;
    }
    let kept = places.len() * settings.num_samples;
    if kept < there.len() {
        lines.replace(&there[..kept])?;
    }
    Ok((lines, places))
}

/// The part of any other rank: samples what it is leased. `options` are those of rank 0.
///
/// # Errors
/// Kind `Preempted`: it was asked to stop, and the others go on. Those of the generation; kind `Cluster` if
/// all ranks have to end.
pub fn serve<B: Backend>(
    guard: &DeepGuard<B>,
    options: &GenerateOptions,
    sharing: Sharing<'_>,
    should_stop: &dyn Fn() -> bool,
) -> Result<()> {
    let generate = guard.with_model_options(options)?;
    guard.validate(&generate)?;
    let mut compute = |input: &[u8]| sample_unit(guard, input, &generate, should_stop);
    sharing.crew.serve(sharing.facts, &mut compute, should_stop).map_err(|error| match error.kind() {
        ErrorKind::Interrupted => Error::new(
            ErrorKind::Preempted,
            "stopped on request; what this rank was sampling goes to another",
        ),
        _ => error,
    })
}

/// Samples the prompts of a unit.
fn sample_unit<B: Backend>(
    guard: &DeepGuard<B>,
    input: &[u8],
    generate: &GenerateOptions,
    should_stop: &dyn Fn() -> bool,
) -> Result<Vec<u8>> {
    let complain = || "scenarios of a unit".to_owned();
    let prompts: Vec<Prompt> = serde_json::from_slice(input).kind(ErrorKind::Internal, complain)?;
    let mut all = vec![Vec::new(); prompts.len()];
    sample_all(guard, &prompts, generate, should_stop, &mut |i, lines| {
        all[i] = lines;
        Ok(())
    })?;
    serde_json::to_vec(&all).kind(ErrorKind::Internal, complain)
}

impl Sharing<'_> {
    /// Samples the missing ones of all prompts: in one batch, or by all ranks.
    fn sample<B: Backend>(
        self,
        guard: &DeepGuard<B>,
        all: &[Prompt],
        generate: &GenerateOptions,
        should_stop: &dyn Fn() -> bool,
        merge: &mut Merge<'_>,
    ) -> Result<()> {
        let prompts: Vec<Prompt> = merge.missing().iter().map(|&place| all[place].clone()).collect();
        match self.crew.is_alone() {
            true => sample_all(guard, &prompts, generate, should_stop, &mut |i, lines| merge.add(i, lines)),
            false => self.lend(guard, &prompts, generate, should_stop, merge),
        }
    }

    /// Leases the prompts, as many at a time as fill a pass with their samples.
    fn lend<B: Backend>(
        self,
        guard: &DeepGuard<B>,
        prompts: &[Prompt],
        generate: &GenerateOptions,
        should_stop: &dyn Fn() -> bool,
        merge: &mut Merge<'_>,
    ) -> Result<()> {
        let complain = || "scenarios of a unit".to_owned();
        let most = rows_of_pass(&guard.model.backend).div_ceil(generate.num_samples);
        let unit = |prompts: &[Prompt]| {
            let name = match prompts {
                [first, .., last] => format!("{} to {}", first.id, last.id),
                _ => prompts.iter().map(|prompt| prompt.id.clone()).collect(),
            };
            let input = serde_json::to_vec(prompts).kind(ErrorKind::Internal, complain)?;
            Ok(Unit { name, input })
        };
        let units = prompts.chunks(most).map(unit).collect::<Result<Vec<Unit>>>()?;
        let mut add = |number: usize, outcome: Option<Vec<u8>>| {
            let (first, given_up) =
                (most * number, vec![Vec::new(); most.min(prompts.len() - most * number)]);
            let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).kind(ErrorKind::Internal, complain);
            let all: Vec<Vec<SampleLine>> = outcome.map_or(Ok(given_up), parse)?;
            all.into_iter().enumerate().try_for_each(|(i, lines)| merge.add(first + i, lines))
        };
        let mut compute = |input: &[u8]| sample_unit(guard, input, generate, should_stop);
        let facts = self.facts;
        self.crew.lend(Work { units, facts, compute: &mut compute, merge: &mut add, should_stop })
    }
}
