//! Adapter folders: LoRA or prefixes in PEFT's format and, where one was trained, the guard beside it.
//!
//! `adapter_config.json` and `adapter_model.safetensors` are what PEFT reads and writes;
//! `deepguard_config.json` and `deepguard_model.safetensors` hold guard and token statistics, which PEFT
//! ignores. A folder without them is a plain adapter. That of SVEN's two prefixes has a folder for each.

mod folder;
mod prefix;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::attached::Attached;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{OwnedTensor, finite_tensor, write_json, write_safetensors};
use crate::guard::{Aggregation, EMBEDDING_WIDTH, GuardConfig, HIDDEN_WIDTHS, TokenSecurityStats};
use crate::manifest::{self, MANIFEST, Others};
use crate::model::config::Config;
use crate::model::fields::{self, Handling, Table};
use crate::model::json::read_bounded;
use crate::model::lora::{LoraConfig, MAX_RANK, Projection, TargetModules};
use crate::model::params::Param;
use crate::model::weights::Weights;
use crate::ops::Device;
pub use folder::{AdapterFolder, FINAL_ADAPTER};

/// PEFT's configuration file.
pub const ADAPTER_CONFIG: &str = fields::ADAPTER_CONFIG.file;
/// PEFT's weights file.
pub const ADAPTER_MODEL: &str = "adapter_model.safetensors";
/// The guard's configuration file.
pub const GUARD_CONFIG: &str = "deepguard_config.json";
/// The guard's weights file.
pub const GUARD_MODEL: &str = "deepguard_model.safetensors";

/// Name of the token statistics in the guard's weights file.
const STATS: &str = "token_security_stats";
/// Every LoRA tensor's name starts with this.
const LORA_PREFIX: &str = "base_model.model.";
/// Largest configuration file that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// `deepguard_config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardFile {
    format_version: u32,
    aggregation_method: String,
    num_hidden_layers_to_use: usize,
    model_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    vocab_size: usize,
    security_embedding_dim: usize,
    hidden_widths: [usize; 3],
    analyzer_dropout: f32,
}

/// Writes the adapters, and the guard if there is one, into the existing folder `dir`. `base_model` is noted
/// for PEFT as the name of the base model.
pub fn save<D: Device>(dir: &Path, attached: &Attached<D>, model: &Config, base_model: &str) -> Result<()> {
    if let Some(prefix) = &attached.prefix {
        return prefix::save(dir, prefix, attached, model, base_model);
    }
    let Some(lora) = &attached.lora else { return Err(Error::internal("an adapter without any part")) };
    let lora = &lora.config;
    write_json(&dir.join(ADAPTER_CONFIG), &peft_config(lora, base_model))?;
    let tensor = |p: &Param| finite_tensor(&p.name, &p.shape, &attached.params.download(p)?);
    let tensors = |of_lora: bool| -> Result<Vec<(String, OwnedTensor)>> {
        let params = attached.params.layout().params().iter();
        params.filter(|p| p.name.starts_with(LORA_PREFIX) == of_lora).map(tensor).collect()
    };
    write_safetensors(&dir.join(ADAPTER_MODEL), &tensors(true)?)?;
    let (Some(guard), Some(stats)) = (&attached.guard, &attached.stats) else { return Ok(()) };
    write_json(&dir.join(GUARD_CONFIG), &guard_file(&guard.config, model))?;
    let (mut tensors, stats) = (tensors(false)?, stats.values());
    tensors.push(finite_tensor(STATS, &[stats.len()], &stats)?);
    write_safetensors(&dir.join(GUARD_MODEL), &tensors)
}

/// About how many bytes an adapter folder takes.
pub fn written_bytes<D: Device>(attached: &Attached<D>) -> u64 {
    // Bytes of a tensor's entry in the header of its file, the name left out.
    const ENTRY: usize = 80;
    // Bytes of all files without tensors.
    const OTHERS: usize = 4096;
    let layout = attached.params.layout();
    let headers: usize = layout.params().iter().map(|p| p.name.len() + ENTRY).sum();
    let stats = attached.stats.as_ref().map_or(0, |stats| stats.values().len());
    let values = layout.parameter_count() + stats;
    (size_of::<f32>() * values + headers + OTHERS) as u64
}

