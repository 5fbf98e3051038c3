//! `generation_config.json`. Nothing of it matters to training and scoring, so what is refused is refused by
//! `generate`.

use super::{Field, NAMED, Table, honoured, neutral, refused};

/// Decided by options of the command.
const OPTION: &str = "the command's own option decides; a suggestion that differs is said";
const LENGTH: &str = "--max-new-tokens decides";
const BEAMS: &str = "for beam search, which num_beams would ask for";
const SPEED: &str = "how fast, not what";
const OUTPUT: &str = "what transformers returns beside the tokens";
const ASSISTANT: &str = "for assisted decoding, which gives the same tokens";
const ORIGIN: &str = "where the file comes from";
const NOT_COMPUTED: &str = "not computed";

/// `generation_config.json`. Where there is no such file, the same fields of `config.json` count.
pub const GENERATION_CONFIG: Table =
    Table { file: "generation_config.json", otherwise: NAMED, fields: FIELDS };

const FIELDS: &[Field] = &[
    honoured(
        "eos_token_id",
        "one token or several, each of which ends a sample; ids beyond the vocabulary are named",
    ),
    honoured("repetition_penalty", "on the tokens of prompt and sample; --repetition-penalty overrides it"),
    honoured("suppress_tokens", "never generated"),
    honoured("begin_suppress_tokens", "not generated as the first token"),
    honoured("do_sample", "whether what follows is a suggestion; the command's own options decide"),
    honoured("temperature", OPTION),
    honoured("top_p", OPTION),
    honoured("top_k", OPTION),
    honoured("min_p", OPTION),
    honoured("typical_p", OPTION),
    honoured("epsilon_cutoff", OPTION),
    honoured("eta_cutoff", OPTION),
    honoured("top_h", OPTION),
    refused("no_repeat_ngram_size", &["0"], NOT_COMPUTED),
    refused("encoder_no_repeat_ngram_size", &["0"], NOT_COMPUTED),
    refused("encoder_repetition_penalty", &["1"], NOT_COMPUTED),
    refused("bad_words_ids", &["[]"], NOT_COMPUTED),
    refused("force_words_ids", &["[]"], NOT_COMPUTED),
    refused("sequence_bias", &["{}", "[]"], NOT_COMPUTED),
    refused("min_new_tokens", &["0"], NOT_COMPUTED),
    refused("min_length", &["0"], NOT_COMPUTED),
    refused("forced_bos_token_id", &[], NOT_COMPUTED),
    refused("forced_eos_token_id", &[], NOT_COMPUTED),
    refused("forced_decoder_ids", &["[]"], NOT_COMPUTED),
    refused("exponential_decay_length_penalty", &[], NOT_COMPUTED),
    refused("num_beams", &["1"], NOT_COMPUTED),
    refused("num_beam_groups", &["1"], NOT_COMPUTED),
    refused("constraints", &["[]"], NOT_COMPUTED),
    refused("penalty_alpha", &["0"], NOT_COMPUTED),
    refused("dola_layers", &[], NOT_COMPUTED),
    refused("guidance_scale", &["1"], NOT_COMPUTED),
    refused("watermarking_config", &[], NOT_COMPUTED),
    refused("token_healing", &["false"], NOT_COMPUTED),
    refused("stop_strings", &["[]"], "samples end at tokens"),
    refused("max_time", &[], "samples end at tokens"),
    refused("custom_generate", &[], "code beside the weights is not run"),
    neutral("max_length", LENGTH),
    neutral("max_new_tokens", LENGTH),
    neutral("num_return_sequences", "--num-samples decides"),
    neutral("bos_token_id", "the tokenizer says what a text starts with"),
    neutral("pad_token_id", "nothing is padded"),
    neutral("decoder_start_token_id", "for encoder-decoder models"),
    neutral("renormalize_logits", "changes neither the largest logit nor the draw"),
    neutral("remove_invalid_values", "logits that are no numbers are an error"),
    neutral("early_stopping", BEAMS),
    neutral("length_penalty", BEAMS),
    neutral("diversity_penalty", BEAMS),
    neutral("low_memory", BEAMS),
    neutral("use_cache", SPEED),
    neutral("cache_implementation", SPEED),
    neutral("cache_config", SPEED),
    neutral("return_legacy_cache", SPEED),
    neutral("prefill_chunk_size", SPEED),
    neutral("compile_config", SPEED),
    neutral("disable_compile", SPEED),
    neutral("continuous_batching_config", SPEED),
    neutral("output_attentions", OUTPUT),
    neutral("output_hidden_states", OUTPUT),
    neutral("output_scores", OUTPUT),
    neutral("output_logits", OUTPUT),
    neutral("return_dict_in_generate", OUTPUT),
    neutral("is_assistant", ASSISTANT),
    neutral("num_assistant_tokens", ASSISTANT),
    neutral("num_assistant_tokens_schedule", ASSISTANT),
    neutral("assistant_confidence_threshold", ASSISTANT),
    neutral("assistant_early_exit", ASSISTANT),
    neutral("assistant_lookbehind", ASSISTANT),
    neutral("target_lookbehind", ASSISTANT),
    neutral("prompt_lookup_num_tokens", ASSISTANT),
    neutral("max_matching_ngram_size", ASSISTANT),
    neutral("generation_kwargs", "arguments of transformers' own function"),
    neutral("chat_format", "prompts are continued as they stand"),
    neutral("max_window_size", "of an older chat interface"),
    neutral("_from_model_config", ORIGIN),
    neutral("_commit_hash", ORIGIN),
    neutral("_original_object_hash", ORIGIN),
    neutral("transformers_version", ORIGIN),
];
