//! `adapter_config.json`, PEFT's.

use super::{Field, Table, honoured, neutral, refused};

const ORIGIN: &str = "where the adapter comes from";
const PEFT: &str = "how PEFT computes, not what";
const NOT_COMPUTED: &str = "an adapter is never applied otherwise than it was trained";
/// What stands for "not used" in any of PEFT's fields.
pub const OFF: &[&str] = &["false", "[]", "{}"];

/// `adapter_config.json`.
pub const ADAPTER_CONFIG: Table = Table {
    file: "adapter_config.json",
    otherwise: "refused unless it is null, false, [] or {}",
    fields: FIELDS,
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
