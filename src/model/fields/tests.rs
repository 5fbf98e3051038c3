use std::fmt::Write;

use super::*;

/// Fields of files of published models, as they are written there.
const WRITTEN: [(&str, &str, &[&str]); 18] = [
    (
        "Qwen2.5-Coder",
        "config.json",
        &[
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "eos_token_id",
            "hidden_act",
            "hidden_size",
            "initializer_range",
            "intermediate_size",
            "max_position_embeddings",
            "max_window_layers",
            "model_type",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "rms_norm_eps",
            "rope_theta",
            "sliding_window",
            "tie_word_embeddings",
            "torch_dtype",
            "transformers_version",
            "use_cache",
            "use_mrope",
            "use_sliding_window",
            "vocab_size",
        ],
    ),
    (
        "DeepSeek-Coder",
        "config.json",
        &[
            "_name_or_path",
            "architectures",
            "bos_token_id",
            "eos_token_id",
            "hidden_act",
            "hidden_size",
            "initializer_range",
            "intermediate_size",
            "max_position_embeddings",
            "model_type",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "pad_token_id",
            "pretraining_tp",
            "rms_norm_eps",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
            "torch_dtype",
            "transformers_version",
            "use_cache",
            "vocab_size",
        ],
    ),
    (
        "Seed-Coder",
        "config.json",
        &[
            "architectures",
            "attention_bias",
            "attention_dropout",
            "bos_token_id",
            "eos_token_id",
            "head_dim",
            "hidden_act",
            "hidden_size",
            "initializer_range",
            "intermediate_size",
            "max_position_embeddings",
            "mlp_bias",
            "model_type",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "pad_token_id",
            "pretraining_tp",
            "rms_norm_eps",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
            "torch_dtype",
            "transformers_version",
            "use_cache",
            "vocab_size",
        ],
    ),
    (
        "SmolLM2",
        "config.json",
        &[
            "architectures",
            "attention_bias",
            "attention_dropout",
            "bos_token_id",
            "eos_token_id",
            "hidden_act",
            "hidden_size",
            "initializer_range",
            "intermediate_size",
            "is_llama_config",
            "max_position_embeddings",
            "mlp_bias",
            "model_type",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "pad_token_id",
            "pretraining_tp",
            "rms_norm_eps",
            "rope_interleaved",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
            "torch_dtype",
            "transformers.js_config",
            "transformers_version",
            "use_cache",
            "vocab_size",
        ],
    ),
    (
        "a Llama saved by transformers 5",
        "config.json",
        &[
            "architectures",
            "attention_bias",
            "attention_dropout",
            "bos_token_id",
            "dtype",
            "eos_token_id",
            "head_dim",
            "hidden_act",
            "hidden_size",
            "initializer_range",
            "intermediate_size",
            "layer_types",
            "max_position_embeddings",
            "mlp_bias",
            "model_type",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "pad_token_id",
            "pretraining_tp",
            "rms_norm_eps",
            "rope_parameters",
            "tie_word_embeddings",
            "transformers_version",
            "use_cache",
            "vocab_size",
        ],
    ),
    (
        "Qwen2.5-Coder-Instruct",
        "generation_config.json",
        &[
            "bos_token_id",
            "do_sample",
            "eos_token_id",
            "pad_token_id",
            "repetition_penalty",
            "temperature",
            "top_k",
            "top_p",
            "transformers_version",
        ],
    ),
    (
        "Qwen2.5-Coder",
        "generation_config.json",
        &["bos_token_id", "do_sample", "eos_token_id", "max_new_tokens"],
    ),
    (
        "Llama-3.2-Instruct",
        "generation_config.json",
        &["bos_token_id", "do_sample", "eos_token_id", "temperature", "top_p", "transformers_version"],
    ),
    (
        "DeepSeek-Coder",
        "generation_config.json",
        &["_from_model_config", "bos_token_id", "eos_token_id", "transformers_version"],
    ),
    (
        "a tiny model saved by transformers 5",
        "generation_config.json",
        &["_from_model_config", "output_attentions", "output_hidden_states", "use_cache", "pad_token_id"],
    ),
    (
        "Qwen2.5-Coder",
        "tokenizer_config.json",
        &[
            "add_bos_token",
            "add_prefix_space",
            "added_tokens_decoder",
            "additional_special_tokens",
            "bos_token",
            "chat_template",
            "clean_up_tokenization_spaces",
            "eos_token",
            "errors",
            "model_max_length",
            "pad_token",
            "split_special_tokens",
            "tokenizer_class",
            "unk_token",
        ],
    ),
    (
        "DeepSeek-Coder",
        "tokenizer_config.json",
        &[
            "add_bos_token",
            "add_eos_token",
            "bos_token",
            "clean_up_tokenization_spaces",
            "eos_token",
            "legacy",
            "model_max_length",
            "pad_token",
            "sp_model_kwargs",
            "unk_token",
            "tokenizer_class",
        ],
    ),
    (
        "Llama-3.2",
        "tokenizer_config.json",
        &[
            "added_tokens_decoder",
            "bos_token",
            "chat_template",
            "clean_up_tokenization_spaces",
            "eos_token",
            "model_input_names",
            "model_max_length",
            "tokenizer_class",
        ],
    ),
    (
        "CodeLlama",
        "tokenizer_config.json",
        &[
            "add_bos_token",
            "add_eos_token",
            "bos_token",
            "clean_up_tokenization_spaces",
            "eos_token",
            "eot_token",
            "fill_token",
            "legacy",
            "middle_token",
            "model_max_length",
            "pad_token",
            "prefix_token",
            "sp_model_kwargs",
            "suffix_token",
            "tokenizer_class",
            "unk_token",
            "use_default_system_prompt",
        ],
    ),
    (
        "SmolLM2",
        "special_tokens_map.json",
        &["additional_special_tokens", "bos_token", "eos_token", "pad_token", "unk_token"],
    ),
    ("any sharded model", "model.safetensors.index.json", &["metadata", "weight_map"]),
    (
        "an adapter of PEFT 0.18",
        "adapter_config.json",
        &[
            "alora_invocation_tokens",
            "alpha_pattern",
            "arrow_config",
            "auto_mapping",
            "base_model_name_or_path",
            "bias",
            "corda_config",
            "ensure_weight_tying",
            "eva_config",
            "exclude_modules",
            "fan_in_fan_out",
            "inference_mode",
            "init_lora_weights",
            "kasa_config",
            "layer_replication",
            "layers_pattern",
            "layers_to_transform",
            "loftq_config",
            "lora_alpha",
            "lora_bias",
            "lora_dropout",
            "megatron_config",
            "megatron_core",
            "modules_to_save",
            "monteclora_config",
            "peft_type",
            "peft_version",
            "qalora_group_size",
            "r",
            "rank_pattern",
            "revision",
            "target_modules",
            "target_parameters",
            "task_type",
            "trainable_token_indices",
            "use_dora",
            "use_qalora",
            "use_rslora",
            "velora_config",
        ],
    ),
    (
        "a prefix of PEFT 0.18",
        "adapter_config.json of prefix tuning",
        &[
            "auto_mapping",
            "base_model_name_or_path",
            "encoder_hidden_size",
            "inference_mode",
            "init_weights",
            "modules_to_save",
            "num_attention_heads",
            "num_layers",
            "num_transformer_submodules",
            "num_virtual_tokens",
            "peft_type",
            "peft_version",
            "prefix_projection",
            "revision",
            "task_type",
            "token_dim",
        ],
    ),
];

