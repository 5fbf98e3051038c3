//! The tensors of a model directory: `model.safetensors`, or shards named by `model.safetensors.index.json`,
//! mapped into memory and read in place. Nothing in a file is trusted: every offset is checked before a
//! [`Weights`] exists.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::TensorInfo;

use super::config::Config;
use crate::error::{Error, Result};
use crate::ops::{Dtype, TensorSpec, TensorView};

mod shard;

pub use shard::shard_names;

#[cfg(target_endian = "big")]
compile_error!(
    "safetensors files are little-endian and read in place: a big-endian machine is not supported"
);

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// All tensors of a model directory, by name.
#[derive(Clone, Debug)]
pub struct Weights {
    dir: PathBuf,
    tensors: BTreeMap<String, Entry>,
    notes: Vec<String>,
}

/// A tensor and where its bytes are.
#[derive(Clone, Debug)]
struct Entry {
    map: Arc<Mmap>,
    /// Offset in `map` from which the header counts.
    data_start: usize,
    info: TensorInfo,
}

impl Entry {
    /// Place of the tensor's bytes in `map`.
    fn range(&self) -> Range<usize> {
        let (start, end) = self.info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    fn bytes(&self) -> &[u8] {
        &self.map[self.range()]
    }

    /// The tensor in place.
    fn view(&self, name: &str) -> Result<TensorView> {
        TensorView::mapped(name, dtype(name, self.info.dtype)?, &self.info.shape, &self.map, self.range())
    }
}

/// The element type, if it is one that can be computed with.
fn dtype(name: &str, found: safetensors::Dtype) -> Result<Dtype> {
    match found {
        safetensors::Dtype::F32 => Ok(Dtype::F32),
        safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
        safetensors::Dtype::F16 => Ok(Dtype::F16),
        _ => Err(Error::model(format!("{name}: expected one of the types F32, BF16, F16, found {found:?}"))),
    }
}

impl Weights {
    /// Maps the weights of the model directory `dir`. Their files must not be changed while the result is in
    /// use.
    ///
    /// # Errors
    /// Kind `Model`, naming the file: nothing to open, a truncated or malformed file, or an index that does
    /// not agree with its shards.
    pub fn open(dir: &Path) -> Result<Weights> {
        let single = dir.join(SINGLE_FILE);
        let index = dir.join(INDEX_FILE);
        // With both present, `transformers` takes the single file as well.
        let mut notes = Vec::new();
        let tensors = if single.exists() {
            shard::open_file(&single)?
        } else if index.exists() {
            shard::open_index(&index, &mut notes)?
        } else {
            return Err(nothing_to_open(dir));
        };
        Ok(Weights { dir: dir.to_owned(), tensors, notes })
    }

    /// Maps one safetensors file, whatever it holds.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(path: &Path) -> Result<Weights> {
        Ok(Weights { dir: path.to_owned(), tensors: shard::open_file(path)?, notes: Vec::new() })
    }

