//! `dg-run train`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::device::{DeviceArgs, Task};
use super::progress::Progress;
use super::signals::{Signal, Signals};
use super::summary::before_and_after;
use super::{config, note};
use crate::deepguard::DeepGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::hub::commit_of;
use crate::ops::Backend;
use crate::train::checkpoint;
use crate::train::data::OnBadRecord;
use crate::train::run_folder::FINAL_ADAPTER;
use crate::train::{RunFolder, RunSummary, TrainConfig};

/// Options of `dg-run train`. Every one may also stand in the TOML file, with underscores for hyphens.
#[derive(Args, Serialize)]
pub struct TrainArgs {
    /// TOML file with any of these options; flags override it.
    #[arg(long, short)]
    #[serde(skip)]
    config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    device: DeviceArgs,
    /// Base model: a Hugging Face directory, or a hub id, downloaded if it is not in the local cache.
    #[arg(long, short, alias = "model-name-or-path")]
    model: Option<String>,
    /// Branch, tag or commit of a hub id [default: main].
    #[arg(long = "revision", alias = "model-revision")]
    model_revision: Option<String>,
    /// Training pairs: a JSONL file or a folder of them (SVEN format).
    #[arg(long, short, alias = "train-data")]
    data: Option<PathBuf>,
    /// Validation pairs; default: the folder `val` in --data if there is one.
    #[arg(long)]
    val_data: Option<PathBuf>,
    /// Whether records that cannot be used are an error or left out [default: error].
    #[arg(long, value_enum)]
    on_bad_record: Option<OnBadRecord>,
    /// Without validation pairs: share of the training pairs to set aside.
    #[arg(long)]
    val_fraction: Option<f64>,
    /// Run folder [default: runs/deepguard].
    #[arg(long, short, alias = "output")]
    output_dir: Option<PathBuf>,
    /// Most passes over the training pairs [default: 5].
    #[arg(long, alias = "epochs", alias = "num-train-epochs")]
    num_epochs: Option<usize>,
    /// Most optimiser steps.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Pairs per micro-batch [default: 8].
    #[arg(
        long,
        alias = "per-device-batch-size",
        alias = "per-device-train-batch-size",
        alias = "micro-batch-size"
    )]
    batch_size: Option<usize>,
    /// Micro-batches per optimiser step [default: 2].
    #[arg(long, alias = "grad-acc-steps")]
    gradient_accumulation_steps: Option<usize>,
    /// Peak learning rate [default: 2e-5].
    #[arg(long, alias = "lr")]
    learning_rate: Option<f64>,
    /// Share of the steps in which the learning rate rises [default: 0.1].
    #[arg(long)]
    warmup_ratio: Option<f64>,
    /// Decoupled weight decay [default: 0.01].
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradients [default: 1].
    #[arg(long, alias = "max-norm")]
    max_grad_norm: Option<f64>,
    /// Longest function in tokens [default: 1024].
    #[arg(long, alias = "max-length", alias = "max-seq-length")]
    max_seq_len: Option<usize>,
    /// Seed of initial values, data order and dropout [default: 42].
    #[arg(long)]
    seed: Option<u64>,
    /// LoRA rank [default: 16].
    #[arg(long, alias = "lora-rank")]
    lora_r: Option<usize>,
    /// LoRA alpha [default: 32].
    #[arg(long)]
    lora_alpha: Option<f64>,
    /// Dropout on the adapters' inputs [default: 0.1].
    #[arg(long)]
    lora_dropout: Option<f32>,
    /// Adapted linear layers, separated by commas [default: by architecture].
    #[arg(long, alias = "lora-target-modules", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_modules: Vec<String>,
    /// How the guard aggregates layers: attention, average or last_layer [default: attention].
    #[arg(long, alias = "aggregation-method")]
    aggregation: Option<String>,
    /// Number of upper layers the guard looks at [default: 4].
    #[arg(long, alias = "num-hidden-layers-to-use")]
    guard_layers: Option<usize>,
    /// Dropout in the analyzer [default: 0.1].
    #[arg(long)]
    guard_dropout: Option<f32>,
    /// Wanted difference between mean secure and vulnerable scores [default: 0.5].
    #[arg(long)]
    margin: Option<f64>,
    /// Weight of the margin loss [default: 0.5].
    #[arg(long)]
    security_weight: Option<f64>,
    /// Weight of the KL divergence to the base model [default: 1].
    #[arg(long)]
    kl_weight: Option<f64>,
    /// Epochs without a better validation loss after which to stop; 0 never [default: 3].
    #[arg(long)]
    early_stop_patience: Option<usize>,
    /// Optimiser steps between evaluations [default: every epoch].
    #[arg(long)]
    eval_steps: Option<usize>,
    /// Optimiser steps between checkpoints [default: every epoch].
    #[arg(long)]
    save_steps: Option<usize>,
    /// Checkpoints kept; the newest and the best are kept in any case [default: 2].
    #[arg(long)]
    save_total_limit: Option<usize>,
    /// MiB of memory for the base model's hidden states; the rest goes to disk [default: 1024].
    #[arg(long)]
    base_cache_mib: Option<usize>,
    /// What the backward makes again: auto, nothing, gate-up or block [default: auto].
    #[arg(long)]
    recompute: Option<String>,
    /// Continue from a checkpoint: its folder, or `auto` for the newest of the run.
    #[arg(long, num_args = 0..=1, default_missing_value = "auto")]
    resume_from_checkpoint: Option<String>,
}

