//! `adapter_config.json`, PEFT's, of LoRA and of prefix tuning.

use super::{Field, Table, honoured, neutral, refused};

const ORIGIN: &str = "where the adapter comes from";
const PEFT: &str = "how PEFT computes, not what";
const ENCODER: &str = "of a prefix that an encoder made, PEFT writes the prefix";
const NOT_COMPUTED: &str = "an adapter is never applied otherwise than it was trained";
/// What stands for "not used" in any of PEFT's fields.
pub const OFF: &[&str] = &["false", "[]", "{}"];

/// `adapter_config.json`.
pub const ADAPTER_CONFIG: Table = Table {
    file: "adapter_config.json",
    otherwise: "refused unless it is null, false, [] or {}",
    fields: FIELDS,
};

/// `adapter_config.json` of prefix tuning.
pub const PREFIX_CONFIG: Table = Table {
    file: "adapter_config.json of prefix tuning",
    otherwise: ADAPTER_CONFIG.otherwise,
    fields: PREFIX_FIELDS,
};

const FIELDS: &[Field] = &[
    honoured("peft_type", "LORA"),
    honoured("task_type", "CAUSAL_LM"),
    honoured("r", "the rank"),
    honoured("lora_alpha", "the scale is lora_alpha / r"),
    honoured("lora_dropout", "in training"),
    honoured("target_modules", "the adapted linear layers, or \"all-linear\""),
    honoured("use_rslora", "the scale is lora_alpha / √r"),
    honoured("bias", "none"),
    honoured("init_lora_weights", "any way that leaves the base model as it is"),
    refused("use_dora", OFF, NOT_COMPUTED),
    refused("use_qalora", OFF, NOT_COMPUTED),
    refused("use_bdlora", OFF, NOT_COMPUTED),
    refused("fan_in_fan_out", OFF, NOT_COMPUTED),
    refused("modules_to_save", OFF, NOT_COMPUTED),
    refused("trainable_token_indices", OFF, NOT_COMPUTED),
    refused("rank_pattern", OFF, NOT_COMPUTED),
    refused("alpha_pattern", OFF, NOT_COMPUTED),
    refused("layers_to_transform", OFF, NOT_COMPUTED),
    refused("layers_pattern", OFF, NOT_COMPUTED),
    refused("layer_replication", OFF, NOT_COMPUTED),
    refused("exclude_modules", OFF, NOT_COMPUTED),
    refused("target_parameters", OFF, NOT_COMPUTED),
    refused("ensure_weight_tying", OFF, NOT_COMPUTED),
    refused("lora_bias", OFF, NOT_COMPUTED),
    refused("arrow_config", OFF, NOT_COMPUTED),
    refused("alora_invocation_tokens", OFF, NOT_COMPUTED),
    refused("corda_config", OFF, NOT_COMPUTED),
    refused("eva_config", OFF, NOT_COMPUTED),
    refused("loftq_config", OFF, NOT_COMPUTED),
    refused("lora_ga_config", OFF, NOT_COMPUTED),
    refused("megatron_config", OFF, NOT_COMPUTED),
    refused("kasa_config", OFF, NOT_COMPUTED),
    refused("monteclora_config", OFF, NOT_COMPUTED),
    refused("velora_config", OFF, NOT_COMPUTED),
    neutral("megatron_core", PEFT),
    neutral("qalora_group_size", PEFT),
    neutral("runtime_config", PEFT),
    neutral("inference_mode", PEFT),
    neutral("auto_mapping", ORIGIN),
    neutral("base_model_name_or_path", ORIGIN),
    neutral("revision", ORIGIN),
    neutral("peft_version", ORIGIN),
];

const PREFIX_FIELDS: &[Field] = &[
    honoured("peft_type", "PREFIX_TUNING"),
    honoured("task_type", "CAUSAL_LM"),
    honoured("num_virtual_tokens", "rows of the prefix; fewer than the model's context"),
    honoured("token_dim", "has to agree with the base model: width of its keys"),
    honoured("num_attention_heads", "has to agree with the base model: key and value heads"),
    honoured("num_layers", "has to agree with the base model"),
    refused("num_transformer_submodules", &["1"], "a prefix is that of a decoder"),
    refused("modules_to_save", OFF, NOT_COMPUTED),
    neutral("prefix_projection", ENCODER),
    neutral("encoder_hidden_size", ENCODER),
    neutral("init_weights", "initial values"),
    neutral("inference_mode", PEFT),
    neutral("auto_mapping", ORIGIN),
    neutral("base_model_name_or_path", ORIGIN),
    neutral("revision", ORIGIN),
    neutral("peft_version", ORIGIN),
];
