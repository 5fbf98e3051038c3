//! Sampling completions of a suite into a run's folder: `samples.jsonl`, and `sampling.json`, which says of
//! what they are samples. Scenarios are written whole, in the order of the suite, whatever ends first, and
//! what is there is never sampled again.

mod heat;
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
use crate::decode::{GenerateOptions, Request};
use crate::deepguard::DeepGuard;
use crate::error::{Error, Result};
use crate::files;
use crate::ops::Backend;
use plan::{Plan, whole_scenarios};
use run::Run;

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

/// Samples what `options` says into `folder`. `should_stop` is asked after every token.
///
/// # Errors
/// Kind `Usage`: the folder has samples already, and they are not to be gone on with. Kind `Data`: they are
/// samples of something else; every option that differs is named. Kind `Preempted`: it was asked to stop.
/// What is complete is kept.
pub fn sample<B: Backend>(
    guard: &DeepGuard<B>,
    suite: &Suite,
    options: &SampleOptions<'_>,
    folder: &Path,
    should_stop: &dyn Fn() -> bool,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let generate = guard.with_model_options(&options.generate)?;
    guard.validate(&generate)?;
    let limit = options.limit.unwrap_or(usize::MAX);
    let scenarios: Vec<&Scenario> = suite.scenarios.iter().take(limit).collect();
    let mut plan = Plan::new(guard, &scenarios, options, &generate)?;
    let resumed = plan.is_begun(folder, options.resume)?;
    let (mut lines, there) = Lines::open::<SampleLine>(&folder.join(SAMPLES))?;
    let kept = whole_scenarios(&plan.samplable, generate.num_samples, &there, &folder.join(SAMPLES))?;
    if !resumed && !there.is_empty() {
        return Err(Error::data(format!(
            "{}: there are samples without {SAMPLING}; choose another --output-dir",
            folder.join(SAMPLES).display()
        )));
    }
    if !resumed {
        files::write_json(&folder.join(SAMPLING), &plan.settings)?;
    }
    let kept_lines = kept * generate.num_samples;
    if kept_lines < there.len() {
        lines.replace(&there[..kept_lines])?;
    }
    plan.samplable.drain(..kept);
    let mut run = Run {
        guard,
        num_samples: generate.num_samples,
        samples: plan.samplable.iter().map(|_| None).collect(),
        plan: &plan,
        lines,
        finished: BTreeMap::new(),
        written: 0,
        kept,
        ended: 0,
        tokens: 0,
        should_stop,
        on_progress,
        stopped: false,
        failure: None,
    };
    (run.on_progress)(Progress { scenarios: kept, of: kept + plan.samplable.len() });
    let started = std::time::Instant::now();
    let requests: Vec<Request> = plan.samplable.iter().map(|prompt| prompt.request.clone()).collect();
    guard.generate_all(&requests, &generate, &mut run)?;
    run.result(started.elapsed().as_secs_f64())
}
