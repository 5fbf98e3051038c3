//! The model, adapter and guard of a case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deepguard::attached::Attached;
use deepguard::guard::{Aggregation, GuardConfig};
use deepguard::model::params::Param;
use deepguard::model::{LoraConfig, Projection, Transformer};
use deepguard::ops::Backend;
use sha2::{Digest, Sha256};

use crate::golden_cases::case::{Case, Result, read_tensors};
use crate::places::root;

/// A loaded model and the initial values of what is trained.
pub struct Setup<B: Backend> {
    pub model: Transformer<B>,
    lora: LoraConfig,
    guard: GuardConfig,
    values: BTreeMap<String, Vec<f32>>,
}

impl<B: Backend> Setup<B> {
    pub fn new(backend: B, case: &Case) -> Result<Self> {
        let model = Transformer::load(backend, &model_dir(case)?)?;
        let targets = case.json["target_modules"].as_array().map_or(&[][..], Vec::as_slice);
        let targets: BTreeSet<Projection> = targets
            .iter()
            .map(|t| t.as_str().unwrap_or_default().parse())
            .collect::<deepguard::Result<_>>()?;
        let defaults = LoraConfig::default_for(&model.config);
        let lora = LoraConfig::default().with(|o| {
            o.rank = case.number(&["lora_rank"]).map_or(defaults.rank, |r| r as usize);
            o.alpha = case.number(&["lora_alpha"]).unwrap_or(defaults.alpha);
            o.dropout = 0.0;
            o.targets = if targets.is_empty() { defaults.targets } else { targets };
            o.use_rslora = false;
        });
        let layers = ["num_hidden_layers_to_use_requested", "num_hidden_layers_to_use"];
        let aggregation = case.text("aggregation_method").map_or(Ok(Aggregation::Attention), str::parse)?;
        let guard = GuardConfig::default().with(|o| {
            o.aggregation = aggregation;
            o.layers = layers.iter().find_map(|key| case.number(&[key])).map_or(4, |n| n as usize);
            o.dropout = 0.0;
        });
        let mut setup = Setup { model, lora, guard, values: BTreeMap::new() };
        setup.values = setup.initial_values(case)?;
        let used = setup.attached()?.taps();
        match case.number(&["num_hidden_layers_to_use"]) {
            Some(n) if n as usize != used => Err(format!("{n} layers are used, but {used} here").into()),
            _ => Ok(setup),
        }
    }

    /// The trainable parameters, at their initial values.
    pub fn attached(&self) -> Result<Attached<B>> {
        let model = &self.model;
        let mut attached = Attached::new(&model.backend, &model.config, self.lora.clone(), self.guard)?;
        let params = attached.params.layout().params().to_vec();
        for param in params.iter().filter(|_| !self.values.is_empty()) {
            let values = self.values.get(&param.name).ok_or_else(|| format!("{} is missing", param.name))?;
            if values.len() != param.range.len() {
                return Err(format!("{}: {} values for {:?}", param.name, values.len(), param.shape).into());
            }
            attached.params.upload(param, values);
        }
        Ok(attached)
    }

    /// Initial values of one parameter; none of one that the case has no values for.
    pub fn initial(&self, param: &Param) -> &[f32] {
        self.values.get(&param.name).map_or(&[], Vec::as_slice)
    }

    fn initial_values(&self, case: &Case) -> Result<BTreeMap<String, Vec<f32>>> {
        let mut values = match case.json.get("hash_init_rules") {
            Some(rules) => self.hashed_values(case, rules)?,
            None => stored_values(case)?,
        };
        let b_scale = case.number(&["lora_B_scale"]).unwrap_or(1.0) as f32;
        for (name, values) in values.iter_mut().filter(|(name, _)| name.contains("lora_B")) {
            assert!(name.ends_with(".weight"));
            values.iter_mut().for_each(|v| *v *= b_scale);
        }
        let overrides = case.tensors.iter().filter_map(|(k, v)| Some((k.strip_prefix("override/")?, v)));
        values.extend(overrides.map(|(name, tensor)| (name.to_owned(), tensor.f32())));
        self.refuse_unknown(&values)?;
        Ok(values)
    }