    /// What was found in the index and not read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directory, or the single file, that they are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.range().len() as u64).sum()
    }

    /// BLAKE3 of names, types, shapes and elements of all tensors, however they are spread over files.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (name, entry) in &self.tensors {
            let TensorInfo { dtype, shape, .. } = &entry.info;
            hasher.update(format!("{name} {dtype:?} {shape:?}\n").as_bytes());
            hasher.update_rayon(entry.bytes());
        }
        hasher.finalize()
    }

    /// The tensor `name`, in place. (A file that puts it at an address not aligned for its type costs a
    /// copy.)
    ///
    /// # Errors
    /// Kind `Model`: no such tensor, or of a type other than F32, BF16 and F16.
    pub fn tensor(&self, name: &str) -> Result<TensorView> {
        match self.tensors.get(name) {
            Some(entry) => entry.view(name).map_err(|e| e.context(self.dir.display())),
            None => Err(Error::model(format!("{}: there is no tensor {name}", self.dir.display()))),
        }
    }

    /// Whether there is a head of its own although `config` ties it to the embedding: one that differs from
    /// it.
    pub fn has_own_head(&self, config: &Config) -> bool {
        let of = |name: &str| self.tensors.get(name).map(|entry| (entry.info.dtype, entry.bytes()));
        config.tie_word_embeddings && of(HEAD).is_some_and(|head| Some(head) != of(EMBEDDING))
    }

    /// Checks that these are exactly the tensors of a model with `config`: names, shapes and types.
    ///
    /// # Errors
    /// Kind `Model`, listing what is missing, misshapen, of an unsupported type, or unknown.
    pub fn check(&self, config: &Config) -> Result<()> {
        self.check_vocab_size(config)?;
        let expected = expected_tensors(config);
        let problems = [
            self.missing(&expected),
            self.misshapen(&expected),
            self.unsupported(&expected),
            self.unknown(&expected, config),
        ];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        if problems.is_empty() {
            return Ok(());
        }
        let dir = self.dir.display();
        Err(Error::model(format!("{dir}: the weights do not fit config.json: {}", problems.join("; "))))
    }

    /// The commonest misfit gets a message of its own.
    fn check_vocab_size(&self, config: &Config) -> Result<()> {
        match self.tensors.get(EMBEDDING).map(|entry| entry.info.shape.as_slice()) {
            Some(&[rows, _]) if rows != config.vocab_size => Err(Error::model(format!(
                "{}: config.json has vocab_size = {}, but {EMBEDDING} has {rows} rows",
                self.dir.display(),
                config.vocab_size
            ))),
            _ => Ok(()),
        }
    }

    fn missing(&self, expected: &[TensorSpec]) -> Option<String> {
        let names: Vec<_> =
            expected.iter().map(|spec| &spec.name).filter(|n| !self.tensors.contains_key(*n)).collect();
        let hint = match names.as_slice() {
            [.., last] if *last == HEAD => " (tie_word_embeddings is false)",
            _ => "",
        };
        Some(format!("missing: {}{hint}", shard::list(names.iter())?))
    }

    fn misshapen(&self, expected: &[TensorSpec]) -> Option<String> {
        let complaints = expected.iter().filter_map(|spec| {
            let found = &self.tensors.get(&spec.name)?.info.shape;
            (*found != spec.shape)
                .then(|| format!("{}: expected shape {:?}, found {found:?}", spec.name, spec.shape))
        });
        shard::list(complaints)
    }

    fn unsupported(&self, expected: &[TensorSpec]) -> Option<String> {
        let complaints = expected.iter().filter_map(|spec| {
            let entry = self.tensors.get(&spec.name)?;
            dtype(&spec.name, entry.info.dtype).err().map(|e| e.to_string())
        });
        shard::list(complaints)
    }

    fn unknown(&self, expected: &[TensorSpec], config: &Config) -> Option<String> {
        let known: HashSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
        let names = self.names().filter(|name| !known.contains(name) && !is_harmless(name, config));
        Some(format!("unknown: {}", shard::list(names)?))
    }
}

/// Extras that old exports contain: the rotary frequencies, which follow from the configuration, and a copy
/// of the embedding under the name of a tied head.
fn is_harmless(name: &str, config: &Config) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == HEAD)
}

fn nothing_to_open(dir: &Path) -> Error {
    let names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let there = |ends: &[&str]| names.iter().filter(|n| ends.iter().any(|end| n.ends_with(end))).min();
    let hint = match (there(PICKLES), there(&[".gguf"])) {
        (Some(name), _) => {
            format!("; {name} is there, but pickles are never read: convert it to safetensors first")
        }
        (None, Some(name)) => format!("; {name} is there: make a model directory of it with `dg-run import`"),
        (None, None) => String::new(),
    };
    let dir = dir.display();
    Error::model(format!("{dir}: expected {SINGLE_FILE} or {INDEX_FILE}, found neither{hint}"))
}

/// How the names of PyTorch's files end.
const PICKLES: &[&str] = &[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"];

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The tensors of a model with `config`, in the order of the computation; the head, if it has one of its own,
/// is last.
pub fn expected_tensors(config: &Config) -> Vec<TensorSpec> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut specs = vec![spec(EMBEDDING, &[vocab, hidden])];
    specs.extend((0..config.num_hidden_layers).flat_map(|layer| block_tensors(config, layer)));
    specs.push(spec("model.norm.weight", &[hidden]));
    if !config.tie_word_embeddings {
        specs.push(spec(HEAD, &[vocab, hidden]));
    }
    specs
}

fn block_tensors(config: &Config, layer: usize) -> Vec<TensorSpec> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.q_size(), config.kv_size());
    let bias = config.attention_bias;
    let rows: [(bool, &str, &[usize]); 12] = [
        (true, "input_layernorm.weight", &[hidden]),
        (true, "self_attn.q_proj.weight", &[q, hidden]),
        (bias, "self_attn.q_proj.bias", &[q]),
        (true, "self_attn.k_proj.weight", &[kv, hidden]),
        (bias, "self_attn.k_proj.bias", &[kv]),
        (true, "self_attn.v_proj.weight", &[kv, hidden]),
        (bias, "self_attn.v_proj.bias", &[kv]),
        (true, "self_attn.o_proj.weight", &[hidden, q]),
        (true, "post_attention_layernorm.weight", &[hidden]),
        (true, "mlp.gate_proj.weight", &[inner, hidden]),
        (true, "mlp.up_proj.weight", &[inner, hidden]),
        (true, "mlp.down_proj.weight", &[hidden, inner]),
    ];
    let present = rows.into_iter().filter(|(present, ..)| *present);
    present.map(|(_, name, shape)| spec(&format!("model.layers.{layer}.{name}"), shape)).collect()
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec() }
}

#[cfg(test)]
mod tests;
