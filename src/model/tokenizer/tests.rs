use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::*;

const REPLACEMENT: char = '\u{fffd}';

const END: u32 = 259;
const START: u32 = 260;

/// A byte-level tokenizer like those of Qwen2 and DeepSeek-Coder: 256 bytes, three merges, two special tokens. It asks
/// for truncation and padding.
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
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
}

#[test]
fn special_tokens() {
    let tokenizer = load(&byte_level());
    let text = tokenizer.encode(" ret").unwrap();
    assert_eq!(text, [258]);
    assert_eq!(tokenizer.encode_prompt(" ret").unwrap(), [START, 258]);
    assert_eq!(tokenizer.encode(" ret<|endoftext|>").unwrap(), [258, END]);
    assert_eq!(tokenizer.decode(&[START, 258, END, 100_000]).unwrap(), " ret");
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
    let parts: Vec<&str> = offsets.into_iter().map(|(_, range)| &text[range]).collect();
    assert_eq!(parts, ["a", " ret", "🔥", "🔥", "🔥", "🔥", "b"]);
}

#[test]
fn only_texts_with_tokens_beyond_the_embedding_are_refused() {
    let load_for = |json: &Value, rows| load(json).for_model(&config(rows));
    for rows in [261, 300] {
        assert_eq!(load_for(&byte_level(), rows).unwrap().encode("<|endoftext|><s>").unwrap(), [END, START]);
    }
    let mut wider = byte_level();
    wider["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": 261, "content": "<pad>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false
    }));
    let tokenizer = load_for(&wider, 261).unwrap();
    assert_eq!(tokenizer.encode(" ret").unwrap(), [258]);
    let named = ["tokenizer.json", "\"<pad>\"", "id 261", "261 rows"];
    assert_error(tokenizer.encode(" ret<pad>"), &named);
    assert_error(tokenizer.encode_with_offsets("<pad>"), &named);
    // What stands before every prompt.
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
    assert_eq!(pieces(&tokenizer, &ids), ["a", " ", "", "é", "", "", "", "🔥", " ret", ""]);
    let cut = &ids[..ids.len() - 2];
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

    /// Damage at any byte: an answer or a refusal, never a panic. (The vocabulary, which is most of the file, is last.)
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
