//! What a run is made of before its first step: its data, its schedule, and what must not be mixed with it.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::tokenizer::Tokenizer;
use crate::model::transformer::Transformer;
use crate::ops::{Backend, Element};
use crate::train::batch::TokenPair;
use crate::train::checkpoint;
use crate::train::config::TrainConfig;
use crate::train::data::{TokenizedPairs, read_pairs, tokenize};
use crate::train::run_folder::FINAL_ADAPTER;
use crate::train::schedule::{LinearSchedule, epoch_order};

/// Training beyond the positions a model was made for would spoil it, quietly.
pub(super) fn check_context(config: &TrainConfig, model: &Config) -> Result<()> {
    let (wanted, limit) = (config.max_seq_len, model.max_position_embeddings);
    if wanted > limit {
        return Err(Error::usage(format!(
            "max_seq_len: expected at most the model's context of {limit} tokens, found {wanted}"
        )));
    }
    Ok(())
}

/// A new run in the folder of an earlier one would mix their checkpoints, or put its adapter in the place of a finished one.
pub(super) fn refuse_other_run(output_dir: &Path, spec: Option<&str>, resume: Option<&Path>) -> Result<()> {
    if resume.is_some_and(|dir| is_inside(dir, output_dir)) {
        return Ok(());
    }
    if let Some((_, found)) = checkpoint::list(output_dir).pop() {
        return Err(Error::usage(format!(
            "{} is a checkpoint of an earlier run: continue that run with --resume-from-checkpoint, or choose another \
             --output-dir",
            found.display()
        )));
    }
    let adapter = output_dir.join(FINAL_ADAPTER);
    // Whoever asks for the newest checkpoint knows that there may be none yet.
    if adapter.exists() && spec != Some("auto") {
        return Err(Error::usage(format!(
            "{} is the adapter of an earlier run: choose another --output-dir, or remove it",
            adapter.display()
        )));
    }
    Ok(())
}

/// Whether a checkpoint is one of the run in a folder.
pub(super) fn is_inside(checkpoint: &Path, run: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    canonical(checkpoint).is_some_and(|dir| dir.parent() == canonical(run).as_deref())
}

/// Training and validation pairs.
pub(super) fn load_data(
    config: &TrainConfig,
    tokenizer: &Tokenizer,
) -> Result<(TokenizedPairs, TokenizedPairs)> {
    let read = |path: &Path, split| read_pairs(path, split, config.on_bad_record);
    let (mut train, bad_train) = read(&config.data, "train")?;
    let inner = config.data.join("val");
    let (validation, bad_validation) = match &config.val_data {
        Some(path) => read(path, "val")?,
        None if inner.is_dir() => read(&inner, "val")?,
        None => {
            let order = epoch_order(train.len(), config.seed, usize::MAX);
            let held_out = (train.len() as f64 * config.val_fraction).round() as usize;
            let held_out = held_out.min(train.len() - 1);
            let validation = order[..held_out].iter().map(|&i| train[i].clone()).collect();
            train = order[held_out..].iter().map(|&i| train[i].clone()).collect();
            (validation, 0)
        }
    };
    let max_seq_len = config.max_seq_len;
    let mut train = tokenize(&train, tokenizer, max_seq_len)?;
    let mut validation = tokenize(&validation, tokenizer, max_seq_len)?;
    (train.bad_records, validation.bad_records) = (bad_train, bad_validation);
    if train.pairs.is_empty() {
        return Err(Error::data(format!(
            "{}: no pair is left within {max_seq_len} tokens ({} have identical halves there); raise --max-seq-len",
            config.data.display(),
            train.identical
        )));
    }
    // The base cache knows pairs by their number: validation pairs follow the training pairs.
    let first = train.pairs.iter().map(|p| p.id + 1).max().unwrap_or(0);
    validation.pairs.iter_mut().for_each(|pair| pair.id += first);
    Ok((train, validation))
}

/// Learning rates of a run over so many training pairs.
pub(super) fn schedule(config: &TrainConfig, pairs: usize) -> LinearSchedule {
    let all = pairs.div_ceil(config.batch_size * config.gradient_accumulation_steps) * config.num_epochs;
    let total_steps = config.max_steps.map_or(all, |most| most.min(all));
    let warmup_steps = (total_steps as f64 * config.warmup_ratio).round() as usize;
    LinearSchedule { peak: config.learning_rate, warmup_steps, total_steps }
}

/// Rows of hidden states of the base model that a run keeps: those of the secure functions that it sees.
pub(super) fn base_rows(config: &TrainConfig, train: &TokenizedPairs, validation: &TokenizedPairs) -> usize {
    let rows = |pair: &TokenPair| pair.secure.len();
    let seen = config.max_steps.map_or(usize::MAX, |steps| {
        steps.saturating_mul(config.batch_size * config.gradient_accumulation_steps)
    });
    let first = epoch_order(train.pairs.len(), config.seed, 0).into_iter().take(seen);
    first.map(|i| rows(&train.pairs[i])).sum::<usize>() + validation.pairs.iter().map(rows).sum::<usize>()
}

/// A hash of everything that decides the course of a run.
pub(super) fn fingerprint<B: Backend>(
    config: &TrainConfig,
    pairs: [&[TokenPair]; 2],
    model: &Transformer<B>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    // Where a run reads from and writes to, and how often it saves, does not change its course.
    let course = TrainConfig {
        model: String::new(),
        model_revision: None,
        data: Default::default(),
        val_data: None,
        output_dir: Default::default(),
        save_steps: None,
        save_total_limit: 0,
        base_cache_mib: 0,
        recompute: String::new(),
        resume_from_checkpoint: None,
        ..config.clone()
    };
    // Numbers of another device are other numbers.
    hasher.update(format!("{course:?} {:?} {}", model.config, B::Act::NAME).as_bytes());
    hasher.update(model.weights_hash().as_bytes());
    // A pair's number also tells training pairs from validation pairs.
    for pair in pairs.into_iter().flatten() {
        hasher.update(&pair.id.to_le_bytes());
        for tokens in [&pair.secure, &pair.vulnerable] {
            hasher.update(&tokens.len().to_le_bytes());
            hasher.update(bytemuck::cast_slice(tokens));
        }
    }
    hasher.finalize().to_hex().to_string()
}
