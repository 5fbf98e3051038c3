//! The architectures that can be imported: hyperparameters from GGUF keys, `config.json`, and the table of
//! tensors that such a model has.

use super::ImportDtype;
use super::metadata::Metadata;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// No axis or count of a real model is larger; products of two stay far from overflow.
const MAX_DIMENSION: u64 = 1 << 24;

/// A supported model family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
}

impl Architecture {
    pub(super) fn read(metadata: &Metadata<'_>) -> Result<Self> {
        match metadata.need("general.architecture")? {
            "llama" => Ok(Architecture::Llama),
            "qwen2" => Ok(Architecture::Qwen2),
            other => Err(Error::model(format!(
                "architecture: expected `llama` or `qwen2`, found `{other}`; import a model of one of these families"
            ))),
        }
    }

    /// The name in GGUF and in `config.json`'s `model_type`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
        }
    }
}

/// The hyperparameters, under their Hugging Face names.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) architecture: Architecture,
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: u64,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    /// The factor of linear rope scaling.
    rope_scaling: Option<f64>,
    tie_word_embeddings: bool,
}

/// One tensor that the model must have.
#[derive(Debug)]
pub(super) struct TensorSpec {
    pub(super) gguf_name: String,
    pub(super) name: String,
    /// Slowest axis first.
    pub(super) shape: Vec<usize>,
    /// The number of heads whose rows llama.cpp interleaved, for the q and k projections of llama.
    pub(super) interleaved_heads: Option<usize>,
}

impl Config {
    /// Reads and checks the hyperparameters; `tied` says that the file has no output projection of its own.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] for an architecture or a hyperparameter that cannot be imported, by name.
    pub(super) fn read(metadata: &Metadata<'_>, tied: bool) -> Result<Self> {
        let architecture = Architecture::read(metadata)?;
        let keys = Keys { metadata, prefix: architecture.name() };
        let config = Config {
            architecture,
            vocab_size: vocab_size(&keys)?,
            max_position_embeddings: keys.metadata.need(&keys.key("context_length"))?,
            num_hidden_layers: keys.dimension("block_count")?,
            hidden_size: keys.dimension("embedding_length")?,
            intermediate_size: keys.dimension("feed_forward_length")?,
            num_attention_heads: keys.dimension("attention.head_count")?,
            num_key_value_heads: keys.dimension_or("attention.head_count_kv", "attention.head_count")?,
            head_dim: head_dim(&keys)?,
            rms_norm_eps: keys.positive("attention.layer_norm_rms_epsilon")?,
            rope_theta: rope_theta(&keys)?,
            rope_scaling: rope_scaling(&keys)?,
            tie_word_embeddings: tied,
        };
        config.check_heads()?;
        Ok(config)
    }

    fn check_heads(&self) -> Result<()> {
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        if heads.is_multiple_of(groups) && self.head_dim.is_multiple_of(2) {
            return Ok(());
        }
        Err(Error::model(format!(
            "attention: expected key-value heads that divide the heads and an even head size, found {heads} heads, \
             {groups} key-value heads of size {}; convert the model again",
            self.head_dim
        )))
    }

    /// `config.json`; `roles` holds the ids of the start, end and padding tokens.
    pub(super) fn to_json(&self, dtype: ImportDtype, roles: &Value) -> Value {
        let mut config = json!({
            "bos_token_id": roles["bos_token_id"],
            "eos_token_id": roles["eos_token_id"],
            "pad_token_id": roles["pad_token_id"],
            "model_type": self.architecture.name(),
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            // Both spellings of the kind: `type` is read by older loaders, `rope_type` by newer ones.
            "rope_scaling": self.rope_scaling.map(|factor| json!({
                "type": "linear", "rope_type": "linear", "factor": factor,
            })),
            "tie_word_embeddings": self.tie_word_embeddings,
            "vocab_size": self.vocab_size,
            "use_cache": true,
            "torch_dtype": dtype.name(),
        });
        match self.architecture {
            Architecture::Llama => {
                config["architectures"] = json!(["LlamaForCausalLM"]);
                config["attention_bias"] = json!(false);
                config["mlp_bias"] = json!(false);
                config["pretraining_tp"] = json!(1);
            }
            Architecture::Qwen2 => {
                config["architectures"] = json!(["Qwen2ForCausalLM"]);
                config["use_sliding_window"] = json!(false);
            }
        }
        config
    }

