//! A complete tiny model directory, training pairs and adapters, made anew for every test.
//!
//! Configuration and weights are those of `tests/golden/models`; the tokenizer is a small byte-level BPE.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::files::{OwnedTensor, write_safetensors};
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::config::Config;
use deepguard::model::lora::LoraConfig;
use deepguard::model::transformer::Transformer;
use deepguard::model::weights::Weights;
use deepguard::ops::philox::{philox, unit};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Id of `<|endoftext|>`, after 256 bytes and the merges.
pub const EOS: u32 = 300;

/// A temporary folder with `model/`, `data/train/pairs.jsonl` and `data/val/pairs.jsonl`.
pub struct Tiny {
    root: TempDir,
}

impl Tiny {
    /// `architecture` is `llama` or `qwen2`.
    pub fn new(architecture: &str) -> Self {
        let tiny = Tiny { root: tempfile::tempdir().unwrap() };
        let golden = golden().join("models").join(format!("{architecture}-tiny"));
        std::fs::create_dir(tiny.model()).unwrap();
        std::fs::copy(golden.join("model.safetensors"), tiny.model().join("model.safetensors")).unwrap();
        let mut config = read_json(&golden.join("config.json"));
        config["eos_token_id"] = json!(EOS);
        write_json(&tiny.model().join("config.json"), &config);
        write_json(&tiny.model().join("tokenizer.json"), &tokenizer());
        write_pairs(&tiny.path("data/train/pairs.jsonl"), 0..8);
        write_pairs(&tiny.path("data/val/pairs.jsonl"), 8..11);
        tiny
    }

    /// The model directory.
    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    /// Something in the temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The base model.
    pub fn load(&self) -> Transformer<Cpu> {
        Transformer::load(Cpu::new(), &self.model()).unwrap()
    }

    /// Changes `config.json`.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        edit_json(&self.model().join("config.json"), edit);
    }

    /// Changes the values of one tensor of the model.
    pub fn edit_tensor(&self, name: &str, edit: impl FnOnce(&mut [f32])) {
        edit_tensors(&self.model().join("model.safetensors"), |tensors| {
            edit(&mut tensors.iter_mut().find(|t| t.0 == name).unwrap().2);
        });
    }
}

/// The folder of golden files.
pub fn golden() -> PathBuf {
    crate::places::root().join("tests/golden")
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = read_json(path);
    edit(&mut value);
    write_json(path, &value);
}

/// A tensor of a file: name, shape and values.
pub type Tensor = (String, Vec<usize>, Vec<f32>);

/// Reads all tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> Vec<Tensor> {
    let weights = Weights::open_file(path).unwrap();
    let tensor = |name: &str| {
        let view = weights.tensor(name).unwrap();
        (name.to_owned(), view.shape().to_vec(), view.to_f32_vec())
    };
    weights.names().map(tensor).collect()
}

/// Writes tensors as F32.
pub fn write_tensors(path: &Path, tensors: &[Tensor]) {
    let owned = |(name, shape, values): &Tensor| (name.clone(), OwnedTensor::f32(shape, values));
    let owned: Vec<_> = tensors.iter().map(owned).collect();
    write_safetensors(path, &owned).unwrap();
}

/// Whether a tensor belongs to one of the first layers, or to none.
pub fn is_before(name: &str, layers: usize) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    layer.is_none_or(|layer| layer.parse::<usize>().expect("a layer's number") < layers)
}

/// Rewrites a safetensors file under another name first, because the old one may be mapped into memory.
pub fn edit_tensors(path: &Path, edit: impl FnOnce(&mut Vec<Tensor>)) {
    let mut tensors = read_tensors(path);
    edit(&mut tensors);
    let temporary = path.with_extension("new");
    write_tensors(&temporary, &tensors);
    std::fs::rename(temporary, path).unwrap();
}

/// Every file of a flat folder: name and content, sorted.
pub fn folder(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Copies a flat folder.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (name, content) in folder(from) {
        std::fs::write(to.join(name), content).unwrap();
    }
}

/// Adapter and guard with random values everywhere, so that nothing is hidden by a zero.
pub fn attached(config: &Config, seed: u64) -> Attached<Cpu> {
    let lora = LoraConfig::default_for(config).with(|o| {
        o.rank = 4;
        o.alpha = 8.0;
    });
    let mut attached = Attached::new(&Cpu::new(), config, lora, GuardConfig::default()).unwrap();
    initialize(&mut attached, seed);
    for (tensor, param) in attached.params.layout().params().to_vec().iter().enumerate() {
        let random = |i: usize| unit(philox(seed, [i as u32, 0, tensor as u32, 1])[0]) - 0.5;
        let mut values = attached.params.download(param).unwrap();
        values.iter_mut().enumerate().for_each(|(i, value)| *value += 0.1 * random(i));
        attached.params.upload(param, &values);
    }
    attached
        .stats
        .as_mut()
        .unwrap()
        .update((0..80).map(|t| t * 3), (0..40).flat_map(|t| [t * 5 + 1, t + 90, t + 95]));
    attached
}

/// Pair `i` of the data: a query built with string formatting, and with a bound parameter.
pub fn pair(i: usize) -> Value {
    let (table, column) = (["users", "orders", "teams"][i % 3], ["name", "email", "city", "owner"][i % 4]);
    let head = format!("def find_{table}_{i}(db, {column}):\n    rows = db.execute(");
    let query = format!("SELECT id FROM {table} WHERE {column} =");
    json!({
        "func_name": format!("find_{table}_{i}"),
        "func_src_before": format!("{head}\"{query} '%s'\" % {column})\n    return rows.fetchall()\n"),
        "func_src_after": format!("{head}\"{query} ?\", ({column},))\n    return rows.fetchall()\n"),
        "vul_type": "cwe-089",
    })
}

/// Writes pairs as a JSONL file.
pub fn write_pairs(path: &Path, numbers: std::ops::Range<usize>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lines: String = numbers.map(|i| format!("{}\n", pair(i))).collect();
    std::fs::write(path, lines).unwrap();
}

/// A `tokenizer.json`: 256 bytes, a few merges, one special token.
pub fn tokenizer() -> Value {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut vocab: Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let merges = [["Ġ", "Ġ"], ["e", "t"], ["r", "et"], ["Ġ", "ret"], ["d", "ef"], ["e", "f"]];
    for (i, pair) in merges.iter().enumerate() {
        vocab.insert(pair.concat(), (256 + i).into());
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": EOS, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                          "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    })
}
