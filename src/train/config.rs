//! Hyper-parameters of a training run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, list};
use crate::guard::{Aggregation, GuardConfig};
use crate::model::activations::Recompute;
use crate::model::config::Config;
use crate::model::lora::{LoraConfig, MAX_RANK, TargetModules};
use crate::model::prefix::PrefixConfig;
use crate::train::data::OnBadRecord;
use crate::train::method::Method;
use crate::train::packing::Packing;
use crate::train::step::Objective;

/// Counts go up to this, so that products of two of them can be computed.
const MAX_COUNT: usize = 1 << 31;
/// Rows of a prefix go up to this.
const MAX_PREFIX: usize = 1024;
/// Fewest tokens of a sequence: one to predict, and one to predict it from.
const MIN_TOKENS: usize = 2;
/// Sequence lengths go up to this many tokens.
const MAX_TOKENS: usize = 1 << 20;

/// What the backward pass recomputes instead of keeping it from the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecomputePolicy {
    /// As little as fits into the device's free memory.
    #[default]
    Auto,
    /// Nothing: all activations are kept.
    Nothing,
    /// The gate and up projections.
    #[serde(alias = "gate_up")]
    GateUp,
    /// Whole blocks.
    Block,
}

impl RecomputePolicy {
    /// All policies.
    pub const ALL: [RecomputePolicy; 4] =
        [RecomputePolicy::Auto, RecomputePolicy::Nothing, RecomputePolicy::GateUp, RecomputePolicy::Block];

    /// The policy's name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            RecomputePolicy::Auto => "auto",
            RecomputePolicy::Nothing => "nothing",
            RecomputePolicy::GateUp => "gate-up",
            RecomputePolicy::Block => "block",
        }
    }

    /// What to try, the fastest first.
    pub fn candidates(self) -> &'static [Recompute] {
        match self {
            RecomputePolicy::Auto => &[Recompute::Nothing, Recompute::GateUp, Recompute::Block],
            RecomputePolicy::Nothing => &[Recompute::Nothing],
            RecomputePolicy::GateUp => &[Recompute::GateUp],
            RecomputePolicy::Block => &[Recompute::Block],
        }
    }
}

/// An option with a value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option's name, that of the field of [`TrainConfig`].
    pub option: &'static str,
    /// What was expected, and what was found.
    pub message: String,
}

/// Everything that decides a run. The defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Base model: a Hugging Face directory or hub id.
    pub model: String,
    /// Branch, tag or commit of a hub id; a run's folder holds the commit that was used.
    pub model_revision: Option<String>,
    /// How the adapter is trained. Options that the method [does not read](Method::unused_options) have no
    /// effect.
    pub method: Method,
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
    /// Micro-batches per optimiser step, whose pairs are this times `batch_size`.
    pub gradient_accumulation_steps: usize,
    /// Cuts a step's pairs into micro-batches of at most so many rows instead of `batch_size` pairs: tokens
    /// of the secure functions, and of the vulnerable ones after what both share.
    pub micro_batch_tokens: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradients.
    pub max_grad_norm: f64,
    /// Longest function in tokens; longer ones are cut. If not given, [`default_max_seq_len`] of the model's
    /// context.
    pub max_seq_len: Option<usize>,
    /// Seed of initial values, data order and dropout.
    pub seed: u64,
    /// LoRA rank.
    pub lora_r: usize,
    /// LoRA alpha.
    pub lora_alpha: f64,
    /// Dropout on the adapters' inputs.
    pub lora_dropout: f32,
    /// Adapted linear layers.
    pub target_modules: TargetModules,
    /// Rows of each of SVEN's prefixes.
    pub prefix_length: usize,
    /// Dropout on the prefixes.
    pub prefix_dropout: f32,
    /// How taps are aggregated.
    pub aggregation: Aggregation,
    /// Number of upper layers the guard looks at. If not given, 4, or all layers of a model with fewer.
    pub guard_layers: Option<usize>,
    /// Dropout in the analyzer.
    pub guard_dropout: f32,
    /// Wanted difference of the mean scores.
    pub margin: f64,
    /// Weight of the margin loss, or of SVEN's contrastive loss.
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
    /// MiB of a GPU's memory for the base model's hidden states, which are there if all of them fit; 0 for
    /// none. If not given, half of what training leaves free.
    pub base_cache_device_mib: Option<usize>,
    /// MiB of the host's memory for the base model's hidden states that are not on a GPU; what does not fit
    /// goes to disk.
    pub base_cache_mib: usize,
    /// What the backward pass recomputes.
    pub recompute: RecomputePolicy,
    /// Continue from a checkpoint: its folder, or `auto` for the newest of the run.
    pub resume_from_checkpoint: Option<String>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        let (guard, objective) = (GuardConfig::default(), Objective::default());
        TrainConfig {
            model: String::new(),
            model_revision: None,
            method: Method::default(),
            data: PathBuf::new(),
            val_data: None,
            on_bad_record: OnBadRecord::Error,
            val_fraction: 0.0,
            output_dir: PathBuf::from("runs/deepguard"),
            num_epochs: 5,
            max_steps: None,
            batch_size: 8,
            gradient_accumulation_steps: 2,
            micro_batch_tokens: None,
            learning_rate: 2e-5,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            max_seq_len: None,
            seed: objective.seed,
            lora_r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.1,
            target_modules: TargetModules::ByArchitecture,
            prefix_length: 5,
            prefix_dropout: 0.1,
            aggregation: guard.aggregation,
            guard_layers: None,
            guard_dropout: guard.dropout,
            margin: objective.margin,
            security_weight: objective.security_weight,
            kl_weight: objective.kl_weight,
            early_stop_patience: 3,
            eval_steps: None,
            save_steps: None,
            save_total_limit: 2,
            base_cache_device_mib: None,
            base_cache_mib: 1024,
            recompute: RecomputePolicy::Auto,
            resume_from_checkpoint: None,
        }
    }
}

