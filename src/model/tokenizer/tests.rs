use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;

const REPLACEMENT: char = '\u{fffd}';

const END: u32 = 259;
const START: u32 = 260;

/// A byte-level tokenizer like those of Qwen2 and DeepSeek-Coder: 256 bytes, three merges, two special
/// tokens. It asks for truncation and padding.
fn byte_level() -> Value {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let merges = [["Ġ", "r"], ["e", "t"], ["Ġr", "et"]];
    for (i, pair) in merges.iter().enumerate() {
        vocab.insert(pair.concat(), (256 + i).into());
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [special(END, "<|endoftext|>"), special(START, "<s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [START], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    })
}

/// A tokenizer like that of CodeLlama: pieces that bear their leading space, and bytes for what has no piece.
fn byte_fallback() -> Value {
    let pieces = ["<unk>", "▁", "a", "b", "▁a"].map(str::to_owned);
    let vocab: serde_json::Map<String, Value> = (0..=255u8)
        .map(|byte| format!("<0x{byte:02X}>"))
        .chain(pieces)
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocab, "merges": [["▁", "a"]]},
    })
}

fn directory(json: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    dir
}

fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_dir(directory(&json.to_string()).path()).unwrap()
}

fn config(vocab_size: usize) -> Config {
    let json = r#"{"model_type": "llama", "hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1,
                   "num_attention_heads": 1, "vocab_size": 1, "max_position_embeddings": 8}"#;
    Config { vocab_size, ..Config::from_json(json).unwrap() }
}

#[track_caller]
fn assert_error<T>(result: Result<T>, named: &[&str]) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    for name in named {
        assert!(error.to_string().contains(name), "{name:?} not in: {error}");
    }
}

/// What a stream decoder gives for `ids`, piece by piece; the last one is what `finish` gives.
fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.stream_decoder();
    let mut pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    pieces.push(decoder.finish().unwrap());
    pieces
}

#[test]
fn text_goes_there_and_back_without_truncation_or_padding() {
    let tokenizer = load(&byte_level());
    let text = "  return é🔥 叫\n\t\"\0\" ret";
    let ids = tokenizer.encode(text).unwrap();
    assert!(ids.len() > 16);
    assert_eq!(ids[0], START);
    assert_eq!(tokenizer.decode(&ids[1..]).unwrap(), text);
    assert_eq!(tokenizer.encode("").unwrap(), [START]);
}

#[test]
fn special_tokens() {
    let tokenizer = load(&byte_level());
    assert_eq!(tokenizer.encode(" ret").unwrap(), [START, 258]);
    assert_eq!(tokenizer.encode_prompt(" ret").unwrap(), [START, 258]);
    assert_eq!(tokenizer.encode(" ret<|endoftext|>").unwrap(), [START, 258, END]);
    assert_eq!(tokenizer.decode(&[START, 258, END, 100_000]).unwrap(), "<s> ret<|endoftext|>");
    assert_eq!(tokenizer.token_str(258).as_deref(), Some("Ġret"));
    assert_eq!((tokenizer.token_str(261), tokenizer.token_id("<s>")), (None, Some(START)));
    assert_eq!(tokenizer.vocab_size(), 261);
}

#[test]
fn offsets_are_bytes_of_the_text() {
    let tokenizer = load(&byte_level());
    let text = "a ret🔥b";
    let offsets = tokenizer.encode_with_offsets(text).unwrap();
    let ids: Vec<u32> = offsets.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, tokenizer.encode(text).unwrap());
    assert_eq!(offsets[0], (START, 0..0));
    let parts: Vec<&str> = offsets.into_iter().map(|(_, range)| &text[range]).collect();
    assert_eq!(parts, ["", "a", " ret", "🔥", "🔥", "🔥", "🔥", "b"]);
}

#[test]
fn only_texts_with_tokens_beyond_the_embedding_are_refused() {
    let load_for = |json: &Value, rows| load(json).for_model(&config(rows));
    for rows in [261, 300] {
        assert_eq!(load_for(&byte_level(), rows).unwrap().encode("<|endoftext|>").unwrap(), [START, END]);
    }
    let mut wider = byte_level();
    wider["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": 261, "content": "<pad>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false
    }));
    let tokenizer = load_for(&wider, 261).unwrap();
    assert_eq!(tokenizer.encode(" ret").unwrap(), [START, 258]);
    let named = ["tokenizer.json", "\"<pad>\"", "id 261", "261 rows"];
    assert_error(tokenizer.encode(" ret<pad>"), &named);
    assert_error(tokenizer.encode_with_offsets("<pad>"), &named);
    // What stands before every text.
    assert_error(load_for(&byte_level(), 260), &["tokenizer.json", "\"<s>\"", "260 rows"]);
    let mut by_template = byte_level();
    by_template["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([7000]);
    assert_error(load_for(&by_template, 300), &["7000"]);
}

