//! Tokenizers: ids of texts after the conversion.

use super::*;
use ::tokenizers::Tokenizer;

/// The tokenizer of an imported fixture.
fn tokenizer(fixture: &Fixture) -> Tokenizer {
    fixture.read(|model| serde_json::from_value(model.unwrap().tokenizer.tokenizer).unwrap())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

/// Replaces the vocabulary, and the embedding with it.
fn with_tokens(mut fixture: Fixture, tokens: &[&str], kinds: &[i32]) -> Fixture {
    fixture.set("tokenizer.ggml.tokens", texts(tokens));
    fixture.set("tokenizer.ggml.token_type", Item::I32s(kinds.into()));
    fixture.tensors.retain(|(name, ..)| name != "token_embd.weight");
    fixture.floats("token_embd.weight", &[tokens.len() as u64, 8]);
    fixture
}

/// A byte-level vocabulary of all single bytes, without merges, under the given pre-tokenizer.
fn bytes_only(pre: &str) -> Tokenizer {
    let mut alphabet: Vec<String> = ::tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
        .into_iter()
        .map(String::from)
        .collect();
    alphabet.sort_unstable();
    alphabet.insert(0, "<|end|>".into());
    let tokens: Vec<&str> = alphabet.iter().map(String::as_str).collect();
    let mut kinds = vec![1; tokens.len()];
    kinds[0] = 3;
    let mut fixture = with_tokens(Fixture::new("llama"), &tokens, &kinds);
    fixture.set("tokenizer.ggml.pre", text(pre));
    fixture.set("tokenizer.ggml.merges", texts(&[]));
    fixture.set("tokenizer.ggml.add_bos_token", Item::Bool(false));
    tokenizer(&fixture)
}

/// How a pre-tokenizer splits `text`, with spaces and line ends as byte-level BPE shows them.
fn pieces(pre: &str, text: &str) -> Vec<String> {
    use ::tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    let tokenizer = bytes_only(pre);
    let mut string = PreTokenizedString::from(text);
    tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut string).unwrap();
    let splits = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(piece, ..)| piece.to_owned()).collect()
}

#[test]
fn merges_apply_and_special_tokens_are_whole() {
    let tokenizer = tokenizer(&Fixture::new("llama"));
    assert_eq!(ids(&tokenizer, "ab a<|end|><user>b"), [4, 5, 0, 6, 2]);
    assert_eq!(tokenizer.decode(&[4, 5, 0, 6, 2], true).unwrap(), "ab a<user>b");
    assert_eq!(tokenizer.decode(&[4, 5, 0], false).unwrap(), "ab a<|end|>");
}

#[test]
fn every_byte_level_tokenizer_decodes_what_it_encodes() {
    let text = "fn f(x: &str) -> u8 {\n\tlet été = 1234.5; // 中文 ½\r\n}  \n";
    for pre in [
        "gpt-2",
        "smollm",
        "starcoder",
        "refact",
        "qwen2",
        "llama-bpe",
        "seed-coder",
        "deepseek-coder",
        "default",
    ] {
        let tokenizer = bytes_only(pre);
        let ids = ids(&tokenizer, text);
        assert_eq!(ids.len(), text.len(), "{pre}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{pre}");
    }
}

#[test]
fn pre_tokenizers_split_as_their_models_do() {
    let text = "I'LL x=1234;\n\n  y";
    for (pre, expected) in [
        ("gpt-2", &["I", "'", "LL", "Ġx", "=", "1234", ";", "ĊĊĠ", "Ġy"][..]),
        ("smollm", &["I", "'", "LL", "Ġx", "=", "1", "2", "3", "4", ";", "ĊĊĠ", "Ġy"]),
        ("starcoder", &["I", "'", "LL", "Ġx", "=", "1", "2", "3", "4", ";", "ĊĊĠ", "Ġy"]),
        ("qwen2", &["I", "'LL", "Ġx", "=", "1", "2", "3", "4", ";ĊĊ", "Ġ", "Ġy"]),
        ("llama-bpe", &["I", "'LL", "Ġx", "=", "123", "4", ";ĊĊ", "Ġ", "Ġy"]),
        ("seed-coder", &["I", "'LL", "Ġx", "=", "1", "2", "3", "4", ";", "ĊĊ", "Ġ", "Ġy"]),
        ("deepseek-coder", &["I", "'", "LL", "Ġx", "=", "1", "2", "3", "4", ";", "Ċ", "Ċ", "Ġ", "Ġy"]),
        ("default", &["I", "'", "LL", "Ġx", "=", "123", "4", ";", "ĊĊĠ", "Ġy"]),
    ] {
        assert_eq!(pieces(pre, text), expected, "{pre}");
    }
}

