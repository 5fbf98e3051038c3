//! `config.json` → [`Config`]: everything the model code needs to know, resolved once. What the code does not compute
//! is refused by name here, so that no later layer has to ask.

use std::path::Path;

use serde_json::Value;

use super::fields::{CONFIG, GENERATION_CONFIG};
use super::json::Fields;
use super::rope::{self, RopeScaling};
use crate::error::Result;
use crate::ops::Dtype;

// Sanity limits. Each is several times the largest published dense model (hidden 16,384; intermediate 53,248; 126
// layers; 128 heads; vocabulary 262,144; context 10 M), so that none is in anybody's way, and small enough that the
// bytes of any matrix (at most 2^17 · 2^24 · 8 = 2^44) can be computed in `usize` without overflow and that the table
// of tensors stays below 13,000 rows.
const MAX_HIDDEN_SIZE: usize = 1 << 17;
const MAX_INTERMEDIATE_SIZE: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_HEAD_DIM: usize = 1 << 10;
const MAX_VOCAB_SIZE: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 27;

/// A `config.json` has about 1 kB; a tree of JSON values takes some 16 times its file.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// What Hugging Face assumes where no `rms_norm_eps` is given.
const DEFAULT_RMS_NORM_EPS: f64 = 1e-6;

/// The families of models whose computation is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
    /// `Qwen2ForCausalLM`.
    Qwen2,
}

impl Architecture {
    /// The family's `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
        }
    }
}

