//! `sampling.json`: what the samples of a folder are samples of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SampleOptions;
use crate::decode::{CoDecoding, GenerateOptions};
use crate::error::{Result, at_most};
use crate::eval::differences::{Difference, differences};
use crate::files;

/// Version of that file.
pub(super) const FORMAT: u32 = 1;

/// Options that are others than before and are named.
const MAX_NAMED: usize = 20;

/// `sampling.json`: all that the bits of samples depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of this form.
    pub format: u32,
    /// Name of the method in tables.
    pub method: String,
    /// Name of the preset.
    pub preset: String,
    /// What is not as the preset's publication has it.
    pub differences: Vec<String>,
    /// BLAKE3 of the base model's weights.
    pub model: String,
    /// BLAKE3 of the adapter's files.
    pub adapter: Option<String>,
    /// BLAKE3 of the weights of the expert's base model, if an expert drafts that has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_model: Option<String>,
    /// BLAKE3 of the files of the expert's adapter, if an expert drafts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_adapter: Option<String>,
    /// What computed: its sums may be in another order elsewhere.
    pub device: String,
    /// Samples of every scenario.
    pub num_samples: usize,
    /// How tokens are chosen, option by option.
    pub generate: Map<String, Value>,
    /// Rules by which completions end.
    pub stop_rule: String,
    /// Whether prompts end in the middle of the indentation of the next line.
    pub open_indent: bool,
    /// BLAKE3 of all of the above.
    pub key: String,
    /// Ids of the scenarios, in the order of the samples.
    pub scenarios: Vec<String>,
    /// BLAKE3 of every scenario's prompt.
    pub prompts: BTreeMap<String, String>,
    /// Scenarios that cannot be sampled, with the reason.
    pub unsampled: BTreeMap<String, String>,
}

impl Settings {
    /// BLAKE3 of all that every sample depends on, but for prompts.
    pub(super) fn own_key(&self) -> Result<String> {
        let of_all = Settings {
            key: String::new(),
            scenarios: Vec::new(),
            prompts: BTreeMap::new(),
            unsampled: BTreeMap::new(),
            ..self.clone()
        };
        Ok(blake3::hash(files::json_text(&of_all)?.as_bytes()).to_hex().to_string())
    }

    /// Options by name that are others in `now`.
    pub(super) fn differences_from(&self, now: &Settings) -> Result<Vec<String>> {
        let mut found = differences(self, now)?;
        // The key only says that there is another difference.
        if found.len() > 1 {
            found.retain(|difference| difference.place != "key");
        }
        let named = |found: Difference| format!("{}: {} there, {} now", found.place, found.one, found.other);
        Ok(at_most(MAX_NAMED, found.into_iter().map(named)))
    }
}

/// What is not as the publication of the preset has it.
pub(super) fn deviations(options: &SampleOptions<'_>) -> Vec<String> {
    let (preset, generate) = (options.preset, &options.generate);
    let mut all: Vec<String> = preset.differences.iter().map(|&text| text.to_owned()).collect();
    for (name, there, here) in [
        ("num_samples", preset.num_samples as f64, generate.num_samples as f64),
        ("temperature", f64::from(preset.temperature), f64::from(generate.sampling.temperature)),
        ("top_p", f64::from(preset.top_p), f64::from(generate.sampling.top_p)),
        ("top_k", preset.top_k as f64, generate.sampling.top_k as f64),
        ("max_new_tokens", preset.max_new_tokens as f64, generate.max_new_tokens as f64),
    ] {
        if there != here {
            let [there, here] = [there, here].map(|value| value as f32);
            all.push(format!("{name} is {here}; the preset's is {there}."));
        }
    }
    if preset.guided && options.adapter.is_some() && !generate.guided {
        all.push("Decoding is not guided; the publication's is.".to_owned());
    }
    if options.open_indent {
        all.push("Prompts end in the middle of the indentation of the next line.".to_owned());
    }
    if let Some(limit) = options.limit {
        all.push(format!("Only the first {limit} scenarios are sampled."));
    }
    all
}

/// Every option of a generation that changes a sample.
pub(super) fn options_by_name(options: &GenerateOptions, expert: Option<CoDecoding>) -> Map<String, Value> {
    let GenerateOptions { sampling, .. } = options;
    let number =
        |value: f32| -> Value { value.to_string().parse::<f64>().unwrap_or(f64::from(value)).into() };
    let list = |tokens: &[u32]| -> Value {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.into()
    };
    let all = [
        ("max_new_tokens", options.max_new_tokens.into()),
        ("temperature", number(sampling.temperature)),
        ("top_p", number(sampling.top_p)),
        ("top_k", sampling.top_k.into()),
        ("seed", sampling.seed.into()),
        ("repetition_penalty", options.repetition_penalty.map(number).unwrap_or_default()),
        ("stop_tokens", list(&options.stop_tokens)),
        ("suppress_tokens", list(&options.suppress_tokens)),
        ("begin_suppress_tokens", list(&options.begin_suppress_tokens)),
        ("guided", options.guided.into()),
        ("guidance_strength", number(options.guidance_strength)),
        ("guidance_cap", options.guidance_cap.map(number).unwrap_or_default()),
        ("unguided_tokens", list(&options.unguided_tokens)),
        ("rescore_every", options.rescore_every.into()),
    ];
    let of_expert = expert.map(|expert| {
        [
            ("expert_temperature", number(expert.temperature)),
            ("expert_top_p", number(expert.top_p)),
            ("expert_threshold", number(expert.threshold)),
        ]
    });
    let all = all.into_iter().chain(of_expert.into_iter().flatten());
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}
