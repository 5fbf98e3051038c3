//! The metadata of a GGUF file. `{arch}` stands for the architecture, `llama` or `qwen2`.

use super::{Field, Table, honoured, neutral, refused};

const ORIGIN: &str = "where the file comes from";
const INFILLING: &str = "texts are not infilled";
const CHAT: &str = "prompts are continued as they stand";
const SAMPLER: &str = "the command's own options decide";
const ANOTHER: &str = "only whole plain models are imported";

/// Metadata keys of a GGUF file.
pub const GGUF: Table = Table {
    file: "GGUF metadata",
    otherwise: "refused below tokenizer. and the architecture; elsewhere named in a warning, and not read",
    fields: FIELDS,
};

const FIELDS: &[Field] = &[
    honoured("general.architecture", "llama or qwen2"),
    honoured("general.type", "model"),
    honoured("general.alignment", "where tensors begin"),
    honoured("split.count", "a whole file; parts are refused"),
    honoured("{arch}.vocab_size", "as many as there are tokens"),
    honoured("{arch}.block_count", "num_hidden_layers"),
    honoured("{arch}.context_length", "max_position_embeddings"),
    honoured("{arch}.embedding_length", "hidden_size"),
    honoured("{arch}.feed_forward_length", "intermediate_size"),
    honoured("{arch}.attention.head_count", "num_attention_heads"),
    honoured("{arch}.attention.head_count_kv", "num_key_value_heads"),
    honoured("{arch}.attention.key_length", "head_dim"),
    honoured("{arch}.attention.value_length", "head_dim"),
    honoured("{arch}.attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    honoured("{arch}.rope.dimension_count", "all of a head"),
    honoured("{arch}.rope.freq_base", "rope_theta"),
    honoured("{arch}.rope.scaling.type", "none or linear"),
    honoured("{arch}.rope.scaling.factor", "of linear scaling"),
    honoured("{arch}.rope.scale_linear", "the same, in files of 2023"),
    neutral("{arch}.rope.scaling.original_context_length", "of no effect on linear scaling"),
    neutral("{arch}.rope.scaling.finetuned", "of no effect on linear scaling"),
    neutral("{arch}.use_parallel_residual", "written for Qwen1.5 in early 2024, and read by nothing"),
    honoured("tokenizer.ggml.model", "gpt2 or llama"),
    honoured("tokenizer.ggml.pre", "how a text is split"),
    honoured("tokenizer.ggml.tokens", "the vocabulary"),
    honoured("tokenizer.ggml.token_type", "kinds of the tokens"),
    honoured("tokenizer.ggml.scores", "the order of merges of llama"),
    honoured("tokenizer.ggml.merges", "the merges of gpt2"),
    honoured("tokenizer.ggml.add_bos_token", "whether a text starts with the start token"),
    honoured("tokenizer.ggml.add_eos_token", "whether a text ends with the end token"),
    honoured("tokenizer.ggml.add_space_prefix", "whether a text of llama starts with a space"),
    honoured("tokenizer.ggml.bos_token_id", "the start token"),
    honoured("tokenizer.ggml.eos_token_id", "ends a generation"),
    honoured("tokenizer.ggml.eot_token_id", "ends a generation"),
    honoured("tokenizer.ggml.eom_token_id", "ends a generation"),
    honoured("tokenizer.ggml.padding_token_id", "pad_token"),
    honoured("tokenizer.ggml.unknown_token_id", "unk_token"),
    honoured("tokenizer.chat_template", "goes into tokenizer_config.json"),
    neutral("tokenizer.chat_template.*", CHAT),
    neutral("tokenizer.chat_templates", CHAT),
    neutral("tokenizer.huggingface.json", "the tokenizer is made from the keys above"),
    neutral("tokenizer.ggml.token_type_count", "for models with kinds of text"),
    neutral("tokenizer.ggml.seperator_token_id", "for models with kinds of text"),
    neutral("tokenizer.ggml.separator_token_id", "for models with kinds of text"),
    neutral("tokenizer.ggml.cls_token_id", "for models with kinds of text"),
    neutral("tokenizer.ggml.mask_token_id", "for models with kinds of text"),
    neutral("tokenizer.ggml.add_sep_token", "for models with kinds of text"),
    neutral("tokenizer.ggml.prefix_token_id", INFILLING),
    neutral("tokenizer.ggml.suffix_token_id", INFILLING),
    neutral("tokenizer.ggml.middle_token_id", INFILLING),
    neutral("tokenizer.ggml.fim_*", INFILLING),
    refused("tokenizer.ggml.precompiled_charsmap", &[], "for tokenizers of other families"),
    refused("tokenizer.ggml.remove_extra_whitespaces", &["false"], "for tokenizers of other families"),
    neutral("general.sampling.*", SAMPLER),
    neutral("general.*", ORIGIN),
    neutral("quantize.*", ORIGIN),
    neutral("mradermacher.*", ORIGIN),
    neutral("split.*", "of no effect in a whole file"),
    refused("adapter.*", &[], ANOTHER),
    refused("clip.*", &[], ANOTHER),
    refused("imatrix.*", &[], ANOTHER),
];