#[test]
fn dropout_is_refused() {
    let mut json = byte_level();
    json["model"]["dropout"] = json!(0.1);
    assert_error(Tokenizer::from_dir(directory(&json.to_string()).path()), &["dropout"]);
    json["model"]["dropout"] = json!(0.0);
    load(&json);
}

#[test]
fn unusable_files_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    assert_error(Tokenizer::from_dir(empty.path()), &["no tokenizer.json", "save_pretrained"]);
    let mut unknown = byte_level();
    unknown["model"]["type"] = json!("BPE2");
    let deep = "[".repeat(10_000);
    let mut panicking = byte_level();
    panicking["decoder"] = json!("Fuse");
    for json in [unknown, panicking, json!({}), json!(null)] {
        assert_error(Tokenizer::from_dir(directory(&json.to_string()).path()), &["tokenizer.json", LIBRARY]);
    }
    for json in ["", "{", "\u{feff}{}", &deep] {
        assert_error(Tokenizer::from_dir(directory(json).path()), &["tokenizer.json", "not valid JSON"]);
    }
    let huge = directory("");
    fs::File::create(huge.path().join("tokenizer.json")).unwrap().set_len(8 << 30).unwrap();
    assert_error(Tokenizer::from_dir(huge.path()), &["at most 33554432 bytes"]);
    let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
    assert_error(Tokenizer::from_dir(directory(&many).path()), &["at most 2097152 JSON values"]);
}

#[test]
fn the_library_named_is_the_one_used() {
    let manifest = include_str!("../../../Cargo.toml");
    let version = LIBRARY.split_once(' ').unwrap().1;
    assert!(manifest.contains(&format!("tokenizers = {{ version = \"{version}")));
}

#[test]
fn a_stream_holds_characters_back_until_they_are_whole() {
    let tokenizer = load(&byte_level());
    let ids = tokenizer.encode("a é🔥 ret").unwrap();
    assert_eq!(pieces(&tokenizer, &ids), ["<s>", "a", " ", "", "é", "", "", "", "🔥", " ret", ""]);
    let cut = &ids[1..ids.len() - 2];
    assert_eq!(pieces(&tokenizer, cut), ["a", " ", "", "é", "", "", "", "\u{fffd}"]);
}

#[test]
fn a_stream_keeps_the_spaces_between_pieces() {
    let tokenizer = load(&byte_fallback());
    let text = "a a叫叫 b🔥";
    let ids = tokenizer.encode(text).unwrap();
    let pieces = pieces(&tokenizer, &ids);
    assert_eq!(pieces.concat(), text);
    assert_eq!(pieces[..2], ["a", " a"]);
    assert!(!pieces.concat().contains('\u{fffd}'));
}

#[test]
fn a_stream_of_garbage_stays_bounded() {
    let tokenizer = load(&byte_level());
    let not_utf8 = tokenizer.token_id("Ģ").unwrap();
    let mut decoder = tokenizer.stream_decoder();
    let mut replaced = 0;
    for _ in 0..5000 {
        replaced += decoder.push(not_utf8).unwrap().chars().count();
    }
    assert_eq!(replaced + decoder.finish().unwrap().chars().count(), 5000);
    let bytes = load(&byte_fallback());
    let mut decoder = bytes.stream_decoder();
    let given = [0xe5, 0x8f, 0xab].into_iter().chain([0x80; 5000]).map(|id| decoder.push(id).unwrap());
    assert_eq!(given.collect::<String>().chars().next(), Some('叫'));
}

