//! Checkpoints: everything an exact continuation needs.
//!
//! `checkpoint-N/` holds the adapter folder (see [`crate::adapter`]), `optimizer.safetensors` with AdamW's moments and
//! `trainer_state.json`. It appears under its name only when complete.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adapter;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{OwnedTensor, write_dir, write_json, write_safetensors};
use crate::model::weights::Weights;
use crate::ops::{Backend, Buffer};
use crate::train::evaluation::Evaluation;
use crate::train::step::Stepper;

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
    /// Fingerprint of what must not change between the parts of a run: data, model and hyper-parameters.
    pub fingerprint: String,
}

/// Writes `run/checkpoint-N` and removes the oldest of those up to N beyond `keep`.
pub fn save<B: Backend>(
    run: &Path,
    stepper: &Stepper<'_, B>,
    state: &TrainerState,
    base_model: &str,
    keep: usize,
) -> Result<PathBuf> {
    let dir = run.join(format!("{PREFIX}{}", state.global_step));
    write_dir(&dir, |dir| {
        adapter::save(dir, &stepper.attached, &stepper.model().config, base_model)?;
        let moments = &stepper.moments;
        let backend = &stepper.model().backend;
        let tensor = |name: &str, buffer: &Buffer<B, f32>| {
            (name.to_owned(), OwnedTensor::f32(&[buffer.len()], &backend.to_host(buffer.view())))
        };
        let tensors = [tensor("m", &moments.m), tensor("v", &moments.v)];
        backend.finish()?;
        write_safetensors(&dir.join(OPTIMIZER), &tensors)?;
        write_json(&dir.join(STATE), state)
    })?;
    prune(run, state.global_step, keep)?;
    Ok(dir)
}

/// The checkpoints of a run, oldest first.
pub fn list(run: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Later checkpoints, of an attempt that went further, do not count: the newest one must never be removed.
fn prune(run: &Path, newest: usize, keep: usize) -> Result<()> {
    let mut all = list(run);
    all.retain(|(step, _)| *step <= newest);
    for (_, dir) in all.iter().take(all.len().saturating_sub(keep)) {
        std::fs::remove_dir_all(dir)
            .kind(ErrorKind::Device, || format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// The checkpoint that `--resume-from-checkpoint` means: a folder, or `auto` for the newest of the run, if any.
pub fn find(run: &Path, spec: &str) -> Result<Option<PathBuf>> {
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

/// Puts parameters, statistics and moments of a checkpoint into `stepper` and returns where the run stood.
pub fn load<B: Backend>(dir: &Path, stepper: &mut Stepper<'_, B>, fingerprint: &str) -> Result<TrainerState> {
    let path = dir.join(STATE);
    let complain = || format!("cannot read {}", path.display());
    let text = std::fs::read(&path).kind(ErrorKind::Model, complain)?;
    let state: TrainerState = serde_json::from_slice(&text).kind(ErrorKind::Model, complain)?;
    if state.fingerprint != fingerprint {
        return Err(Error::usage(format!(
            "{} was written with other data, another model or other hyper-parameters; resume with the same ones, or \
             start a new run in another --output-dir",
            dir.display()
        )));
    }
    let model = stepper.model();
    stepper.attached = adapter::load(&model.backend, dir, &model.config)?;
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
    Ok(state)
}