impl TrainArgs {
    /// Paths are written into the run's configuration, which is JSON.
    fn require_text(&self) -> Result<()> {
        let paths =
            [("--data", &self.data), ("--val-data", &self.val_data), ("--output-dir", &self.output_dir)];
        for (flag, path) in paths {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                let found = path.display();
                return Err(Error::usage(format!(
                    "{flag}: expected a path in UTF-8, which the run's configuration can hold, found {found}; choose \
                     another name"
                )));
            }
        }
        Ok(())
    }
}

/// Trains.
pub fn run(args: &TrainArgs, signals: &Signals) -> Result<()> {
    args.require_text()?;
    let config: TrainConfig = config::resolve(&TrainConfig::default(), args.config.as_deref(), args)?;
    for (flag, missing) in
        [("--model", config.model.is_empty()), ("--data", config.data.as_os_str().is_empty())]
    {
        if missing {
            return Err(Error::usage(format!(
                "{flag} is required, on the command line or in the --config file"
            )));
        }
    }
    config.validate()?;
    // Before the model is loaded, which may take long.
    let folder = RunFolder::open(&config.output_dir)?;
    let resume = config.resume_from_checkpoint.as_deref();
    if let Some(spec) = resume
        && checkpoint::find(folder.path(), spec)?.is_some()
    {
        signals.can_resume();
    }
    let task = Training { config: &config, folder: &folder, signals };
    args.device.run(&config.model, config.model_revision.as_deref(), task)
}

struct Training<'a> {
    config: &'a TrainConfig,
    folder: &'a RunFolder,
    signals: &'a Signals,
}

impl Task for Training<'_> {
    fn run<B: Backend>(self, mut guard: DeepGuard<B>) -> Result<()> {
        let mut progress = Progress::new(self.signals);
        // What a branch was when the run began is what the run's configuration has to name.
        let mut config = self.config.clone();
        config.model_revision = commit_of(guard.model.dir()).map(str::to_owned);
        let summary = guard.train_in(self.folder, &config, &mut progress)?;
        progress.finish();
        if summary.interrupted {
            return Err(stopped(&summary, self.signals));
        }
        let state = &summary.state;
        if state.stopped_early {
            note(&format!(
                "stopped early after {} epochs without a better loss",
                state.epochs_without_improvement
            ));
        }
        if let Some(table) = before_and_after(state) {
            note(&table);
        }
        note(&format!("adapter: {}", self.config.output_dir.join(FINAL_ADAPTER).display()));
        if summary.adapter_step > state.best_step && state.best_step > 0 {
            note(&format!(
                "it is that of the last step; the lowest validation loss was that of step {}, whose adapter is in the \
                 folder from which the run went on",
                state.best_step
            ));
        }
        Ok(())
    }
}

/// What a run that was stopped ends with.
fn stopped(summary: &RunSummary, signals: &Signals) -> Error {
    let by = signals.received().map_or("request", Signal::name);
    match &summary.checkpoint {
        Some(checkpoint) => Error::new(
            ErrorKind::Preempted,
            format!(
                "stopped by {by}; the run goes on from {} with --resume-from-checkpoint",
                checkpoint.display()
            ),
        ),
        None => Error::new(
            ErrorKind::Interrupted,
            format!("stopped by {by} before the first step; there is nothing to save"),
        ),
    }
}
