//! Checkpoints: everything an exact continuation needs.
//!
//! `checkpoint-N/` holds the adapter folder (see [`crate::adapter`]), `optimizer.safetensors` with AdamW's
//! moments, `trainer_state.json`, and the manifest of all these (see [`crate::manifest`]). It appears under
//! its name only when complete.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adapter;
use crate::error::{Context, Error, ErrorKind, Result, list as list_lines};
use crate::files::{finite_tensor, parent, remove_dir, require_space, write_json, write_safetensors};
use crate::manifest::{self, Others};
use crate::model::weights::Weights;
use crate::ops::Backend;
use crate::train::course::Course;
use crate::train::evaluation::Evaluation;
use crate::train::run_folder::FINAL_ADAPTER;
use crate::train::step::{Moments, Stepper};

/// Where a run stood at a checkpoint.
pub const STATE: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const PREFIX: &str = "checkpoint-";

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Optimiser steps done.
    pub global_step: usize,
    /// AdamW updates done: steps less those skipped.
    pub updates: u32,
    /// Steps skipped because a gradient was not finite.
    pub skipped_steps: usize,
    /// How many of them were the last ones, in a row.
    pub skipped_in_a_row: usize,
    /// Whether the run was stopped before the validation and the bookkeeping that follow its last step.
    pub validation_pending: bool,
    /// Best validation loss so far.
    pub best_metric: Option<f64>,
    /// Step of the best validation loss.
    pub best_step: usize,
    /// Epochs since then.
    pub epochs_without_improvement: usize,
    /// Whether training ended early.
    pub stopped_early: bool,
    /// All evaluations: (step, figures).
    pub evaluations: Vec<(usize, Evaluation)>,
    /// What must not change between the parts of a run.
    pub course: Course,
}

/// Writes `run/checkpoint-N` and removes the oldest of those up to N beyond `keep`, but not the best.
pub fn save<B: Backend>(
    run: &Path,
    stepper: &Stepper<'_, B>,
    state: &TrainerState,
    base_model: &str,
    keep: usize,
) -> Result<PathBuf> {
    let dir = path(run, state.global_step);
    require_space(&dir, written_bytes(stepper)).map_err(|e| e.advice(make_room(run)))?;
    manifest::commit_dir(&dir, |dir| {
        adapter::save(dir, &stepper.attached, &stepper.model().config, base_model)?;
        let Moments { m, v, .. } = &stepper.moments;
        let backend = &stepper.model().backend;
        let host = [m, v].map(|buffer| backend.to_host(buffer.view()));
        backend.finish()?;
        let tensor = |name: &str, values: &[f32]| finite_tensor(name, &[values.len()], values);
        let tensors = [tensor("m", &host[0])?, tensor("v", &host[1])?];
        write_safetensors(&dir.join(OPTIMIZER), &tensors)?;
        write_json(&dir.join(STATE), state)
    })?;
    prune(run, state, keep)?;
    Ok(dir)
}

/// The checkpoint of a step.
pub fn path(run: &Path, step: usize) -> PathBuf {
    run.join(format!("{PREFIX}{step}"))
}

/// About how many bytes a checkpoint takes: adapter, moments, and small files.
pub fn written_bytes<B: Backend>(stepper: &Stepper<'_, B>) -> u64 {
    let moments = 2 * size_of::<f32>() * stepper.moments.m.len();
    adapter::written_bytes(&stepper.attached) + moments as u64 + 4096
}

/// What to do about a full disk.
pub(super) fn make_room(run: &Path) -> String {
    format!(
        "{}; free disk space, keep fewer checkpoints with a lower `save_total_limit`, or use another `output_dir`",
        what_is_left(run)
    )
}

/// From where a run that ends with an error can go on.
pub(super) fn what_is_left(run: &Path) -> String {
    match list(run).pop() {
        Some((_, dir)) => format!("{} is intact", dir.display()),
        None => "no checkpoint had been written".into(),
    }
}

