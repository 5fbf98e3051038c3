//! Hyper-parameters of a training run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guard::{Aggregation, GuardConfig};
use crate::model::activations::Recompute;
use crate::model::config::Config;
use crate::model::lora::{LoraConfig, MAX_RANK, Projection};
use crate::train::data::OnBadRecord;
use crate::train::step::Objective;

/// Counts go up to this, so that products of two of them can be computed.
const MAX_COUNT: usize = 1 << 31;

/// Everything that decides a run. The defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Base model: a Hugging Face directory or hub id.
    pub model: String,
    /// Branch, tag or commit of a hub id; a run's folder holds the commit that was used.
    pub model_revision: Option<String>,
    /// Training pairs: a JSONL file or a folder of them.
    pub data: PathBuf,
    /// Validation pairs; the `val` split of `data` if there is one.
    pub val_data: Option<PathBuf>,
    /// What becomes of a record that cannot be used.
    pub on_bad_record: OnBadRecord,
    /// Where no validation pairs are given: the share of training pairs set aside.
    pub val_fraction: f64,
    /// Run folder.
    pub output_dir: PathBuf,
    /// Most passes over the training pairs.
    pub num_epochs: usize,
    /// Most optimiser steps; all of `num_epochs` if not given.
    pub max_steps: Option<usize>,
    /// Pairs per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per optimiser step.
    pub gradient_accumulation_steps: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradients.
    pub max_grad_norm: f64,
    /// Longest function in tokens; longer ones are cut.
    pub max_seq_len: usize,
    /// Seed of initial values, data order and dropout.
    pub seed: u64,
    /// LoRA rank.
    pub lora_r: usize,
    /// LoRA alpha.
    pub lora_alpha: f64,
    /// Dropout on the adapters' inputs.
    pub lora_dropout: f32,
    /// Adapted linear layers; by architecture if empty.
    pub target_modules: Vec<String>,
    /// How taps are aggregated: attention, average or last_layer.
    pub aggregation: String,
    /// Number of upper layers the guard looks at.
    pub guard_layers: usize,
    /// Dropout in the analyzer.
    pub guard_dropout: f32,
    /// Wanted difference of the mean scores.
    pub margin: f64,
    /// Weight of the margin loss.
    pub security_weight: f64,
    /// Weight of the KL divergence.
    pub kl_weight: f64,
    /// Epochs without a better validation loss after which to stop; 0 never stops.
    pub early_stop_patience: usize,
    /// Optimiser steps between evaluations; every epoch if not given.
    pub eval_steps: Option<usize>,
    /// Optimiser steps between checkpoints; every epoch if not given.
    pub save_steps: Option<usize>,
    /// Checkpoints kept.
    pub save_total_limit: usize,
    /// MiB of memory for the base model's hidden states; what does not fit goes to disk.
    pub base_cache_mib: usize,
    /// What the backward makes again: auto, nothing, gate-up or block.
    pub recompute: String,
    /// Continue from a checkpoint: its folder, or `auto` for the newest of the run.
    pub resume_from_checkpoint: Option<String>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        let (guard, objective) = (GuardConfig::default(), Objective::default());
        TrainConfig {
            model: String::new(),
            model_revision: None,
            data: PathBuf::new(),
            val_data: None,
            on_bad_record: OnBadRecord::Error,
            val_fraction: 0.0,
            output_dir: PathBuf::from("runs/deepguard"),
            num_epochs: 5,
            max_steps: None,
            batch_size: 8,
            gradient_accumulation_steps: 2,
            learning_rate: 2e-5,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            max_seq_len: objective.max_seq_len,
            seed: objective.seed,
            lora_r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.1,
            target_modules: Vec::new(),
            aggregation: guard.aggregation.name().to_owned(),
            guard_layers: guard.layers,
            guard_dropout: guard.dropout,
            margin: objective.margin,
            security_weight: objective.security_weight,
            kl_weight: objective.kl_weight,
            early_stop_patience: 3,
            eval_steps: None,
            save_steps: None,
            save_total_limit: 2,
            base_cache_mib: 1024,
            recompute: "auto".to_owned(),
            resume_from_checkpoint: None,
        }
    }
}

