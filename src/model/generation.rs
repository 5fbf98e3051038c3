//! `generation_config.json` → [`GenerationConfig`]: what a model's files say about generating. Training and
//! scoring do not depend on it, so what is wrong with it is kept until something is generated.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use super::config::MAX_FILE_BYTES;
use super::fields::{CONFIG, GENERATION_CONFIG};
use super::json::Fields;
use crate::error::{Error, Result};

/// Published values lie between 1 and 2.
pub const PENALTY_RANGE: RangeInclusive<f64> = 1e-3..=1e3;

/// What a model's files say about generating.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Tokens that end a sample; empty if none is given.
    pub eos_token_ids: Vec<u32>,
    /// Divides the positive and multiplies the negative logits of tokens in prompt or sample; 1 leaves them.
    pub repetition_penalty: f32,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    pub begin_suppress_tokens: Vec<u32>,
    /// What the files suggest for sampling, where they ask for it.
    pub suggestion: Option<Suggestion>,
    /// What was found and not used; one sentence each.
    pub notes: Vec<String>,
    /// What cannot be computed or read; one message each.
    pub problems: Vec<String>,
}

/// How the files would have tokens drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Divides the logits.
    pub temperature: f64,
    /// Probability of the tokens kept.
    pub top_p: f64,
    /// Number of tokens kept; 0 keeps all.
    pub top_k: u64,
    /// Ways to cut that are not computed, with their values.
    pub others: Vec<String>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        GenerationConfig {
            eos_token_ids: Vec::new(),
            repetition_penalty: 1.0,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            suggestion: None,
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory, or the same fields of `config.json` where there
    /// is none, for a model of `vocab_size` tokens. What cannot be used becomes a problem, which
    /// [`GenerationConfig::check`] reports.
    pub fn from_dir(dir: &Path, vocab_size: usize) -> GenerationConfig {
        match read(dir) {
            Ok((fields, config)) => resolve(&fields, &config, vocab_size),
            Err(error) => GenerationConfig { problems: vec![error.to_string()], ..Default::default() },
        }
    }

    /// Whether all that the files ask for is computed here.
    ///
    /// # Errors
    /// Kind `Model`, naming file, field and value.
    pub fn check(&self) -> Result<()> {
        match self.problems.as_slice() {
            [] => Ok(()),
            problems => Err(Error::model(format!(
                "{}; remove the field, or set it to what is supported",
                problems.join("; ")
            ))),
        }
    }
}

/// The fields about generation, and `config.json`, whose end-of-text tokens count where the former name none.
fn read(dir: &Path) -> Result<(Fields, Fields)> {
    let config = match dir.join(CONFIG.file) {
        path if path.exists() => Fields::read(&path, &GENERATION_CONFIG, MAX_FILE_BYTES)?,
        _ => Fields::parse(CONFIG.file.to_owned(), &GENERATION_CONFIG, b"{}")?,
    };
    let path = dir.join(GENERATION_CONFIG.file);
    if !path.exists() {
        return Ok((config.clone(), config));
    }
    Ok((Fields::read(&path, &GENERATION_CONFIG, MAX_FILE_BYTES)?, config))
}

fn resolve(fields: &Fields, config: &Fields, vocab_size: usize) -> GenerationConfig {
    let mut out = GenerationConfig::default();
    out.problems.extend(fields.refusals().map(|refusal| refusal.to_string()));
    let ends = if fields.get("eos_token_id").is_some() { fields } else { config };
    out.eos_token_ids = out.tokens(ends, "eos_token_id", vocab_size);
    out.note_unusable_ends(ends, vocab_size);
    out.suppress_tokens = out.tokens(fields, "suppress_tokens", vocab_size);
    out.begin_suppress_tokens = out.tokens(fields, "begin_suppress_tokens", vocab_size);
    if let Some(penalty) = out.keep_problem(fields.number("repetition_penalty", PENALTY_RANGE)) {
        out.repetition_penalty = penalty as f32;
    }
    out.suggestion = suggestion(fields);
    // The reader of config.json names that file's unknown fields.
    out.notes.extend(fields.unknown().filter(|_| fields.label() != config.label()));
    out
}

impl GenerationConfig {
    fn keep_problem<T>(&mut self, read: Result<Option<T>>) -> Option<T> {
        read.unwrap_or_else(|problem| {
            self.problems.push(problem.to_string());
            None
        })
    }

    /// The tokens of the model that a field names; ids that are none are left out.
    fn tokens(&mut self, fields: &Fields, name: &str, vocab_size: usize) -> Vec<u32> {
        let ids = self.keep_problem(fields.token_ids(name)).unwrap_or_default();
        ids.into_iter().filter_map(|id| as_token(id, vocab_size)).collect()
    }

    /// End-of-text tokens that no row of the embedding is for cannot be generated.
    fn note_unusable_ends(&mut self, fields: &Fields, vocab_size: usize) {
        let Ok(Some(ids)) = fields.token_ids("eos_token_id") else { return };
        let beyond: Vec<String> =
            ids.iter().filter(|id| as_token(**id, vocab_size).is_none()).map(i64::to_string).collect();
        if beyond.is_empty() {
            return;
        }
        let fate = match self.eos_token_ids.is_empty() {
            true => "nothing ends a sample but the limit of new tokens",
            false => "the others end a sample",
        };
        self.notes.push(format!(
            "{}: eos_token_id: the vocabulary of {vocab_size} tokens has no {}; {fate}",
            fields.label(),
            beyond.join(", ")
        ));
    }
}

fn as_token(id: i64, vocab_size: usize) -> Option<u32> {
    u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size)
}

/// Ways to cut that are not computed, each with the value that switches it off.
const OTHER_CUTS: [(&str, f64); 5] =
    [("min_p", 0.0), ("typical_p", 1.0), ("epsilon_cutoff", 0.0), ("eta_cutoff", 0.0), ("top_h", 0.0)];

/// `None` where the files do not ask for sampling: what they say about it is then of no effect in
/// `transformers`.
fn suggestion(fields: &Fields) -> Option<Suggestion> {
    if fields.get("do_sample") != Some(&Value::Bool(true)) {
        return None;
    }
    let number = |name: &str| fields.get(name).and_then(Value::as_f64);
    let others = OTHER_CUTS.into_iter().filter_map(|(name, off)| {
        number(name).filter(|value| *value != off).map(|value| format!("{name} {value}"))
    });
    Some(Suggestion {
        // What transformers takes where nothing is said.
        temperature: number("temperature").unwrap_or(1.0),
        top_p: number("top_p").unwrap_or(1.0),
        top_k: fields.get("top_k").and_then(Value::as_u64).unwrap_or(50),
        others: others.collect(),
    })
}

impl Suggestion {
    /// A sentence about what differs from what is used, if anything does.
    pub fn beside(&self, temperature: f32, top_p: f32, top_k: usize) -> Option<String> {
        let same = |suggested: f64, used: f32| suggested as f32 == used;
        let equal = same(self.temperature, temperature)
            && same(self.top_p, top_p)
            && self.top_k == top_k as u64
            && self.others.is_empty();
        let others: String = self.others.iter().map(|other| format!(", {other}")).collect();
        (!equal).then(|| {
            format!(
                "the model suggests sampling with temperature {}, top_p {}, top_k {}{others}; used are temperature \
                 {temperature}, top_p {top_p}, top_k {top_k}",
                self.temperature, self.top_p, self.top_k
            )
        })
    }
}

#[cfg(test)]
mod tests;