/// Keys of GGUF files that llama.cpp's converter makes of these models.
const GGUF_KEYS: &[&str] = &[
    "general.architecture",
    "general.base_model.0.name",
    "general.file_type",
    "general.license",
    "general.quantization_version",
    "general.size_label",
    "general.tags",
    "general.type",
    "quantize.imatrix.chunks_count",
    "tokenizer.chat_template",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.tokens",
    "{arch}.attention.head_count",
    "{arch}.attention.head_count_kv",
    "{arch}.attention.layer_norm_rms_epsilon",
    "{arch}.block_count",
    "{arch}.context_length",
    "{arch}.embedding_length",
    "{arch}.feed_forward_length",
    "{arch}.rope.dimension_count",
    "{arch}.rope.freq_base",
    "{arch}.vocab_size",
];

fn table(file: &str) -> &'static Table {
    TABLES.into_iter().find(|table| table.file == file).unwrap_or_else(|| panic!("no table for {file}"))
}

#[test]
fn no_field_of_a_published_model_is_unknown() {
    let gguf = ("llama.cpp", "GGUF metadata", GGUF_KEYS);
    for (model, file, fields) in WRITTEN.into_iter().chain([gguf]) {
        for field in fields {
            assert!(table(file).handling(field).is_some(), "{file} of {model}: {field}");
        }
    }
    assert_eq!(CONFIG.handling("something_new"), None);
}

#[test]
fn tables_are_consistent() {
    for table in TABLES {
        for (i, field) in table.fields.iter().enumerate() {
            let earlier = table.fields[..i].iter().find(|other| other.matches(field.name));
            assert!(earlier.is_none(), "{}: {} is there twice", table.file, field.name);
            assert!(!field.reason.is_empty(), "{}: {}", table.file, field.name);
            let Handling::Refused(unless) = field.handling else { continue };
            for json in unless {
                assert!(serde_json::from_str::<Value>(json).is_ok(), "{}: {json}", field.name);
            }
        }
    }
}

#[test]
fn what_is_refused_says_what_is_not() {
    let refusal = |name: &str, value: Value| CONFIG.handling(name).unwrap().refusal(&value);
    assert_eq!(refusal("pretraining_tp", 1.0.into()), None);
    assert_eq!(refusal("pretraining_tp", Value::Null), None);
    assert_eq!(refusal("hidden_size", 0.into()), None);
    let named = refusal("hidden_act", "gelu".into()).unwrap();
    assert!(named.contains("\"silu\""), "{named}");
    assert!(refusal("auto_map", Value::from("x")).unwrap().contains("not supported"));
}

/// The tables as `docs/model-files.md` shows them.
fn markdown() -> String {
    let mut text = String::new();
    for table in TABLES {
        writeln!(text, "\n## {}\n\nAny other field: {}.\n", table.file, table.otherwise).unwrap();
        text += "| field | handling | why, or how |\n|---|---|---|\n";
        for Field { name, handling, reason } in table.fields {
            let handling = match handling {
                Handling::Honoured => "honoured".to_owned(),
                Handling::Neutral => "neutral".to_owned(),
                Handling::Refused([]) => "refused".to_owned(),
                Handling::Refused(values) => format!("refused unless `{}`", values.join("`, `")),
            };
            writeln!(text, "| `{name}` | {handling} | {reason} |").unwrap();
        }
    }
    text
}

/// `DG_WRITE_DOCS=1` writes the page instead of comparing it.
#[test]
fn the_documentation_shows_the_tables() {
    const TABLES_BEGIN: &str = "<!-- tables -->\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/model-files.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (above, below) = page.split_once(TABLES_BEGIN).expect("a line where the tables begin");
    if std::env::var_os("DG_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{above}{TABLES_BEGIN}{}", markdown())).unwrap();
        return;
    }
    assert!(below == markdown(), "docs/model-files.md: run this test with DG_WRITE_DOCS=1");
}
