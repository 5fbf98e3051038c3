//! The command line of `dg-run train`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::device::DeviceArgs;
use super::keys::names;
use super::ranks::{RANKS, RanksArgs};
use crate::deepguard::ShardBase;
use crate::error::Error;
use crate::guard::Aggregation;
use crate::model::lora::{Projection, TargetModules};
use crate::train::config::RecomputePolicy;
use crate::train::data::OnBadRecord;
use crate::train::method::Method;

/// Headings of the help.
const MODEL: &str = "Model";
const DATA: &str = "Data";
const TRAINING: &str = "Training";
const LORA: &str = "LoRA";
const PREFIX: &str = "Prefix";
const GUARD: &str = "Guard";
const CHECKPOINTS: &str = "Checkpoints";
const MEMORY: &str = "Device and memory";
const OUTPUT: &str = "Output";

/// Options of `dg-run train`. Every one may also stand in the configuration file, with underscores for
/// hyphens, but for those that belong to one call. Defaults are those of [`TrainConfig`], with which the help
/// ends.
#[derive(Args, Serialize)]
pub struct TrainArgs {
    /// TOML or JSON file with any of these options, such as a run's own train_config.json; flags override it.
    #[arg(long, short)]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    /// Show what would be done: pairs, steps, memory, and the time of a step if the run has taken some.
    /// Nothing is written.
    #[arg(long)]
    #[serde(skip)]
    pub(super) dry_run: bool,
    /// Base model: a Hugging Face directory, or a hub id, downloaded if it is not in the local cache.
    #[arg(long, short, alias = "model-name-or-path", help_heading = MODEL)]
    model: Option<String>,
    /// Branch, tag or commit of a hub id; main if not given.
    #[arg(long = "revision", alias = "model-revision", help_heading = MODEL)]
    model_revision: Option<String>,
    /// Training pairs: a JSONL file or a folder of them (SVEN format).
    #[arg(long, short, alias = "train-data", help_heading = DATA)]
    data: Option<PathBuf>,
    /// Validation pairs; if not given, the folder `val` in --data if there is one.
    #[arg(long, help_heading = DATA)]
    val_data: Option<PathBuf>,
    /// Without validation pairs: share of the training pairs to set aside.
    #[arg(long, help_heading = DATA)]
    val_fraction: Option<f64>,
    /// Whether records that cannot be used are an error or left out.
    #[arg(long, value_parser = names(OnBadRecord::ALL.map(OnBadRecord::name)), help_heading = DATA)]
    on_bad_record: Option<String>,
    /// Longest function in tokens; longer ones are cut. If not given, 1024, or the model's context if that is
    /// shorter.
    #[arg(long, alias = "max-length", alias = "max-seq-length", help_heading = DATA)]
    max_seq_len: Option<usize>,
    /// How the adapter is trained: DeepGuard's joint loss with a guard; cross-entropy on the secure functions
    /// alone; SafeCoder's losses; SVEN's two prefixes; or CoSec's expert, which drafts. All but the first
    /// give plain PEFT adapters. What is not given is what was published for the method.
    #[arg(long, value_parser = names(Method::ALL.map(Method::name)), help_heading = TRAINING)]
    method: Option<String>,
    /// Most passes over the training pairs.
    #[arg(long, alias = "epochs", alias = "num-train-epochs", help_heading = TRAINING)]
    num_epochs: Option<usize>,
    /// Most optimiser steps; if not given, those of all passes.
    #[arg(long, help_heading = TRAINING)]
    max_steps: Option<usize>,
    /// Pairs per micro-batch.
    #[arg(long, alias = "per-device-batch-size", alias = "per-device-train-batch-size", alias = "micro-batch-size", help_heading = TRAINING)]
    batch_size: Option<usize>,
    /// Micro-batches per optimiser step, whose pairs are this times the batch size.
    #[arg(long, alias = "grad-acc-steps", help_heading = TRAINING)]
    gradient_accumulation_steps: Option<usize>,
    /// Cut a step's pairs into micro-batches of at most so many rows, whatever the batch size: tokens of
    /// the secure functions, and of the vulnerable ones after what both share.
    #[arg(long, help_heading = MEMORY)]
    micro_batch_tokens: Option<usize>,
    /// Peak learning rate.
    #[arg(long, alias = "lr", help_heading = TRAINING)]
    learning_rate: Option<f64>,
    /// Share of the steps in which the learning rate rises.
    #[arg(long, help_heading = TRAINING)]
    warmup_ratio: Option<f64>,
    /// Decoupled weight decay.
    #[arg(long, help_heading = TRAINING)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradients.
    #[arg(long, alias = "max-norm", help_heading = TRAINING)]
    max_grad_norm: Option<f64>,
    /// Seed of initial values, data order and dropout.
    #[arg(long, help_heading = TRAINING)]
    seed: Option<u64>,
    /// Epochs without a better validation loss after which to stop; 0 never.
    #[arg(long, help_heading = TRAINING)]
    early_stop_patience: Option<usize>,
    /// Optimiser steps between evaluations; if not given, those of an epoch.
    #[arg(long, help_heading = TRAINING)]
    eval_steps: Option<usize>,
    /// LoRA rank.
    #[arg(long, alias = "lora-rank", help_heading = LORA)]
    lora_r: Option<usize>,
    /// LoRA alpha.
    #[arg(long, help_heading = LORA)]
    lora_alpha: Option<f64>,
    /// Dropout on the adapters' inputs.
    #[arg(long, help_heading = LORA)]
    lora_dropout: Option<f32>,
    /// Adapted linear layers, separated by commas, or all-linear. If not given, what was published for the
    /// architecture.
    #[arg(long, alias = "lora-target-modules", value_delimiter = ',', value_parser = names(target_names()), help_heading = LORA)]
    target_modules: Vec<String>,
    /// Rows of each of SVEN's prefixes.
    #[arg(long, alias = "num-virtual-tokens", help_heading = PREFIX)]
    prefix_length: Option<usize>,
    /// Dropout on the prefixes.
    #[arg(long, help_heading = PREFIX)]
    prefix_dropout: Option<f32>,
    /// How the guard aggregates layers.
    #[arg(long, alias = "aggregation-method", value_parser = names(Aggregation::ALL.map(Aggregation::name)), help_heading = GUARD)]
    aggregation: Option<String>,
    /// Number of upper layers the guard looks at. If not given, 4, or all layers of a model with fewer.
    #[arg(long, alias = "num-hidden-layers-to-use", help_heading = GUARD)]
    guard_layers: Option<usize>,
    /// Dropout in the analyzer.
    #[arg(long, help_heading = GUARD)]
    guard_dropout: Option<f32>,
    /// Wanted difference between mean secure and vulnerable scores.
    #[arg(long, help_heading = GUARD)]
    margin: Option<f64>,
    /// Weight of the margin loss, or of SVEN's contrastive loss.
    #[arg(long, help_heading = GUARD)]
    security_weight: Option<f64>,
    /// Weight of the KL divergence to the base model.
    #[arg(long, help_heading = GUARD)]
    kl_weight: Option<f64>,
    /// Continue from a checkpoint: its folder, or `auto` for the newest of the run.
    #[arg(long, num_args = 0..=1, default_missing_value = "auto", help_heading = CHECKPOINTS)]
    resume_from_checkpoint: Option<String>,
    /// Optimiser steps between checkpoints; if not given, those of an epoch.
    #[arg(long, help_heading = CHECKPOINTS)]
    save_steps: Option<usize>,
    /// Checkpoints kept; the newest and the best are kept in any case.
    #[arg(long, help_heading = CHECKPOINTS)]
    save_total_limit: Option<usize>,
    /// MiB of a GPU's memory for the base model's hidden states, which are there if all of them fit; 0 for
    /// none. If not given, half of what training leaves free.
    #[arg(long, help_heading = MEMORY)]
    base_cache_device_mib: Option<usize>,
    /// MiB of the host's memory for the base model's hidden states that are not on a GPU; the rest goes to
    /// disk.
    #[arg(long, help_heading = MEMORY)]
    base_cache_mib: Option<usize>,
    /// What the backward pass recomputes; auto is as little as fits into memory.
    #[arg(long, value_parser = names(RecomputePolicy::ALL.map(RecomputePolicy::name)), help_heading = MEMORY)]
    recompute: Option<String>,
    /// Run folder.
    #[arg(long, short, alias = "output", help_heading = OUTPUT)]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) ranks: RanksArgs,
    /// How many GPUs of a machine share the base model, each of which keeps a part of every block: auto (all,
    /// if one has no room for the whole of it), off, or a number.
    #[arg(long, value_name = "auto|off|N", default_value_t, help_heading = RANKS)]
    #[serde(skip)]
    pub(super) shard_base: ShardBase,
}

/// What may be adapted.
fn target_names() -> [&'static str; 8] {
    let mut names = [TargetModules::ALL_LINEAR; 8];
    names[1..].copy_from_slice(&Projection::ALL.map(Projection::module));
    names
}

impl TrainArgs {
    /// Paths are written into the run's configuration, which is JSON.
    pub(super) fn require_text(&self) -> Result<()> {
        let paths =
            [("--data", &self.data), ("--val-data", &self.val_data), ("--output-dir", &self.output_dir)];
        for (flag, path) in paths {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                let found = path.display();
                return Err(Error::usage(format!(
                    "{flag}: expected a path in UTF-8, which the run's configuration can hold, found {found}; choose \
                     another name"
                ))
                .into());
            }
        }
        Ok(())
    }
}