/// Reads an adapter folder for `model`, with its guard if it has one. Every expected tensor must be there in
/// its shape, and no other; where there is a manifest, every file must be as it was committed.
pub fn load<D: Device>(device: &D, dir: &Path, model: &Config) -> Result<Attached<D>> {
    if dir.join(MANIFEST).is_file() {
        manifest::verify(dir, Others::Ignored).map_err(|e| {
            e.advice(format_args!(
                "use another copy of the adapter, or, if you changed it, delete its {MANIFEST}"
            ))
        })?;
    }
    load_verified(device, dir, model)
}

/// [`load`] for a folder whose manifest has been checked.
pub(crate) fn load_verified<D: Device>(device: &D, dir: &Path, model: &Config) -> Result<Attached<D>> {
    let folder = AdapterFolder::at(dir)?;
    let controls = folder.controls();
    if !controls.is_empty() {
        let folders: Vec<&Path> = controls.iter().map(PathBuf::as_path).collect();
        return prefix::load(device, &folders, model);
    }
    if is_prefix(&read_object(&dir.join(ADAPTER_CONFIG))?) {
        return prefix::load(device, &[dir], model);
    }
    let lora = read_peft_config(&dir.join(ADAPTER_CONFIG))?;
    let guard = folder.has_guard().then(|| read_guard_config(&dir.join(GUARD_CONFIG), model)).transpose()?;
    let mut attached = Attached::new(device, model, lora, guard)?;
    let params: Vec<Param> = attached.params.layout().params().to_vec();
    let (of_lora, of_guard): (Vec<&Param>, Vec<&Param>) =
        params.iter().partition(|p| p.name.starts_with(LORA_PREFIX));
    upload(&mut attached, &dir.join(ADAPTER_MODEL), &of_lora, &[])?;
    if folder.has_guard() {
        let weights = upload(&mut attached, &dir.join(GUARD_MODEL), &of_guard, &[STATS])?;
        let stats = read_tensor(&weights, STATS, &[model.vocab_size])?;
        attached.stats = Some(TokenSecurityStats::from_values(&stats));
    }
    device.finish()?;
    Ok(attached)
}

/// Fills `params` from the tensors of `file`, which has these, `others` and no more.
fn upload<D: Device>(
    attached: &mut Attached<D>,
    file: &Path,
    params: &[&Param],
    others: &[&str],
) -> Result<Weights> {
    let weights = Weights::open_file(file)?;
    check_names(file, &weights, params, others)?;
    for param in params {
        let values = read_tensor(&weights, &param.name, &param.shape);
        attached.params.upload(param, &values.map_err(|e| e.context(file.display()))?);
    }
    Ok(weights)
}

/// Reads only the token statistics of an adapter folder.
pub fn read_stats(dir: &Path) -> Result<TokenSecurityStats> {
    let weights = Weights::open_file(&dir.join(GUARD_MODEL))?;
    let shape = weights.tensor(STATS)?.shape().to_vec();
    Ok(TokenSecurityStats::from_values(&read_tensor(&weights, STATS, &shape)?))
}

fn read_tensor(weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let tensor = weights.tensor(name)?;
    if tensor.shape() != shape {
        return Err(Error::model(format!(
            "{name}: expected shape {shape:?}, found {:?}; the adapter belongs to another base model or another \
             configuration",
            tensor.shape()
        )));
    }
    let values = tensor.to_f32_vec();
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::model(format!("{name}: element {at} is {}, not a finite number", values[at]))),
        None => Ok(values),
    }
}

