//! What decides the course of a run: options, pairs and base model. A checkpoint holds it, and a run goes on
//! from the checkpoint with the same only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::lora::TargetModules;
use crate::model::transformer::Transformer;
use crate::ops::{Backend, Element};
use crate::train::batch::TokenPair;
use crate::train::config::TrainConfig;
use crate::train::method::Method;
use crate::train::records::validation_path;

/// Where a run reads from and writes to, how often it saves and what it recomputes does not change its
/// course. Records that are left out are not among the pairs, which count by themselves.
const NEUTRAL: [&str; 12] = [
    "model",
    "model_revision",
    "data",
    "val_data",
    "on_bad_record",
    "output_dir",
    "save_steps",
    "save_total_limit",
    "base_cache_device_mib",
    "base_cache_mib",
    "recompute",
    "resume_from_checkpoint",
];

/// Characters of a hash that are shown.
const SHOWN: usize = 12;

/// Everything that decides the course of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Options by name, with their values.
    pub options: BTreeMap<String, Value>,
    /// Training pairs.
    pub training: PairsDigest,
    /// Validation pairs.
    pub validation: PairsDigest,
    /// The base model.
    pub model: ModelDigest,
    /// Type of activations: numbers of another device are other numbers.
    pub dtype: String,
}

/// Pairs of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsDigest {
    /// Where they were read from.
    pub path: String,
    /// How many there are.
    pub pairs: usize,
    /// BLAKE3 of their numbers and tokens and, for a method that reads them, of what the fixes changed.
    pub blake3: String,
}

/// A base model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDigest {
    /// What it is called on the command line.
    pub name: String,
    /// BLAKE3 of its configuration.
    pub config: String,
    /// BLAKE3 of its weights.
    pub weights: String,
}

impl Course {
    /// The course of a run with a configuration [for this model](TrainConfig::for_model). All weights are
    /// read for it.
    pub(super) fn new<B: Backend>(
        config: &TrainConfig,
        [training, validation]: [&[TokenPair]; 2],
        model: &Transformer<B>,
    ) -> Result<Self> {
        let given = validation_path(&config.data, config.val_data.as_deref());
        let validation_path = given.as_ref().unwrap_or(&config.data);
        let digest = |path: &Path, pairs| PairsDigest::new(path.display().to_string(), pairs, config.method);
        Ok(Course {
            options: options(config, model)?,
            training: digest(&config.data, training),
            validation: digest(validation_path, validation),
            model: ModelDigest {
                name: config.model.clone(),
                config: blake3::hash(format!("{:?}", model.config).as_bytes()).to_hex().to_string(),
                weights: model.weights_hash().to_hex().to_string(),
            },
            dtype: B::Act::NAME.to_owned(),
        })
    }

    /// Each difference to the course that the run would take `now`, with both values.
    pub(super) fn differences(&self, now: &Course) -> Vec<String> {
        let mut found = Vec::new();
        let names: BTreeSet<&String> = self.options.keys().chain(now.options.keys()).collect();
        for name in names {
            let [there, here] = [self, now].map(|course| course.options.get(name));
            if there != here {
                let [there, here] =
                    [there, here].map(|value| value.map_or("nothing".into(), Value::to_string));
                found.push(format!("{name}: {there} there, {here} here"));
            }
        }
        let splits = [
            ("training pairs", &self.training, &now.training),
            ("validation pairs", &self.validation, &now.validation),
        ];
        for (name, there, here) in splits {
            if (there.pairs, &there.blake3) != (here.pairs, &here.blake3) {
                found.push(format!("{name}: {} there, {} here", there.text(), here.text()));
            }
        }
        let (there, here) = (&self.model, &now.model);
        for (name, in_there, in_here) in
            [("configuration", &there.config, &here.config), ("weights", &there.weights, &here.weights)]
        {
            if in_there != in_here {
                found.push(format!(
                    "{name} of the base model: {} (BLAKE3 {}…) there, {} (BLAKE3 {}…) here",
                    there.name,
                    shown(in_there),
                    here.name,
                    shown(in_here)
                ));
            }
        }
        if self.dtype != now.dtype {
            found.push(format!("type of activations: {} there, {} here", self.dtype, now.dtype));
        }
        found
    }
}

/// The options that count. They are read from text, in which f32 values have no more digits than they need.
fn options<B: Backend>(config: &TrainConfig, model: &Transformer<B>) -> Result<BTreeMap<String, Value>> {
    let complain = || "a configuration as JSON".to_owned();
    let target_modules = TargetModules::Named(config.target_modules.for_model(&model.config));
    let text = serde_json::to_string(&TrainConfig { target_modules, ..config.clone() });
    let text = text.kind(ErrorKind::Internal, complain)?;
    let mut options: BTreeMap<String, Value> =
        serde_json::from_str(&text).kind(ErrorKind::Internal, complain)?;
    for name in NEUTRAL {
        options.remove(name).ok_or_else(|| Error::internal(format!("{name} is no option")))?;
    }
    Ok(options)
}

impl PairsDigest {
    fn new(path: String, pairs: &[TokenPair], method: Method) -> Self {
        let mut hasher = blake3::Hasher::new();
        for pair in pairs {
            hasher.update(&pair.id.to_le_bytes());
            for tokens in [&pair.secure, &pair.vulnerable] {
                hasher.update(&tokens.len().to_le_bytes());
                hasher.update(bytemuck::cast_slice(tokens));
            }
            // As many marks as tokens.
            let changes = pair.changes.iter().filter(|_| method.reads_changes());
            for marks in changes.flat_map(|changes| [&changes.secure, &changes.vulnerable]) {
                hasher.update(&marks.iter().map(|changed| u8::from(*changed)).collect::<Vec<u8>>());
            }
        }
        PairsDigest { path, pairs: pairs.len(), blake3: hasher.finalize().to_hex().to_string() }
    }

    fn text(&self) -> String {
        format!("{} of {} (BLAKE3 {}…)", self.pairs, self.path, shown(&self.blake3))
    }
}

fn shown(hash: &str) -> &str {
    hash.get(..SHOWN).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::changes::Changes;

    #[test]
    fn what_a_fix_changed_counts_for_a_method_that_reads_it() {
        let digest = |marks: [bool; 3], method| {
            let changes = Changes { secure: marks.to_vec(), vulnerable: vec![true, false] };
            let pair = TokenPair { changes: Some(changes), ..TokenPair::new(0, vec![1, 2, 3], vec![1, 4]) };
            PairsDigest::new("pairs".into(), &[pair], method).blake3
        };
        for method in Method::ALL {
            let same = digest([false, true, true], method) == digest([false, false, true], method);
            assert_eq!(same, !method.reads_changes(), "{method}");
        }
    }
}
