//! `config.json` and `model.safetensors.index.json`.

use super::{Field, NAMED, Table, honoured, neutral, refused};

/// A detail of something that another field, which is refused, would switch on.
const OFF: &str = "of no effect while the field that switches it on is off";
/// A matter of how PyTorch computes or stores.
const PYTORCH: &str = "how transformers computes, not what";
/// Who wrote the file.
const ORIGIN: &str = "where the file comes from";
/// About other tasks.
const OTHER_TASK: &str = "for heads and tasks other than language modelling";

/// `config.json`.
pub const CONFIG: Table = Table { file: "config.json", otherwise: NAMED, fields: FIELDS };

const FIELDS: &[Field] = &[
    honoured("architectures", "LlamaForCausalLM or Qwen2ForCausalLM; has to agree with model_type"),
    honoured("model_type", "llama or qwen2"),
    honoured("hidden_size", "width of the residual stream"),
    honoured("intermediate_size", "width of the gated MLP"),
    honoured("num_hidden_layers", "number of blocks"),
    honoured("num_attention_heads", "query heads"),
    honoured("num_key_value_heads", "key and value heads; num_attention_heads if absent"),
    honoured("head_dim", "width of a head; hidden_size / num_attention_heads if absent"),
    honoured("vocab_size", "rows of embedding and head"),
    honoured("rms_norm_eps", "1e-6 if absent"),
    honoured("rope_theta", "10000 if absent"),
    honoured("rope_scaling", "types default, linear and llama3; any other type or parameter is refused"),
    honoured("rope_parameters", "what newer files call rope_theta and rope_scaling"),
    honoured("max_position_embeddings", "the context, in tokens"),
    honoured("tie_word_embeddings", "whether the head is the embedding; a stored head that differs is used"),
    honoured("attention_bias", "as the architecture has it: true for qwen2, false for llama"),
    honoured("layer_types", "full_attention for every layer"),
    honoured("torch_dtype", "what the weights claim to be stored in; each tensor's own type counts"),
    honoured("dtype", "what newer files call torch_dtype"),
    honoured("eos_token_id", "ends a generation, unless generation_config.json names tokens"),
    refused("hidden_act", &["\"silu\""], "the only activation computed"),
    refused("mlp_bias", &["false"], "not computed"),
    refused("use_sliding_window", &["false"], "not computed"),
    refused("use_mrope", &["false"], "not computed"),
    refused("pretraining_tp", &["1"], "slices products, which rounds differently"),
    refused("partial_rotary_factor", &["1"], "all of a head is rotated"),
    refused("rope_interleaved", &["false"], "halves are rotated, not neighbours"),
    refused("attention_dropout", &["0"], "not computed in training"),
    refused("is_encoder_decoder", &["false"], "not computed"),
    refused("add_cross_attention", &["false"], "not computed"),
    refused("tie_encoder_decoder", &["false"], "not computed"),
    refused("pruned_heads", &["{}"], "not computed"),
    refused("per_layer_config", &["{}"], "all layers are alike"),
    refused("quantization_config", &[], "quantised weights are not read; import a GGUF file instead"),
    refused("quantization", &[], "quantised weights are not read; import a GGUF file instead"),
    refused("compression_config", &[], "quantised weights are not read; import a GGUF file instead"),
    refused("auto_map", &[], "model code beside the weights is not run"),
    neutral("sliding_window", OFF),
    neutral("max_window_layers", OFF),
    neutral("original_max_position_embeddings", OFF),
    neutral("bos_token_id", "the tokenizer says what a text starts with"),
    neutral("pad_token_id", "nothing is padded"),
    neutral("sep_token_id", OTHER_TASK),
    neutral("decoder_start_token_id", OTHER_TASK),
    neutral("cross_attention_hidden_size", OFF),
    neutral("is_decoder", "every model here is one"),
    neutral("use_cache", PYTORCH),
    neutral("initializer_range", "for weights that are not loaded"),
    neutral("max_sequence_length", "max_position_embeddings counts"),
    neutral("model_max_length", "max_position_embeddings counts"),
    neutral("is_llama_config", ORIGIN),
    neutral("transformers_version", ORIGIN),
    neutral("transformers.js_config", ORIGIN),
    neutral("unsloth_*", ORIGIN),
    neutral("_name_or_path", ORIGIN),
    neutral("name_or_path", ORIGIN),
    neutral("_commit_hash", ORIGIN),
    neutral("_attn_implementation", PYTORCH),
    neutral("_attn_implementation_autoset", PYTORCH),
    neutral("attn_implementation", PYTORCH),
    neutral("_flash_attn_2_enabled", PYTORCH),
    neutral("output_attentions", PYTORCH),
    neutral("output_hidden_states", PYTORCH),
    neutral("return_dict", PYTORCH),
    neutral("use_return_dict", PYTORCH),
    neutral("torchscript", PYTORCH),
    neutral("use_bfloat16", PYTORCH),
    neutral("tf_legacy_loss", PYTORCH),
    neutral("chunk_size_feed_forward", PYTORCH),
    neutral("gradient_checkpointing", PYTORCH),
    neutral("keys_to_ignore_at_inference", PYTORCH),
    neutral("base_model_tp_plan", PYTORCH),
    neutral("base_model_pp_plan", PYTORCH),
    neutral("finetuning_task", OTHER_TASK),
    neutral("id2label", OTHER_TASK),
    neutral("label2id", OTHER_TASK),
    neutral("num_labels", OTHER_TASK),
    neutral("problem_type", OTHER_TASK),
    neutral("task_specific_params", OTHER_TASK),
    neutral("prefix", OTHER_TASK),
    neutral("tokenizer_class", "tokenizer.json is the tokenizer"),
];

/// `model.safetensors.index.json`.
pub const INDEX: Table = Table {
    file: "model.safetensors.index.json",
    otherwise: NAMED,
    fields: &[
        honoured("weight_map", "which file holds a tensor; has to agree with the files"),
        neutral("metadata", "sizes, which the files themselves say"),
    ],
};