/// A resolved model configuration. Fields bear the names of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family of models.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even. `num_attention_heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are scaled.
    pub rope_scaling: RopeScaling,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head uses the embedding's matrix.
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj` and `v_proj` have a bias.
    pub attention_bias: bool,
    /// Storage type the checkpoint claims, if given; each tensor has its own, which counts.
    pub torch_dtype: Option<Dtype>,
}

impl Config {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// Kind `Model`, naming file and field: a file that is missing, too large or not JSON; a field that is missing,
    /// out of range, or asks for something this crate does not compute.
    pub fn from_dir(dir: &Path) -> Result<Config> {
        Config::with_notes(dir, &mut Vec::new())
    }

    /// [`Config::from_dir`]; `notes` get a sentence about what was not read.
    pub(super) fn with_notes(dir: &Path, notes: &mut Vec<String>) -> Result<Config> {
        let fields = Fields::read(&dir.join(CONFIG.file), &CONFIG, MAX_FILE_BYTES)?;
        let config = resolve(&fields)?;
        // What is for generation is read elsewhere.
        notes.extend(fields.unknown_beside(&GENERATION_CONFIG));
        Ok(config)
    }

    /// Resolves the text of a `config.json`.
    ///
    /// # Errors
    /// As [`Config::from_dir`].
    pub fn from_json(text: &str) -> Result<Config> {
        resolve(&Fields::parse(CONFIG.file.to_owned(), &CONFIG, text.as_bytes())?)
    }

    /// Width of all query heads together: rows of `q_proj`, columns of `o_proj`.
    pub fn q_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together: rows of `k_proj` and of `v_proj`.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The rotary angle per token, in radians, of the dimension pairs `(i, i + head_dim/2)`: `[head_dim / 2]`.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        rope::frequencies(self.head_dim, self.rope_theta, self.rope_scaling)
    }
}

fn resolve(fields: &Fields) -> Result<Config> {
    let architecture = architecture(fields)?;
    refuse_unsupported(fields)?;
    let hidden_size = fields.required_size("hidden_size", MAX_HIDDEN_SIZE)?;
    let (num_attention_heads, num_key_value_heads) = heads(fields)?;
    let (rope_theta, rope_scaling) = rope::resolve(fields, MAX_POSITIONS)?;
    Ok(Config {
        architecture,
        hidden_size,
        intermediate_size: fields.required_size("intermediate_size", MAX_INTERMEDIATE_SIZE)?,
        num_hidden_layers: fields.required_size("num_hidden_layers", MAX_LAYERS)?,
        num_attention_heads,
        num_key_value_heads,
        head_dim: head_dim(fields, hidden_size, num_attention_heads)?,
        vocab_size: fields.required_size("vocab_size", MAX_VOCAB_SIZE)?,
        // Published values are 1e-5 and 1e-6; the range is what an f32 holds without becoming 0.
        rms_norm_eps: fields.number("rms_norm_eps", 1e-30..=1.0)?.unwrap_or(DEFAULT_RMS_NORM_EPS) as f32,
        rope_theta,
        rope_scaling,
        max_position_embeddings: fields.required_size("max_position_embeddings", MAX_POSITIONS)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        attention_bias: attention_bias(fields, architecture)?,
        torch_dtype: torch_dtype(fields)?,
    })
}

/// `architectures` and `model_type` have to agree; one of them may be absent.
fn architecture(fields: &Fields) -> Result<Architecture> {
    const SUPPORTED: [(Architecture, &str); 2] =
        [(Architecture::Llama, "LlamaForCausalLM"), (Architecture::Qwen2, "Qwen2ForCausalLM")];
    let classes = fields.list("architectures")?;
    let model_type = fields.text("model_type")?;
    let told = classes.is_some() || model_type.is_some();
    SUPPORTED
        .into_iter()
        .filter(|(_, class)| told && classes.is_none_or(|list| matches!(list, [only] if only == class)))
        .map(|(architecture, _)| architecture)
        .find(|architecture| model_type.is_none_or(|found| found == architecture.model_type()))
        .ok_or_else(|| {
            let found = model_type.unwrap_or("none");
            let expected = "the supported LlamaForCausalLM (model_type llama) or Qwen2ForCausalLM (qwen2)";
            fields.unexpected("architectures", &format!("{expected}; model_type is {found}"))
        })
}

fn refuse_unsupported(fields: &Fields) -> Result<()> {
    if let Some(refusal) = fields.refusals().next() {
        return Err(refusal);
    }
    let full = |layer: &Value| layer == "full_attention";
    match fields.list("layer_types")? {
        Some(layers) if !layers.iter().all(full) => {
            Err(fields.unexpected("layer_types", "only the supported \"full_attention\""))
        }
        _ => Ok(()),
    }
}

/// `(num_attention_heads, num_key_value_heads)`.
fn heads(fields: &Fields) -> Result<(usize, usize)> {
    let heads = fields.required_size("num_attention_heads", MAX_HEADS)?;
    let kv_heads = fields.size("num_key_value_heads", MAX_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(
            fields.unexpected("num_key_value_heads", &format!("a divisor of num_attention_heads = {heads}"))
        );
    }
    Ok((heads, kv_heads))
}

fn head_dim(fields: &Fields, hidden_size: usize, heads: usize) -> Result<usize> {
    let head_dim = match fields.size("head_dim", MAX_HEAD_DIM)? {
        Some(given) => given,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(
                fields.unexpected("hidden_size", &format!("a multiple of num_attention_heads = {heads}"))
            );
        }
    };
    // Rotary embedding turns pairs of dimensions.
    if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
        let expected =
            format!("an even width of heads up to {MAX_HEAD_DIM}; {hidden_size} / {heads} where not given");
        return Err(fields.unexpected("head_dim", &expected));
    }
    Ok(head_dim)
}

/// Qwen2 has a bias on q, k and v by definition; the bias that a Llama may declare is also on `o_proj`.
fn attention_bias(fields: &Fields, architecture: Architecture) -> Result<bool> {
    let implemented = architecture == Architecture::Qwen2;
    match fields.flag("attention_bias")? {
        Some(asked) if asked != implemented => {
            Err(fields.unexpected("attention_bias", &format!("{implemented}, the only one supported here")))
        }
        _ => Ok(implemented),
    }
}

/// `torch_dtype`, which newer versions of `transformers` call `dtype`.
fn torch_dtype(fields: &Fields) -> Result<Option<Dtype>> {
    let name = if fields.get("torch_dtype").is_some() { "torch_dtype" } else { "dtype" };
    match fields.text(name)? {
        None => Ok(None),
        Some("float32") => Ok(Some(Dtype::F32)),
        Some("bfloat16") => Ok(Some(Dtype::Bf16)),
        Some("float16") => Ok(Some(Dtype::F16)),
        Some(_) => Err(fields.unexpected(name, "one of the supported float32, bfloat16, float16")),
    }
}

#[cfg(test)]
mod tests;