proptest! {
    #[test]
    fn a_stream_gives_the_same_text(text in "\\PC{0,40}", which in 0..2) {
        let tokenizer = load(&[byte_level(), byte_fallback()][which as usize]);
        let ids = tokenizer.encode(&text).unwrap();
        let pieces = pieces(&tokenizer, &ids);
        prop_assume!(!text.contains(REPLACEMENT));
        prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids).unwrap());
        prop_assert!(!pieces.concat().contains(REPLACEMENT));
    }

    #[test]
    fn any_ids_stream_to_the_same_text(ids in proptest::collection::vec(0u32..262, 0..100)) {
        let tokenizer = load(&byte_level());
        prop_assert_eq!(pieces(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
        pieces(&load(&byte_fallback()), &ids);
    }

    #[test]
    fn offsets_can_always_be_sliced(text in "\\PC{0,40}", which in 0..2) {
        let tokenizer = load(&[byte_level(), byte_fallback()][which as usize]);
        for (_, range) in tokenizer.encode_with_offsets(&text).unwrap() {
            prop_assert!(text.get(range).is_some());
        }
    }

    /// Damage at any byte: an answer or a refusal, never a panic. (The vocabulary, which is most of the file,
    /// is last.)
    #[test]
    fn damaged_files_do_not_panic(at in 0usize..1800, byte: u8, which in 0..2) {
        let mut json = [byte_level(), byte_fallback()][which as usize].to_string().into_bytes();
        json[at] = byte;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), &json).unwrap();
        match Tokenizer::from_dir(dir.path()) {
            Ok(tokenizer) => {
                let ids = tokenizer.encode_prompt("a ret<s>🔥").unwrap_or_default();
                let _ = tokenizer.decode(&ids);
                let _ = tokenizer.clone().for_model(&config(300));
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Model),
        }
    }
}

/// The tokenizer of a directory with `tokenizer_config.json` and `special_tokens_map.json` beside
/// `tokenizer.json`.
fn beside(json: &Value, config: Value, map: Value) -> Result<Tokenizer> {
    let dir = directory(&json.to_string());
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    Tokenizer::from_dir(dir.path())
}

fn configured(json: &Value, config: Value) -> Result<Tokenizer> {
    beside(json, config, json!({}))
}