/// The checkpoints of a run, oldest first.
pub fn list(run: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            entry.path().is_dir().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Neither the newest checkpoint nor the best is ever removed. Later ones, of an attempt that went further,
/// do not count.
fn prune(run: &Path, state: &TrainerState, keep: usize) -> Result<()> {
    let mut all = list(run);
    all.retain(|(step, _)| *step <= state.global_step);
    let surplus = all.len().saturating_sub(keep);
    all.retain(|(step, _)| ![state.global_step, state.best_step].contains(step));
    all.iter().take(surplus).try_for_each(|(_, dir)| remove_dir(dir))
}

/// The checkpoint from which a run in the folder `run` goes on: the one that `spec` names, or the newest for
/// `auto`, if there is any. A new run in the folder of an earlier one would mix their checkpoints, or put its
/// adapter in the place of a finished one. Nothing is written.
///
/// # Errors
/// Kind `Model` for a checkpoint that is none, kind `Usage` for the folder of an earlier run that does not go
/// on.
pub fn resume_point(run: &Path, spec: Option<&str>) -> Result<Option<PathBuf>> {
    let resume = spec.map(|spec| find(run, spec)).transpose()?.flatten();
    if resume.as_deref().is_some_and(|dir| is_inside(dir, run)) {
        return Ok(resume);
    }
    if let Some((_, found)) = list(run).pop() {
        return Err(Error::usage(format!(
            "{} is a checkpoint of an earlier run: continue that run with `resume_from_checkpoint`, or choose another \
             `output_dir`",
            found.display()
        )));
    }
    let adapter = run.join(FINAL_ADAPTER);
    // Whoever asks for the newest checkpoint knows that there may be none yet.
    if adapter.exists() && spec != Some("auto") {
        return Err(Error::usage(format!(
            "{} is the adapter of an earlier run: choose another `output_dir`, or remove it",
            adapter.display()
        )));
    }
    Ok(resume)
}

/// Whether a checkpoint is one of the run in a folder.
pub(super) fn is_inside(checkpoint: &Path, run: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    canonical(checkpoint).is_some_and(|dir| dir.parent() == canonical(run).as_deref())
}

fn find(run: &Path, spec: &str) -> Result<Option<PathBuf>> {
    if spec == "auto" {
        return Ok(list(run).pop().map(|(_, dir)| dir));
    }
    let dir = PathBuf::from(spec);
    if dir.join(STATE).is_file() {
        return Ok(Some(dir));
    }
    Err(Error::model(format!(
        "{spec} is no checkpoint: expected a folder with {STATE}; `auto` finds the newest one"
    )))
}

/// Where to go on when a checkpoint cannot be used.
fn instead_of(dir: &Path) -> String {
    let all = list(parent(dir));
    let at = all.iter().position(|(_, other)| other.file_name() == dir.file_name());
    let older = at.and_then(|at| at.checked_sub(1)).map(|older| &all[older].1);
    match older {
        Some(older) => format!("an earlier one is left: `resume_from_checkpoint` {}", older.display()),
        None => "no earlier one is left: start a new run in another `output_dir`".into(),
    }
}

/// Where a run stood at a checkpoint, whose files are checked.
///
/// # Errors
/// Kind `Model` for a checkpoint that is damaged; kind `Usage`, with every difference, for one of another
/// course.
pub(super) fn read_state(dir: &Path, course: &Course) -> Result<TrainerState> {
    manifest::verify(dir, Others::Refused).map_err(|e| e.advice(instead_of(dir)))?;
    let path = dir.join(STATE);
    let complain = || format!("cannot read {}", path.display());
    let text = std::fs::read(&path).kind(ErrorKind::Model, complain)?;
    let state: TrainerState = serde_json::from_slice(&text).kind(ErrorKind::Model, complain)?;
    let differences = state.course.differences(course);
    if differences.is_empty() {
        return Ok(state);
    }
    let error = Error::usage(format!(
        "{} was written by another run: {}",
        dir.display(),
        list_lines("what differs", differences)
    ));
    Err(error.advice("resume with the same, or start a new run in another `output_dir`"))
}

/// Puts parameters, statistics and moments of a checkpoint, whose files have been checked, into `stepper`.
pub(super) fn restore<B: Backend>(
    dir: &Path,
    stepper: &mut Stepper<'_, B>,
    state: &TrainerState,
) -> Result<()> {
    let model = stepper.model();
    let mut attached = adapter::load_verified(&model.backend, dir, &model.config)?;
    // PEFT's format has no place for a prefix's dropout.
    if let (Some(loaded), Some(planned)) = (&mut attached.prefix, &stepper.attached.prefix) {
        loaded.config = planned.config;
    }
    stepper.attached = attached;
    let path = dir.join(OPTIMIZER);
    let weights = Weights::open_file(&path)?;
    let moments = &mut stepper.moments;
    for (name, buffer) in [("m", &mut moments.m), ("v", &mut moments.v)] {
        let tensor = weights.tensor(name)?;
        if tensor.shape() != [buffer.len()] {
            return Err(Error::model(format!(
                "{}: {name} has shape {:?}, expected [{}]",
                path.display(),
                tensor.shape(),
                buffer.len()
            )));
        }
        let values = tensor.to_f32_vec();
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (path, value) = (path.display(), values[at]);
            return Err(Error::model(format!(
                "{path}: element {at} of {name} is {value}, not a finite number"
            )));
        }
        model.backend.upload(buffer.view_mut(), &values);
    }
    moments.t = state.updates;
    Ok(())
}