impl TrainConfig {
    /// Checks what no type can.
    pub fn validate(&self) -> Result<()> {
        let at_least_one = [
            ("num_epochs", self.num_epochs),
            ("batch_size", self.batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("lora_r", self.lora_r),
            ("guard_layers", self.guard_layers),
            ("save_total_limit", self.save_total_limit),
            ("max_steps", self.max_steps.unwrap_or(1)),
            ("eval_steps", self.eval_steps.unwrap_or(1)),
            ("save_steps", self.save_steps.unwrap_or(1)),
        ];
        if let Some((name, n)) = at_least_one.iter().find(|(_, n)| !(1..=MAX_COUNT).contains(n)) {
            return Err(Error::usage(format!("{name}: expected 1 to {MAX_COUNT}, found {n}")));
        }
        if self.lora_r > MAX_RANK {
            return Err(Error::usage(format!("lora_r: expected 1 to {MAX_RANK}, found {}", self.lora_r)));
        }
        if !(2..=1 << 20).contains(&self.max_seq_len) {
            let found = self.max_seq_len;
            return Err(Error::usage(format!(
                "max_seq_len: expected 2 to {} tokens, found {found}",
                1 << 20
            )));
        }
        let (dropout, guard_dropout) = (f64::from(self.lora_dropout), f64::from(self.guard_dropout));
        let ranges = [
            ("learning_rate", self.learning_rate, 0.0, 1.0),
            ("warmup_ratio", self.warmup_ratio, 0.0, 1.0),
            ("weight_decay", self.weight_decay, 0.0, 1.0),
            ("max_grad_norm", self.max_grad_norm, 1e-12, f64::MAX),
            ("lora_alpha", self.lora_alpha, 0.0, 1e6),
            ("lora_dropout", dropout, 0.0, 0.99),
            ("guard_dropout", guard_dropout, 0.0, 0.99),
            ("margin", self.margin, 0.0, 1.0),
            ("security_weight", self.security_weight, 0.0, 1e6),
            ("kl_weight", self.kl_weight, 0.0, 1e6),
            ("val_fraction", self.val_fraction, 0.0, 0.9),
        ];
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => {
                Err(Error::usage(format!("{name}: expected a number from {low} to {high}, found {value}")))
            }
            None => Ok(()),
        }
    }

    /// The adapters' hyper-parameters for a base model.
    pub fn lora(&self, model: &Config) -> Result<LoraConfig> {
        let default = LoraConfig::default_for(model);
        let named = self.target_modules.iter().map(|name| name.parse());
        let named = named.collect::<Result<BTreeSet<Projection>>>()?;
        let targets = if named.is_empty() { default.targets.clone() } else { named };
        Ok(LoraConfig {
            rank: self.lora_r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            targets,
            ..default
        })
    }

    /// The guard's hyper-parameters.
    pub fn guard(&self) -> Result<GuardConfig> {
        let aggregation: Aggregation = self.aggregation.parse()?;
        Ok(GuardConfig { aggregation, layers: self.guard_layers, dropout: self.guard_dropout })
    }

    /// The objective.
    pub fn objective(&self) -> Objective {
        Objective {
            margin: self.margin,
            security_weight: self.security_weight,
            kl_weight: self.kl_weight,
            max_seq_len: self.max_seq_len,
            seed: self.seed,
            ..Objective::default()
        }
    }

    /// The activation policies to try, the fastest first.
    pub fn recompute_policies(&self) -> Result<Vec<Recompute>> {
        Ok(match self.recompute.as_str() {
            "auto" => vec![Recompute::Nothing, Recompute::GateUp, Recompute::Block],
            "nothing" => vec![Recompute::Nothing],
            "gate-up" => vec![Recompute::GateUp],
            "block" => vec![Recompute::Block],
            other => {
                return Err(Error::usage(format!(
                    "recompute: expected auto, nothing, gate-up or block, found {other}"
                )));
            }
        })
    }
}