    /// A tensor that the files have and this model has not would be a part of the method that is not
    /// computed.
    fn refuse_unknown(&self, values: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let attached = self.attached()?;
        let known: BTreeSet<&str> =
            attached.params.layout().params().iter().map(|p| p.name.as_str()).collect();
        // The analyzer's file serves all aggregation methods.
        let unused = |name: &&String| !known.contains(name.as_str()) && !name.contains("layer_aggregator");
        match values.keys().find(unused) {
            Some(name) => Err(format!("{name} belongs to nothing that is computed").into()),
            None => Ok(()),
        }
    }

    fn hashed_values(&self, case: &Case, rules: &serde_json::Value) -> Result<BTreeMap<String, Vec<f32>>> {
        let attached = self.attached()?;
        let params = attached.params.layout().params().iter();
        let values: BTreeMap<String, Vec<f32>> = params
            .map(|p| Ok((p.name.clone(), hash_init(&p.name, p.range.len(), rules)?)))
            .collect::<Result<_>>()?;
        for (name, probe) in case.json["hash_init_probe"].as_object().into_iter().flatten() {
            let expected: Vec<f32> =
                probe.as_array().into_iter().flatten().filter_map(|v| v.as_f64()).map(|v| v as f32).collect();
            if values.get(name).is_none_or(|found| !found.starts_with(&expected)) {
                return Err(format!("{name}: the hash init does not begin with {expected:?}").into());
            }
        }
        Ok(values)
    }
}

fn stored_values(case: &Case) -> Result<BTreeMap<String, Vec<f32>>> {
    let lora = case.text("lora").ok_or("the case names no lora")?;
    let analyzer = case.text("analyzer").ok_or("the case names no analyzer")?;
    let mut tensors = read_tensors(&case.folder.join(lora).join("adapter_model.safetensors"))?;
    tensors.extend(read_tensors(&case.folder.join(analyzer))?);
    Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor.f32())).collect())
}

fn model_dir(case: &Case) -> Result<PathBuf> {
    let Some(expected) = case.text("model_safetensors_sha256") else {
        return Ok(case.folder.join(case.text("model").ok_or("the case names no model")?));
    };
    let dir = match std::env::var_os("DG_SMOLLM2_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => root().join("models/smollm2-135m"),
    };
    let path = dir.join("model.safetensors");
    if !path.exists() {
        return Err(format!(
            "this case needs SmolLM2-135M, and there is no {}: set DG_SMOLLM2_DIR to its Hugging Face directory",
            path.display()
        )
        .into());
    }
    let digest = Sha256::digest(std::fs::read(&path)?);
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if !found.eq_ignore_ascii_case(expected) {
        return Err(format!("{}: sha256 {found}, expected {expected}", path.display()).into());
    }
    Ok(dir)
}

/// Pseudo-random values that follow from a parameter's name: FNV-1a of the name, then SplitMix64 per element.
fn hash_init(name: &str, len: usize, rules: &serde_json::Value) -> Result<Vec<f32>> {
    let applies =
        |rule: &&serde_json::Value| rule["contains"].as_str().is_some_and(|part| name.contains(part));
    let rule = rules.as_array().and_then(|rules| rules.iter().find(applies));
    let rule = rule.ok_or_else(|| format!("no hash init rule for {name}"))?;
    let number = |key: &str| rule[key].as_f64().ok_or_else(|| format!("rule without {key} for {name}"));
    let (offset, scale) = (number("offset")? as f32, number("scale")? as f32);
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    Ok((1..=len as u64).map(|i| offset + scale * unit(hash, i)).collect())
}

/// In [-1, 1), exact in f32.
fn unit(hash: u64, i: u64) -> f32 {
    let z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let z = z ^ (z >> 31);
    ((z >> 40) as f32 - (1 << 23) as f32) / (1 << 23) as f32
}