#[test]
fn qwen2_composes_characters() {
    assert_eq!(ids(&bytes_only("qwen2"), "e\u{301}"), ids(&bytes_only("qwen2"), "é"));
}

#[test]
fn start_and_end_tokens_follow_the_file() {
    let mut fixture = Fixture::new("llama");
    fixture.set("tokenizer.ggml.bos_token_id", Item::U32(6));
    assert_eq!(ids(&tokenizer(&fixture), "ab"), [4]);
    fixture.set("tokenizer.ggml.add_bos_token", Item::Bool(true));
    assert_eq!(ids(&tokenizer(&fixture), "ab"), [6, 4]);
    fixture.set("tokenizer.ggml.add_eos_token", Item::Bool(true));
    assert_eq!(ids(&tokenizer(&fixture), "ab"), [6, 4, 0]);
    let pair = tokenizer(&fixture).encode(("ab", "a"), true).unwrap();
    assert_eq!(pair.get_ids(), [6, 4, 0, 6, 1, 0]);
    fixture.remove("tokenizer.ggml.bos_token_id");
    assert!(fixture.refusal().contains("bos_token_id`: expected the start token"));
}

#[test]
fn llama_3_prefers_whole_tokens_and_begins_with_bos() {
    let mut fixture = Fixture::new("llama");
    fixture.set("tokenizer.ggml.bos_token_id", Item::U32(0));
    fixture.set("tokenizer.ggml.pre", text("llama-bpe")).set("tokenizer.ggml.merges", texts(&["Ġ a"]));
    assert_eq!(ids(&tokenizer(&fixture), "ab"), [0, 4]);
}

#[test]
fn unused_tokens_are_left_out() {
    let tokens = ["<|end|>", "a", "[PAD2]"];
    let mut fixture = with_tokens(Fixture::new("llama"), &tokens, &[3, 1, 5]);
    fixture.set("tokenizer.ggml.merges", texts(&[]));
    assert_eq!(tokenizer(&fixture).get_vocab_size(true), 2);
}

#[test]
fn inconsistent_vocabularies_are_refused() {
    let tokens = ["<|end|>", "a", "b", "Ġ", "ab", "Ġa", "a"];
    for (key, item, message) in [
        ("tokenizer.ggml.tokens", texts(&tokens), "tokens 1 and 6: expected different texts"),
        ("tokenizer.ggml.tokens", texts(&["", "a", "b", "c", "d", "e", "f"]), "token 0: expected a text"),
        ("tokenizer.ggml.token_type", Item::I32s(vec![1]), "expected 7 values, one per token, found 1"),
        ("tokenizer.ggml.token_type", Item::I32s(vec![3, 1, 1, 1, 1, 1, 6]), "found 6"),
        ("tokenizer.ggml.token_type", Item::I32s(vec![3, 1, 1, 1, 1, 1, 0]), "found 0"),
        ("tokenizer.ggml.merges", texts(&["a z"]), "merge 0: expected two tokens"),
        ("tokenizer.ggml.merges", texts(&["ab"]), "merge 0: expected two tokens"),
        ("tokenizer.ggml.merges", texts(&["b a"]), "merge 0: expected two tokens"),
        ("tokenizer.ggml.eos_token_id", Item::U32(7), "expected a token below 7, found 7"),
    ] {
        let refusal = Fixture::new("llama").set(key, item).refusal();
        assert!(refusal.contains(message), "{refusal}");
    }
    for key in ["pre", "token_type", "merges", "eos_token_id", "model"] {
        let key = format!("tokenizer.ggml.{key}");
        assert!(Fixture::new("llama").remove(&key).refusal().contains(&key));
    }
}