/// Strict: a missing or unknown tensor is an error that names it.
fn check_names(path: &Path, weights: &Weights, params: &[&Param], others: &[&str]) -> Result<()> {
    let expected: BTreeSet<&str> =
        params.iter().map(|p| p.name.as_str()).chain(others.iter().copied()).collect();
    let found: BTreeSet<&str> = weights.names().collect();
    let list = |names: Vec<&&str>| {
        let shown: Vec<&str> = names.iter().take(5).map(|n| **n).collect();
        let more = names.len().saturating_sub(5);
        if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
    };
    let missing: Vec<&&str> = expected.difference(&found).collect();
    let unknown: Vec<&&str> = found.difference(&expected).collect();
    if missing.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!(
            "{} of {} tensors are missing: {}",
            missing.len(),
            expected.len(),
            list(missing)
        ));
    }
    if !unknown.is_empty() {
        problems.push(format!("{} tensors are unknown: {}", unknown.len(), list(unknown)));
    }
    Err(Error::model(format!("{}: {}", path.display(), problems.join("; "))))
}

/// The shortest decimal that reads as `x` again: 0.1, not 0.10000000149011612.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn peft_config(lora: &LoraConfig, base_model: &str) -> Value {
    let targets: Vec<&str> = lora.targets.iter().map(|t| t.module()).collect();
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": null,
        "inference_mode": true,
        "r": lora.rank,
        // PEFT writes whole numbers as integers.
        "lora_alpha": if lora.alpha.fract() == 0.0 { json!(lora.alpha as i64) } else { json!(lora.alpha) },
        "lora_dropout": decimal(lora.dropout),
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "modules_to_save": null,
        "use_rslora": lora.use_rslora,
        "use_dora": false,
        "init_lora_weights": true,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}

/// Ways to draw initial values that leave the base model as it is. (Others, such as PiSSA, change it, and the
/// adapter then belongs to the changed one.)
const PEFT_INIT: &[&str] = &["default", "gaussian", "orthogonal", "eva"];

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(&read_bounded(path, MAX_CONFIG_BYTES)?)
        .kind(ErrorKind::Model, || format!("{} is not a JSON object", path.display()))
}

fn read_peft_config(path: &Path) -> Result<LoraConfig> {
    let map = read_object(path)?;
    parse_peft_config(&map).map_err(|e| e.context(path.display()))
}

/// Whether a configuration is one of prefix tuning.
fn is_prefix(map: &Map<String, Value>) -> bool {
    map.get("peft_type").and_then(Value::as_str) == Some(prefix::PEFT_TYPE)
}

fn expect_text(map: &Map<String, Value>, name: &str, expected: &str) -> Result<()> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(found)) if found == expected => Ok(()),
        Some(found) => Err(Error::model(format!("{name}: expected \"{expected}\", found {found}"))),
    }
}

fn number(map: &Map<String, Value>, name: &str, low: f64, high: f64) -> Result<f64> {
    match map.get(name).and_then(Value::as_f64) {
        Some(value) if (low..=high).contains(&value) => Ok(value),
        _ => {
            let found = map.get(name).map_or("nothing".to_owned(), Value::to_string);
            Err(Error::model(format!("{name}: expected a number from {low} to {high}, found {found}")))
        }
    }
}

/// A number of at least 1.
fn whole_number(map: &Map<String, Value>, name: &str, high: f64) -> Result<usize> {
    let value = number(map, name, 1.0, high)?;
    if value.fract() != 0.0 {
        return Err(Error::model(format!("{name}: expected a whole number, found {value}")));
    }
    Ok(value as usize)
}

fn parse_peft_config(map: &Map<String, Value>) -> Result<LoraConfig> {
    refuse_unsupported(map, &fields::ADAPTER_CONFIG)?;
    expect_text(map, "peft_type", "LORA")?;
    expect_text(map, "task_type", "CAUSAL_LM")?;
    expect_text(map, "bias", "none")?;
    let number = |name: &str, low: f64, high: f64| number(map, name, low, high);
    let rank = whole_number(map, "r", MAX_RANK as f64)?;
    let use_rslora = match map.get("use_rslora") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(found) => {
            return Err(Error::model(format!("use_rslora: expected true or false, found {found}")));
        }
    };
    match map.get("init_lora_weights") {
        Some(Value::String(way)) if !PEFT_INIT.contains(&way.as_str()) => {
            return Err(Error::model(format!(
                "init_lora_weights = \"{way}\" is not supported: it changes the base model's weights"
            )));
        }
        _ => {}
    }
    let dropout = if map.contains_key("lora_dropout") { number("lora_dropout", 0.0, 0.999)? } else { 0.0 };
    Ok(LoraConfig {
        rank,
        alpha: number("lora_alpha", -1e9, 1e9)?,
        dropout: dropout as f32,
        targets: parse_targets(map.get("target_modules"))?,
        use_rslora,
    })
}

