//! Prefixes as PEFT's prefix tuning has them: a folder for each control, `prompt_embeddings` in it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    ADAPTER_CONFIG, ADAPTER_MODEL, check_names, expect_text, read_object, read_tensor, refuse_unsupported,
    whole_number,
};
use crate::attached::Attached;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{finite_tensor, write_json, write_safetensors};
use crate::model::config::Config;
use crate::model::fields;
use crate::model::prefix::{CONTROLS, PrefixConfig, PrefixTuning};
use crate::model::weights::Weights;
use crate::ops::Device;

/// PEFT's name of the tensor.
const EMBEDDINGS: &str = "prompt_embeddings";
/// PEFT's name of the method.
pub(super) const PEFT_TYPE: &str = "PREFIX_TUNING";
/// Most rows of a prefix.
const MOST_ROWS: f64 = 65536.0;

/// What names a model's shape in `adapter_config.json`, beside the length.
fn shape(model: &Config) -> [(&'static str, usize); 3] {
    let heads = model.heads();
    [
        ("token_dim", heads.kv_width()),
        ("num_attention_heads", heads.key_value),
        ("num_layers", model.num_hidden_layers),
    ]
}

fn config(prefix: &PrefixTuning, model: &Config, base_model: &str) -> Value {
    let mut config = json!({
        "peft_type": PEFT_TYPE,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": null,
        "inference_mode": true,
        "num_virtual_tokens": prefix.config.len,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": null,
        "prefix_projection": false,
    });
    for (name, value) in shape(model) {
        config[name] = value.into();
    }
    config
}

/// Writes each control's folder into `dir`, or the only control's files.
pub(super) fn save<D: Device>(
    dir: &Path,
    prefix: &PrefixTuning,
    attached: &Attached<D>,
    model: &Config,
    base_model: &str,
) -> Result<()> {
    for (name, param) in CONTROLS.iter().zip(&prefix.controls) {
        let folder = if prefix.controls.len() == 1 { dir.to_owned() } else { dir.join(name) };
        std::fs::create_dir_all(&folder)
            .kind(ErrorKind::Device, || format!("cannot make the folder {}", folder.display()))?;
        write_json(&folder.join(ADAPTER_CONFIG), &config(prefix, model, base_model))?;
        let values = finite_tensor(EMBEDDINGS, &param.shape, &attached.params.download(param)?)?;
        write_safetensors(&folder.join(ADAPTER_MODEL), &[values])?;
    }
    Ok(())
}

/// Reads the folders of the controls of a prefix adapter, or its only folder.
pub(super) fn load<D: Device>(device: &D, folders: &[&Path], model: &Config) -> Result<Attached<D>> {
    let lengths = folders.iter().map(|folder| length(&folder.join(ADAPTER_CONFIG), model));
    let lengths: Vec<usize> = lengths.collect::<Result<_>>()?;
    let len = lengths[0];
    if let Some((folder, other)) = folders.iter().zip(&lengths).find(|(_, other)| **other != len) {
        let path = folder.join(ADAPTER_CONFIG);
        return Err(Error::model(format!(
            "{}: num_virtual_tokens: expected {len}, as of the other control, found {other}",
            path.display()
        )));
    }
    let config = PrefixConfig { len, dropout: 0.0 };
    let mut attached = Attached::with_prefixes(device, model, config, folders.len())?;
    let params = attached.params.layout().params().to_vec();
    for (param, folder) in params.iter().zip(folders) {
        let file = folder.join(ADAPTER_MODEL);
        let weights = Weights::open_file(&file)?;
        check_names(&file, &weights, &[], &[EMBEDDINGS])?;
        let values = read_tensor(&weights, EMBEDDINGS, &param.shape);
        attached.params.upload(param, &values.map_err(|e| e.context(file.display()))?);
    }
    device.finish()?;
    Ok(attached)
}

/// Rows of the prefix that `path` describes, which must fit the model.
fn length(path: &Path, model: &Config) -> Result<usize> {
    let map = read_object(path)?;
    parse(&map, model).map_err(|e| e.context(path.display()))
}

fn parse(map: &Map<String, Value>, model: &Config) -> Result<usize> {
    refuse_unsupported(map, &fields::PREFIX_CONFIG)?;
    expect_text(map, "peft_type", PEFT_TYPE)?;
    expect_text(map, "task_type", "CAUSAL_LM")?;
    for (name, expected) in shape(model) {
        match map.get(name) {
            None | Some(Value::Null) => {}
            Some(found) if found.as_u64() == Some(expected as u64) => {}
            Some(found) => {
                return Err(Error::model(format!(
                    "{name}: expected {expected}, as the base model has it, found {found}"
                )));
            }
        }
    }
    let (len, context) = (whole_number(map, "num_virtual_tokens", MOST_ROWS)?, model.max_position_embeddings);
    match len < context {
        true => Ok(len),
        false => Err(Error::model(format!(
            "num_virtual_tokens: expected fewer than {context}, the base model's context, found {len}"
        ))),
    }
}