    /// How many tensors the model has.
    pub(super) fn tensor_count(&self) -> usize {
        let per_layer = match self.architecture {
            Architecture::Llama => 9,
            Architecture::Qwen2 => 12,
        };
        self.num_hidden_layers * per_layer + if self.tie_word_embeddings { 2 } else { 3 }
    }

    /// Every tensor the model has: [`Self::tensor_count`] of them.
    pub(super) fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = vec![
            spec("token_embd.weight", "model.embed_tokens.weight", &[self.vocab_size, self.hidden_size]),
            spec("output_norm.weight", "model.norm.weight", &[self.hidden_size]),
        ];
        if !self.tie_word_embeddings {
            specs.push(spec("output.weight", "lm_head.weight", &[self.vocab_size, self.hidden_size]));
        }
        specs.extend((0..self.num_hidden_layers).flat_map(|layer| self.layer(layer)));
        specs
    }

    fn layer(&self, layer: usize) -> Vec<TensorSpec> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let one = |gguf: &str, name: &str, shape: &[usize]| {
            spec(&format!("blk.{layer}.{gguf}"), &format!("model.layers.{layer}.{name}"), shape)
        };
        let mut specs = vec![
            one("attn_norm.weight", "input_layernorm.weight", &[hidden]),
            self.interleaved(
                one("attn_q.weight", "self_attn.q_proj.weight", &[q, hidden]),
                self.num_attention_heads,
            ),
            self.interleaved(
                one("attn_k.weight", "self_attn.k_proj.weight", &[kv, hidden]),
                self.num_key_value_heads,
            ),
            one("attn_v.weight", "self_attn.v_proj.weight", &[kv, hidden]),
            one("attn_output.weight", "self_attn.o_proj.weight", &[hidden, q]),
            one("ffn_norm.weight", "post_attention_layernorm.weight", &[hidden]),
            one("ffn_gate.weight", "mlp.gate_proj.weight", &[intermediate, hidden]),
            one("ffn_up.weight", "mlp.up_proj.weight", &[intermediate, hidden]),
            one("ffn_down.weight", "mlp.down_proj.weight", &[hidden, intermediate]),
        ];
        if self.architecture == Architecture::Qwen2 {
            specs.push(one("attn_q.bias", "self_attn.q_proj.bias", &[q]));
            specs.push(one("attn_k.bias", "self_attn.k_proj.bias", &[kv]));
            specs.push(one("attn_v.bias", "self_attn.v_proj.bias", &[kv]));
        }
        specs
    }

    /// llama.cpp rotates neighbouring pairs for llama and so reorders q and k; for qwen2 it rotates halves,
    /// as Hugging Face does.
    fn interleaved(&self, spec: TensorSpec, heads: usize) -> TensorSpec {
        let interleaved_heads = (self.architecture == Architecture::Llama).then_some(heads);
        TensorSpec { interleaved_heads, ..spec }
    }
}

fn spec(gguf_name: &str, name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        gguf_name: gguf_name.into(),
        name: name.into(),
        shape: shape.into(),
        interleaved_heads: None,
    }
}