/// A SentencePiece vocabulary: unknown, start, end, 256 bytes, then `pieces` from the best score down.
fn sentencepiece(pieces: &[&str]) -> Fixture {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec!["<unk>", "<s>", "</s>"];
    tokens.extend(bytes.iter().map(String::as_str));
    tokens.extend(pieces);
    let kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).chain(vec![1; pieces.len()]).collect();
    let scores = (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { 258.0 - id as f32 }).collect();
    let mut fixture = with_tokens(Fixture::new("llama"), &tokens, &kinds);
    fixture.set("tokenizer.ggml.model", text("llama")).remove("tokenizer.ggml.eos_token_id");
    fixture.set("tokenizer.ggml.scores", Item::F32s(scores));
    fixture
}

const PIECES: [&str; 13] = ["▁a", "ab", "▁▁", "ba", "▁ab", "bab", "aba", "▁▁ab", "baba", "a", "b", "▁", "bb"];

/// SentencePiece by definition: join the neighbours with the best union, the leftmost of equals, until none
/// is left.
fn by_definition(text: &str) -> Vec<u32> {
    let prefixed = format!("▁{}", text.replace(' ', "▁"));
    let rank = |union: &str| PIECES.iter().position(|piece| *piece == union);
    let mut symbols: Vec<String> = prefixed.chars().map(String::from).collect();
    while let Some((_, at)) =
        (1..symbols.len()).filter_map(|at| Some((rank(&symbols[at - 1..=at].concat())?, at))).min()
    {
        let right = symbols.remove(at);
        symbols[at - 1].push_str(&right);
    }
    let id = |symbol: &String| 259 + rank(symbol).unwrap() as u32;
    std::iter::once(1).chain(symbols.iter().map(id)).collect()
}

#[test]
fn sentencepiece_merges_follow_the_scores() {
    let tokenizer = tokenizer(&sentencepiece(&PIECES));
    for number in 0..3u32.pow(8) {
        let digit = |place: u32| ['a', 'b', ' '][(number / 3u32.pow(place) % 3) as usize];
        let text: String = (0..8).map(digit).collect();
        assert_eq!(ids(&tokenizer, &text), by_definition(&text), "{text:?}");
    }
}

#[test]
fn sentencepiece_falls_back_to_bytes() {
    let tokenizer = tokenizer(&sentencepiece(&PIECES));
    let encoded = ids(&tokenizer, "ab é\n");
    assert_eq!(encoded, [1, 263, 270, 3 + 0xC3, 3 + 0xA9, 3 + 0x0A]);
    assert_eq!(tokenizer.decode(&encoded, true).unwrap(), "ab é\n");
    assert_eq!(ids(&tokenizer, "</s>ab"), [1, 2, 263]);
}

#[test]
fn sentencepiece_without_a_space_prefix() {
    let mut fixture = sentencepiece(&PIECES);
    fixture.set("tokenizer.ggml.add_space_prefix", Item::Bool(false));
    assert_eq!(ids(&tokenizer(&fixture), "ab ab"), [1, 260, 263]);
    assert_eq!(tokenizer(&fixture).decode(&[263], true).unwrap(), " ab");
}

#[test]
fn sentencepiece_that_cannot_be_recovered_is_refused() {
    let tied = Item::F32s(vec![-1000.0; 259 + PIECES.len()]);
    let refusal = sentencepiece(&PIECES).set("tokenizer.ggml.scores", tied).refusal();
    assert!(refusal.contains("the order of merges is unknown"), "{refusal}");
    let refusal = sentencepiece(&PIECES).set("tokenizer.ggml.scores", Item::F32s(vec![0.0])).refusal();
    assert!(refusal.contains("one per token, found 1"), "{refusal}");
    assert!(
        sentencepiece(&PIECES).remove("tokenizer.ggml.scores").refusal().contains("tokenizer.ggml.scores")
    );
    let mut missing = sentencepiece(&PIECES);
    if let Some((_, Item::Texts(tokens))) = missing.items.iter_mut().find(|(key, _)| key.ends_with(".tokens"))
    {
        tokens[3 + 0x41] = "A".into();
    }
    assert!(missing.refusal().contains("found none for `<0x41>`"));
}
