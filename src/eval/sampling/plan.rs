//! What is to be sampled: the prompts of a suite as the model reads them.

use std::collections::BTreeMap;
use std::path::Path;

use super::SampleOptions;
use super::settings::{FORMAT, Settings, deviations, options_by_name};
use crate::decode::{GenerateOptions, Request};
use crate::deepguard::DeepGuard;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::eval::lines::read;
use crate::eval::run::SAMPLING;
use crate::eval::samples::SampleLine;
use crate::eval::stop;
use crate::eval::suite::{Language, Scenario};
use crate::manifest;
use crate::ops::Backend;

/// A scenario with what the model reads.
pub(super) struct Prompt<'a> {
    pub(super) scenario: &'a Scenario,
    /// What is added to its prompt; part of the completion.
    pub(super) opening: String,
    pub(super) request: Request,
}

/// What is to be sampled.
pub(super) struct Plan<'a> {
    pub(super) settings: Settings,
    pub(super) samplable: Vec<Prompt<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new<B: Backend>(
        guard: &DeepGuard<B>,
        scenarios: &[&'a Scenario],
        options: &SampleOptions<'_>,
        generate: &GenerateOptions,
    ) -> Result<Self> {
        let context = guard.context();
        let (mut samplable, mut prompts, mut unsampled) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for scenario in scenarios {
            let id = &scenario.meta.id;
            let opening = if options.open_indent { opening(scenario) } else { String::new() };
            let text = format!("{}{opening}", scenario.prompt);
            prompts.insert(id.clone(), blake3::hash(text.as_bytes()).to_hex().to_string());
            let tokens = guard.tokenizer.encode_prompt(&text)?;
            if tokens.is_empty() || tokens.len() >= context {
                let reason = format!(
                    "its prompt has {} tokens; the context of {context} has no room for more",
                    tokens.len()
                );
                unsampled.insert(id.clone(), reason);
                continue;
            }
            let request = Request { prompt: tokens, seed: seed_of(generate.sampling.seed, id) };
            samplable.push(Prompt { scenario, opening, request });
        }
        let expert_model = guard.expert.as_ref().and_then(|expert| expert.model.as_ref());
        let mut settings = Settings {
            format: FORMAT,
            method: options.method.clone(),
            preset: options.preset.name.to_owned(),
            differences: deviations(options),
            model: guard.model.weights_hash().to_hex().to_string(),
            adapter: options.adapter.map(manifest::fingerprint).transpose()?,
            expert_model: expert_model.map(|model| model.weights_hash().to_hex().to_string()),
            expert_adapter: options.expert_adapter.map(manifest::fingerprint).transpose()?,
            device: guard.model.backend.description(),
            num_samples: generate.num_samples,
            generate: options_by_name(generate, guard.expert.as_ref().map(|expert| expert.options)),
            stop_rule: stop::RULE.to_owned(),
            open_indent: options.open_indent,
            key: String::new(),
            scenarios: scenarios.iter().map(|scenario| scenario.meta.id.clone()).collect(),
            prompts,
            unsampled,
        };
        settings.key = settings.own_key()?;
        Ok(Plan { settings, samplable })
    }

    /// Whether a folder has settings, which then have to be these.
    pub(super) fn is_begun(&self, folder: &Path, resume: bool) -> Result<bool> {
        let path = folder.join(SAMPLING);
        if !path.exists() {
            return Ok(false);
        }
        if !resume {
            return Err(Error::usage(format!(
                "{}: a run was begun here; go on with it with --resume, or choose another --output-dir",
                folder.display()
            )));
        }
        let complain = || format!("{}: expected what a run's samples are samples of", path.display());
        let there: Settings = serde_json::from_slice(&read(&path)?).kind(ErrorKind::Data, complain)?;
        let differing = there.differences_from(&self.settings)?;
        if differing.is_empty() {
            return Ok(true);
        }
        Err(Error::data(format!(
            "{}: the samples here are of something else: {}; choose another --output-dir",
            folder.display(),
            differing.join("; ")
        )))
    }
}

/// Scenarios at the beginning of the samples that are there that have all of theirs.
pub(super) fn whole_scenarios(
    prompts: &[Prompt<'_>],
    samples: usize,
    there: &[SampleLine],
    path: &Path,
) -> Result<usize> {
    for (i, line) in there.iter().enumerate() {
        let id = prompts.get(i / samples).map(|prompt| &prompt.scenario.meta.id);
        if id != Some(&line.id) || line.sample as usize != i % samples {
            return Err(Error::data(format!(
                "{}: line {}: expected sample {} of {}, found sample {} of {}; choose another --output-dir",
                path.display(),
                i + 1,
                i % samples,
                id.map_or("nothing", String::as_str),
                line.sample,
                line.id
            )));
        }
    }
    Ok(there.len() / samples)
}

/// What a scenario's random numbers depend on beside its samples and positions.
fn seed_of(seed: u64, id: &str) -> u64 {
    let hash = blake3::keyed_hash(blake3::hash(&seed.to_le_bytes()).as_bytes(), id.as_bytes());
    hash.as_bytes().first_chunk().map_or(seed, |bytes| u64::from_le_bytes(*bytes))
}

/// The line break and all but one space of the indentation of the function's next line: tokens of code begin
/// with a space, and a prompt that ends with its line invites prose. Nothing where it cannot be known.
fn opening(scenario: &Scenario) -> String {
    const STEP: usize = 4;
    let last = scenario.prompt.lines().last().unwrap_or_default();
    let indentation = last.len() - last.trim_start_matches(' ').len();
    let opens = match scenario.meta.language {
        Language::Python => last.trim_end().ends_with(':'),
        _ => last.trim_end().ends_with('{'),
    };
    let next = if opens { indentation + STEP } else { indentation };
    if next == 0 || last.starts_with('\t') { String::new() } else { format!("\n{}", " ".repeat(next - 1)) }
}