/// The keys of one architecture.
struct Keys<'m> {
    metadata: &'m Metadata<'m>,
    prefix: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn dimension(&self, name: &str) -> Result<usize> {
        let key = self.key(name);
        in_range(&key, self.metadata.need(&key)?)
    }

    /// Like [`Self::dimension`], falling back to the key `other`.
    fn dimension_or(&self, name: &str, other: &str) -> Result<usize> {
        let key = self.key(name);
        match self.metadata.get(&key)? {
            Some(value) => in_range(&key, value),
            None => self.dimension(other),
        }
    }

    fn optional_dimension(&self, name: &str) -> Result<Option<usize>> {
        let key = self.key(name);
        self.metadata.get(&key)?.map(|value| in_range(&key, value)).transpose()
    }

    fn positive(&self, name: &str) -> Result<f64> {
        let key = self.key(name);
        check_positive(&key, self.metadata.need(&key)?)
    }
}

fn in_range(key: &str, value: u64) -> Result<usize> {
    if (1..=MAX_DIMENSION).contains(&value) {
        return Ok(value as usize);
    }
    Err(Error::model(format!(
        "metadata key `{key}`: expected 1 to {MAX_DIMENSION}, found {value}; convert the model again"
    )))
}

fn check_positive(key: &str, value: f64) -> Result<f64> {
    if value > 0.0 {
        return Ok(value);
    }
    Err(Error::model(format!(
        "metadata key `{key}`: expected a positive number, found {value}; convert the model again"
    )))
}

/// The number of tokens, which an explicit `vocab_size` must repeat.
fn vocab_size(keys: &Keys<'_>) -> Result<usize> {
    let tokens: &[&str] = keys.metadata.need("tokenizer.ggml.tokens")?;
    let size = in_range("tokenizer.ggml.tokens", tokens.len() as u64)?;
    let stated = keys.optional_dimension("vocab_size")?.unwrap_or(size);
    if stated == size {
        return Ok(size);
    }
    Err(Error::model(format!(
        "vocabulary: expected as many tokens as `{}` says, {stated}, found {size}; convert the model again",
        keys.key("vocab_size")
    )))
}

/// The head size: explicit, or `embedding_length / head_count`. All of a head must be rotated.
fn head_dim(keys: &Keys<'_>) -> Result<usize> {
    let (hidden, heads) = (keys.dimension("embedding_length")?, keys.dimension("attention.head_count")?);
    let head_dim = match keys.optional_dimension("attention.key_length")? {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(Error::model(format!(
                "attention: expected a hidden size that {heads} heads divide, found {hidden}; convert the model again"
            )));
        }
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        let length = keys.optional_dimension(name)?.unwrap_or(head_dim);
        if length != head_dim {
            return Err(Error::model(format!(
                "metadata key `{}`: expected the head size {head_dim}, found {length}; partial rotation and unequal \
                 head sizes are not supported, import another model",
                keys.key(name)
            )));
        }
    }
    Ok(head_dim)
}

/// The rotation base; 10000 where the file does not say, as in llama.cpp and Hugging Face.
fn rope_theta(keys: &Keys<'_>) -> Result<f64> {
    let key = keys.key("rope.freq_base");
    check_positive(&key, keys.metadata.get(&key)?.unwrap_or(10000.0))
}

/// The factor of linear scaling. A factor without a type is linear, as in llama.cpp; `rope.scale_linear` is
/// what converters of 2023 called it.
fn rope_scaling(keys: &Keys<'_>) -> Result<Option<f64>> {
    let kind = keys.metadata.get(&keys.key("rope.scaling.type"))?.unwrap_or("linear");
    let factor_key = keys.key("rope.scaling.factor");
    let factor = keys.metadata.get(&factor_key)?.or(keys.metadata.get(&keys.key("rope.scale_linear"))?);
    match (kind, factor) {
        ("none", _) | ("linear", None) => Ok(None),
        ("linear", Some(factor)) => check_positive(&factor_key, factor).map(|f| (f != 1.0).then_some(f)),
        _ => Err(Error::model(format!(
            "metadata key `{}`: expected `none` or `linear`, found `{kind}`; import a model without {kind} scaling",
            keys.key("rope.scaling.type")
        ))),
    }
}
