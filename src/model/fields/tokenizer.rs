//! `tokenizer_config.json`, `special_tokens_map.json` and `tokenizer.json`.

use super::{Field, NAMED, Table, honoured, neutral, refused};

const ROLE: &str = "matched as a whole, and added where tokenizer.json has no such token";
const PADDING: &str = "nothing is padded or cut by the tokenizer";
const CHAT: &str = "prompts are continued as they stand";
const INFILLING: &str = "texts are not infilled";
const SLOW: &str = "for tokenizers without tokenizer.json";
const ORIGIN: &str = "where the file comes from";
const OTHER_MODEL: &str = "for tokenizers of other families";

/// `tokenizer_config.json`.
pub const TOKENIZER_CONFIG: Table =
    Table { file: "tokenizer_config.json", otherwise: NAMED, fields: CONFIG_FIELDS };

const CONFIG_FIELDS: &[Field] = &[
    honoured(
        "add_bos_token",
        "whether a text starts with bos_token, whatever tokenizer.json has; that if absent",
    ),
    honoured(
        "add_eos_token",
        "whether a text ends with eos_token, whatever tokenizer.json has; that if absent",
    ),
    honoured("add_prefix_space", "where the pre-tokenizer has such a switch"),
    honoured("split_special_tokens", "whether special tokens in a text are split like any other text"),
    honoured("added_tokens_decoder", "added where tokenizer.json lacks them; contradicting ids are refused"),
    honoured("bos_token", ROLE),
    honoured("eos_token", ROLE),
    honoured("unk_token", ROLE),
    honoured("sep_token", ROLE),
    honoured("pad_token", ROLE),
    honoured("cls_token", ROLE),
    honoured("mask_token", ROLE),
    honoured("additional_special_tokens", ROLE),
    honoured("extra_special_tokens", ROLE),
    honoured("tokenizer_class", "where a Llama class contradicts tokenizer.json about add_prefix_space"),
    refused("auto_map", &[], "tokenizer code beside the model is not run"),
    refused("do_lower_case", &["false"], OTHER_MODEL),
    refused("do_basic_tokenize", &["false"], OTHER_MODEL),
    refused("strip_accents", &["false"], OTHER_MODEL),
    neutral("clean_up_tokenization_spaces", "code is printed exactly as generated"),
    neutral("spaces_between_special_tokens", "code is printed exactly as generated"),
    neutral("model_max_length", "config.json has the context"),
    neutral("max_length", PADDING),
    neutral("stride", PADDING),
    neutral("padding_side", PADDING),
    neutral("truncation_side", PADDING),
    neutral("truncation_strategy", PADDING),
    neutral("truncation", PADDING),
    neutral("padding", PADDING),
    neutral("pad_to_multiple_of", PADDING),
    neutral("pad_token_type_id", PADDING),
    neutral("chat_template", CHAT),
    neutral("use_default_system_prompt", CHAT),
    neutral("response_schema", CHAT),
    neutral("fill_token", INFILLING),
    neutral("prefix_token", INFILLING),
    neutral("middle_token", INFILLING),
    neutral("suffix_token", INFILLING),
    neutral("eot_token", INFILLING),
    neutral("suffix_first", INFILLING),
    neutral("errors", "of no effect on UTF-8 text"),
    neutral("legacy", SLOW),
    neutral("sp_model_kwargs", SLOW),
    neutral("vocab_file", SLOW),
    neutral("merges_file", SLOW),
    neutral("tokenizer_file", SLOW),
    neutral("from_slow", SLOW),
    neutral("use_fast", SLOW),
    neutral("model_input_names", "what transformers hands to its model"),
    neutral("return_token_type_ids", "what transformers hands to its model"),
    neutral("backend", ORIGIN),
    neutral("is_local", ORIGIN),
    neutral("local_files_only", ORIGIN),
    neutral("name_or_path", ORIGIN),
    neutral("special_tokens_map_file", ORIGIN),
    neutral("processor_class", ORIGIN),
    neutral("device_map", ORIGIN),
    neutral("trust_remote_code", ORIGIN),
    neutral("transformers_version", ORIGIN),
    neutral("unsloth_*", ORIGIN),
];

/// `special_tokens_map.json`: counts for what `tokenizer_config.json` does not say.
pub const SPECIAL_TOKENS_MAP: Table = Table {
    file: "special_tokens_map.json",
    otherwise: NAMED,
    fields: &[
        honoured("bos_token", ROLE),
        honoured("eos_token", ROLE),
        honoured("unk_token", ROLE),
        honoured("sep_token", ROLE),
        honoured("pad_token", ROLE),
        honoured("cls_token", ROLE),
        honoured("mask_token", ROLE),
        honoured("additional_special_tokens", ROLE),
        honoured("extra_special_tokens", ROLE),
    ],
};

/// `tokenizer.json`: its outer fields. The `tokenizers` library reads what is in them and refuses what it
/// does not know.
pub const TOKENIZER: Table = Table {
    file: "tokenizer.json",
    otherwise: "refused",
    fields: &[
        honoured("version", "the library reads 1.0"),
        honoured("added_tokens", "matched as a whole"),
        honoured("normalizer", "applied before splitting"),
        honoured("pre_tokenizer", "splits a text"),
        honoured("model", "pieces to ids; dropout, which would give other ids every time, is refused"),
        honoured("post_processor", "what stands around a text"),
        honoured("decoder", "ids to text"),
        neutral("truncation", PADDING),
        neutral("padding", PADDING),
    ],
};
