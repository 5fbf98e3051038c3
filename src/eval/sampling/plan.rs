//! What is to be sampled: the prompts of a suite as the model reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

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

/// What a rank has to know of a scenario to sample it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Prompt {
    pub(super) id: String,
    pub(super) language: Language,
    /// The prompt as the suite has it.
    pub(super) text: String,
    /// What is added to that; part of the completion.
    pub(super) opening: String,
    pub(super) request: Request,
}

/// What is to be sampled.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) samplable: Vec<Prompt>,
}

impl Plan {
    pub(super) fn new<B: Backend>(
        guard: &DeepGuard<B>,
        scenarios: &[&Scenario],
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
            let (id, language, text) = (id.clone(), scenario.meta.language, scenario.prompt.clone());
            samplable.push(Prompt { id, language, text, opening, request });
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
}

impl Settings {
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
        let differing = there.differences_from(self)?;
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

/// Places of the scenarios that have all of their samples in a file, in its order. The last one in the file
/// may have some only, where its writer was killed.
pub(super) fn whole_scenarios(
    prompts: &[Prompt],
    samples: usize,
    there: &[SampleLine],
    path: &Path,
) -> Result<Vec<usize>> {
    let (mut places, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, of_one) in there.chunks(samples).enumerate() {
        // Unless something was left out, they are in the order of the suite.
        let is_new = |place: &usize| seen.insert(*place);
        let place = prompts.iter().position(|prompt| prompt.id == of_one[0].id).filter(is_new);
        let expected = place.or((i < prompts.len()).then_some(i)).map(|place| &prompts[place].id);
        let is_right = |(number, line): &(usize, &SampleLine)| {
            place.is_some() && Some(&line.id) == expected && line.sample as usize == *number
        };
        if let Some((number, line)) = of_one.iter().enumerate().find(|found| !is_right(found)) {
            return Err(Error::data(format!(
                "{}: line {}: expected sample {number} of {}, found sample {} of {}; choose another --output-dir",
                path.display(),
                samples * i + number + 1,
                expected.map_or("nothing", String::as_str),
                line.sample,
                line.id
            )));
        }
        places.extend(place.filter(|_| of_one.len() == samples));
    }
    Ok(places)
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