fn parse_targets(value: Option<&Value>) -> Result<BTreeSet<Projection>> {
    let wrong = |found: &str| {
        Error::model(format!(
            "target_modules: expected a list of linear layers or \"all-linear\", found {found}"
        ))
    };
    match value {
        Some(Value::String(all)) if all == TargetModules::ALL_LINEAR => {
            Ok(Projection::ALL.into_iter().collect())
        }
        Some(Value::Array(names)) if !names.is_empty() => names
            .iter()
            .map(|name| {
                let name = name.as_str().ok_or_else(|| wrong(&name.to_string()))?;
                name.parse().map_err(|e: Error| Error::model(format!("target_modules: {e}")))
            })
            .collect(),
        other => Err(wrong(&other.map_or("nothing".to_owned(), Value::to_string))),
    }
}

/// What we do not know must be off: an adapter is never applied otherwise than it was trained.
fn refuse_unsupported(map: &Map<String, Value>, table: &Table) -> Result<()> {
    let refused = |name: &str, value: &Value| {
        let handling = table.handling(name).unwrap_or(Handling::Refused(fields::OFF));
        handling.refusal(value).is_some()
    };
    match map.iter().find(|(name, value)| refused(name, value)) {
        Some((name, value)) => {
            Err(Error::model(format!("{name} = {value} is not supported: expected an adapter without it")))
        }
        None => Ok(()),
    }
}

fn guard_file(guard: &GuardConfig, model: &Config) -> GuardFile {
    GuardFile {
        format_version: 1,
        aggregation_method: guard.aggregation.name().to_owned(),
        num_hidden_layers_to_use: guard.layers,
        model_type: model.architecture.model_type().to_owned(),
        num_hidden_layers: model.num_hidden_layers,
        hidden_size: model.hidden_size,
        vocab_size: model.vocab_size,
        security_embedding_dim: EMBEDDING_WIDTH,
        hidden_widths: HIDDEN_WIDTHS,
        analyzer_dropout: guard.dropout,
    }
}

fn read_guard_config(path: &Path, model: &Config) -> Result<GuardConfig> {
    let map = Value::Object(read_object(path)?);
    let file: GuardFile = serde_json::from_value(map)
        .kind(ErrorKind::Model, || format!("{} is not a guard's configuration", path.display()))?;
    let expected =
        GuardFile { aggregation_method: String::new(), ..guard_file(&GuardConfig::default(), model) };
    // What the file says of its format and its base model.
    let identity = |f: &GuardFile| {
        json!({
            "format_version": f.format_version, "model_type": f.model_type,
            "num_hidden_layers": f.num_hidden_layers, "hidden_size": f.hidden_size, "vocab_size": f.vocab_size,
            "security_embedding_dim": f.security_embedding_dim, "hidden_widths": f.hidden_widths,
        })
    };
    let (found, wanted) = (identity(&file), identity(&expected));
    if found != wanted {
        return Err(Error::model(format!(
            "{}: expected {wanted} for this base model, found {found}; use the base model it was trained on",
            path.display()
        )));
    }
    let aggregation: Aggregation = file
        .aggregation_method
        .parse()
        .map_err(|e: Error| Error::model(format!("{}: {e}", path.display())))?;
    if !(0.0..1.0).contains(&file.analyzer_dropout) || file.num_hidden_layers_to_use == 0 {
        return Err(Error::model(format!(
            "{}: expected a dropout in [0, 1) and at least 1 layer, found {} and {}",
            path.display(),
            file.analyzer_dropout,
            file.num_hidden_layers_to_use
        )));
    }
    Ok(GuardConfig { aggregation, layers: file.num_hidden_layers_to_use, dropout: file.analyzer_dropout })
}