impl TrainConfig {
    /// The defaults of a method: what was published for it, as far as it differs.
    pub fn of(method: Method) -> Self {
        let default = TrainConfig { method, ..TrainConfig::default() };
        match method {
            Method::Sven => TrainConfig {
                num_epochs: 8,
                batch_size: 1,
                gradient_accumulation_steps: 1,
                learning_rate: 1e-2,
                warmup_ratio: 0.0,
                security_weight: 4.0,
                kl_weight: 1.6,
                early_stop_patience: 0,
                ..default
            },
            // 50 steps of warm-up are published: a fortieth of eight epochs of the some 520 functions of
            // SVEN's training pairs that its filter keeps.
            Method::CoSec => TrainConfig {
                num_epochs: 8,
                batch_size: 1,
                gradient_accumulation_steps: 2,
                learning_rate: 5e-5,
                warmup_ratio: 0.025,
                lora_r: 8,
                lora_alpha: 16.0,
                lora_dropout: 0.05,
                early_stop_patience: 0,
                ..default
            },
            _ => default,
        }
    }

    /// All options whose values cannot be used, whatever the model.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.counts_out_of_range();
        problems.extend(self.numbers_out_of_range());
        if self.val_data.is_some() && self.val_fraction > 0.0 {
            let message = format!("expected 0 where val_data is given, found {}", self.val_fraction);
            problems.push(Problem { option: "val_fraction", message });
        }
        problems
    }

    fn counts_out_of_range(&self) -> Vec<Problem> {
        let ranges = [
            ("num_epochs", Some(self.num_epochs), (1, MAX_COUNT)),
            ("max_steps", self.max_steps, (1, MAX_COUNT)),
            ("batch_size", Some(self.batch_size), (1, MAX_COUNT)),
            ("gradient_accumulation_steps", Some(self.gradient_accumulation_steps), (1, MAX_COUNT)),
            ("micro_batch_tokens", self.micro_batch_tokens, (MIN_TOKENS, MAX_COUNT)),
            ("max_seq_len", self.max_seq_len, (MIN_TOKENS, MAX_TOKENS)),
            ("lora_r", Some(self.lora_r), (1, MAX_RANK)),
            ("prefix_length", Some(self.prefix_length), (1, MAX_PREFIX)),
            ("guard_layers", self.guard_layers, (1, MAX_COUNT)),
            ("eval_steps", self.eval_steps, (1, MAX_COUNT)),
            ("save_steps", self.save_steps, (1, MAX_COUNT)),
            ("save_total_limit", Some(self.save_total_limit), (1, MAX_COUNT)),
        ];
        let problem = |(option, value, (low, high)): (&'static str, Option<usize>, (usize, usize))| {
            let found = value.filter(|value| !(low..=high).contains(value))?;
            Some(Problem { option, message: format!("expected {low} to {high}, found {found}") })
        };
        ranges.into_iter().filter_map(problem).collect()
    }

    fn numbers_out_of_range(&self) -> Vec<Problem> {
        let ranges = [
            ("val_fraction", self.val_fraction, 0.0..=0.9),
            ("learning_rate", self.learning_rate, 0.0..=1.0),
            ("warmup_ratio", self.warmup_ratio, 0.0..=1.0),
            ("weight_decay", self.weight_decay, 0.0..=1.0),
            ("max_grad_norm", self.max_grad_norm, 1e-12..=f64::MAX),
            ("lora_alpha", self.lora_alpha, 0.0..=1e6),
            ("lora_dropout", f64::from(self.lora_dropout), 0.0..=0.99),
            ("prefix_dropout", f64::from(self.prefix_dropout), 0.0..=0.99),
            ("guard_dropout", f64::from(self.guard_dropout), 0.0..=0.99),
            ("margin", self.margin, 0.0..=1.0),
            ("security_weight", self.security_weight, 0.0..=1e6),
            ("kl_weight", self.kl_weight, 0.0..=1e6),
        ];
        let problem = |(option, found, range): (&'static str, f64, std::ops::RangeInclusive<f64>)| {
            let (low, high) = (range.start(), range.end());
            let message = || match *high {
                f64::MAX => format!("expected a number of at least {low:e}, found {found}"),
                _ => format!("expected a number from {low} to {high}, found {found}"),
            };
            (!range.contains(&found)).then(|| Problem { option, message: message() })
        };
        ranges.into_iter().filter_map(problem).collect()
    }

    /// Checks what no type can.
    ///
    /// # Errors
    /// Kind `Usage`, with all [`Self::problems`].
    pub fn validate(&self) -> Result<()> {
        refuse(&self.problems())
    }

    /// The configuration with values in place of the limits that depend on the model.
    ///
    /// # Errors
    /// Kind `Usage` for what goes beyond the model: training beyond the positions that it was made for would
    /// spoil it, quietly, and a guard has no more layers to look at than there are.
    pub fn for_model(&self, model: &Config) -> Result<TrainConfig> {
        let (prefix, layers) = (self.objective().prefix, model.num_hidden_layers);
        let longest_prefix = model.max_position_embeddings.saturating_sub(MIN_TOKENS);
        // One that is too long is reported itself, not as a limit of something else.
        let context = model.max_position_embeddings - if prefix > longest_prefix { 0 } else { prefix };
        let limits = [
            (
                "prefix_length",
                Some(prefix),
                longest_prefix,
                "rows, for a function to fit into the model's context",
            ),
            ("max_seq_len", self.max_seq_len, context, "tokens, the model's context"),
            ("guard_layers", self.guard_layers, layers, "layers, which the model has"),
        ];
        let beyond = limits.into_iter().filter_map(|(option, value, limit, what)| {
            let found = value.filter(|value| *value > limit)?;
            Some(Problem { option, message: format!("expected at most {limit} {what}, found {found}") })
        });
        refuse(&beyond.collect::<Vec<_>>())?;
        Ok(TrainConfig {
            max_seq_len: Some(self.max_seq_len.unwrap_or_else(|| default_max_seq_len(context))),
            guard_layers: self.guard().map(|guard| guard.layers.min(layers)),
            security_weight: self.objective().security_weight,
            kl_weight: self.objective().kl_weight,
            ..self.clone()
        })
    }

    /// The adapters' hyper-parameters for a base model.
    pub fn lora(&self, model: &Config) -> LoraConfig {
        LoraConfig {
            rank: self.lora_r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            targets: self.target_modules.for_model(model),
            ..LoraConfig::default_for(model)
        }
    }

    /// The prefixes' hyper-parameters.
    pub fn prefix(&self) -> PrefixConfig {
        PrefixConfig { len: self.prefix_length, dropout: self.prefix_dropout }
    }

    /// The guard's hyper-parameters; `None` for a method without a guard.
    pub fn guard(&self) -> Option<GuardConfig> {
        let layers = self.guard_layers.unwrap_or(GuardConfig::default().layers);
        let guard = GuardConfig { aggregation: self.aggregation, layers, dropout: self.guard_dropout };
        self.method.has_guard().then_some(guard)
    }

    /// How the pairs of a step are cut into micro-batches.
    pub fn packing(&self) -> Packing {
        self.micro_batch_tokens.map_or(Packing::Pairs(self.batch_size), Packing::Rows)
    }

    /// Pairs of an optimiser step.
    pub fn pairs_per_step(&self) -> usize {
        self.batch_size.saturating_mul(self.gradient_accumulation_steps)
    }

    /// The objective.
    pub fn objective(&self) -> Objective {
        let default = Objective::default();
        Objective {
            method: self.method,
            margin: self.margin,
            security_weight: match (self.method.weighs_security(), self.method.has_security()) {
                (true, _) => self.security_weight,
                (false, true) => 1.0,
                (false, false) => 0.0,
            },
            kl_weight: if self.method.has_kl() { self.kl_weight } else { 0.0 },
            prefix: if self.method.has_prefixes() { self.prefix_length } else { 0 },
            max_seq_len: self.max_seq_len.unwrap_or(default.max_seq_len),
            seed: self.seed,
            ..default
        }
    }
}

/// The limit of a function's tokens where none is given: the published 1024, or the model's context if that
/// is shorter.
pub fn default_max_seq_len(context: usize) -> usize {
    Objective::default().max_seq_len.min(context)
}

fn refuse(problems: &[Problem]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let lines = problems.iter().map(|Problem { option, message }| format!("`{option}`: {message}"));
    Err(Error::usage(list("options that cannot be used", lines)))
}