/// [`byte_level`] with nothing around a text.
fn bare() -> Value {
    let mut json = byte_level();
    json["post_processor"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json
}

#[test]
fn the_files_say_what_stands_around_a_text() {
    let (bos, eos) = (json!("<s>"), json!({"content": "<|endoftext|>", "lstrip": false}));
    let with = |add_bos: Value, add_eos: Value| json!({"add_bos_token": add_bos, "add_eos_token": add_eos, "bos_token": bos, "eos_token": eos});
    let (yes, no) = (json!(true), json!(false));
    let cases = [
        (bare(), with(Value::Null, Value::Null), vec![258]),
        (bare(), with(yes.clone(), Value::Null), vec![START, 258]),
        (bare(), with(yes.clone(), yes.clone()), vec![START, 258, END]),
        (bare(), with(no.clone(), yes.clone()), vec![258, END]),
        (byte_level(), with(Value::Null, no.clone()), vec![START, 258]),
        (byte_level(), with(yes.clone(), no.clone()), vec![START, 258]),
        (byte_level(), with(no.clone(), no.clone()), vec![258]),
        (byte_level(), with(Value::Null, yes.clone()), vec![START, 258, END]),
    ];
    for (json, config, expected) in cases {
        let tokenizer = configured(&json, config.clone()).unwrap();
        assert_eq!(tokenizer.encode(" ret").unwrap(), expected, "{config}");
        // A prompt is the beginning of a text.
        let prompt: Vec<u32> = expected.iter().copied().filter(|id| *id != END).collect();
        assert_eq!(tokenizer.encode_prompt(" ret").unwrap(), prompt, "{config}");
        let with_offsets = tokenizer.encode_with_offsets(" ret").unwrap();
        let ends = with_offsets.iter().map(|(id, range)| (*id, range.clone()));
        for (id, range) in ends {
            let place = if id == START { 0..0 } else { 4..4 };
            assert!(id == 258 || range == place, "{config}: {id} at {range:?}");
        }
        // Trimmed or not, as tokenizer.json has it, whatever stands around.
        let trims = json["post_processor"]["type"] == "ByteLevel";
        assert!(with_offsets.contains(&(258, if trims { 1..4 } else { 0..4 })), "{config}");
    }
}

#[test]
fn roles_come_from_either_file_and_have_to_be_there() {
    let add = json!({"add_bos_token": true});
    let encode = |tokenizer: Result<Tokenizer>| tokenizer.unwrap().encode("a").unwrap()[0];
    assert_eq!(encode(beside(&bare(), add.clone(), json!({"bos_token": "<s>"}))), START);
    let both = json!({"add_bos_token": true, "bos_token": "<|endoftext|>"});
    assert_eq!(encode(beside(&bare(), both, json!({"bos_token": "<s>"}))), END);
    assert_error(configured(&bare(), add), &["tokenizer_config.json", "add_bos_token", "no bos_token"]);
    assert_error(configured(&bare(), json!({"add_bos_token": "yes"})), &["add_bos_token", "true or false"]);
    assert_error(configured(&bare(), json!({"bos_token": 3})), &["bos_token", "found 3"]);
}

#[test]
fn listed_tokens_are_added_or_refused() {
    let token = |content: &str| json!({"content": content, "special": true, "normalized": false});
    let listed = |id: &str, content: &str| {
        configured(&byte_level(), json!({"added_tokens_decoder": {id: token(content)}}))
    };
    assert_eq!(listed("261", "<|new|>").unwrap().encode("<|new|>x").unwrap()[..2], [START, 261]);
    assert_eq!(listed("260", "<s>").unwrap().vocab_size(), 261);
    assert_error(listed("260", "<t>"), &["added_tokens_decoder", "260", "\"<s>\"", "<t>"]);
    assert_error(listed("261", "<s>"), &["261", "<s>", "the id 260"]);
    assert_error(listed("300", "<|new|>"), &["300", "next id", "261"]);
    assert_error(listed("x", "<|new|>"), &["added_tokens_decoder", "token id"]);
    assert_error(configured(&byte_level(), json!({"added_tokens_decoder": {"261": 3}})), &["261", "content"]);
    // Properties of a token that is there are those of this file.
    let stripping = json!({"content": "<s>", "special": true, "normalized": false, "rstrip": true});
    let tokenizer = configured(&bare(), json!({"added_tokens_decoder": {"260": stripping}})).unwrap();
    assert_eq!(tokenizer.encode("<s>  a").unwrap().len(), 2);
}

#[test]
fn special_tokens_are_whole_wherever_they_are_named() {
    // `et` is a piece of the vocabulary, and no added token.
    for config in [
        json!({"pad_token": "et"}),
        json!({"additional_special_tokens": ["et"]}),
        json!({"extra_special_tokens": {"image": "et"}}),
    ] {
        let tokenizer = configured(&bare(), config).unwrap();
        assert_eq!(tokenizer.encode(" ret").unwrap().last(), Some(&257));
    }
    assert_eq!(configured(&bare(), json!({})).unwrap().encode(" ret").unwrap(), [258]);
    let map = json!({"unk_token": "<|new|>"});
    assert_eq!(beside(&bare(), json!({}), map).unwrap().encode("<|new|>").unwrap(), [261]);
}

#[test]
fn special_tokens_can_be_split() {
    let split = configured(&bare(), json!({"split_special_tokens": true, "bos_token": "<s>"})).unwrap();
    assert_eq!(split.encode("<s>").unwrap().len(), 3);
    assert_eq!(
        configured(&bare(), json!({"split_special_tokens": false})).unwrap().encode("<s>").unwrap(),
        [START]
    );
}

#[test]
fn a_space_goes_before_a_text_where_that_is_a_switch() {
    let spaced = configured(&bare(), json!({"add_prefix_space": true})).unwrap();
    assert_eq!(spaced.encode("ret").unwrap(), [258]);
    let llama = |class: &str| {
        configured(&byte_fallback(), json!({"add_prefix_space": false, "tokenizer_class": class}))
    };
    assert_error(llama("LlamaTokenizerFast"), &["add_prefix_space", "expected true", "found false"]);
    // transformers does not look at it then.
    llama("PreTrainedTokenizerFast").unwrap();
}

#[test]
fn what_is_not_done_is_refused_and_what_is_not_known_is_named() {
    let auto_map = json!({"auto_map": {"AutoTokenizer": ["x.Y", null]}});
    assert_error(configured(&bare(), auto_map), &["tokenizer_config.json", "auto_map", "x.Y"]);
    assert_error(configured(&bare(), json!({"do_lower_case": true})), &["do_lower_case", "found true"]);
    let notes = configured(&bare(), json!({"new_switch": 1, "model_max_length": 3})).unwrap();
    let notes = notes.notes().join(" ");
    assert!(notes.contains("\"new_switch\""), "{notes}");
    assert!(!notes.contains("model_max_length"), "{notes}");
}
