//! Damaged and malicious files: always an error that says what is wrong, never a panic or a huge allocation.

use super::*;

#[test]
fn every_truncation_is_refused() {
    let bytes = Fixture::new("qwen2").bytes();
    for length in 0..bytes.len() {
        refusal(&bytes[..length]);
    }
}

#[test]
fn no_damaged_header_byte_panics() {
    for architecture in ["llama", "qwen2"] {
        let (bytes, start) = Fixture::new(architecture).build();
        for at in 0..start {
            for damage in [0x01, 0x20, 0x80, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[at] ^= damage;
                let _either_way = Model::read(&bytes);
            }
        }
    }
}

#[test]
fn no_absurd_header_word_panics() {
    let (bytes, start) = Fixture::new("llama").build();
    for at in 0..start - 8 {
        for word in [0, u64::MAX, 1 << 63, 1 << 32, (1 << 61) + 1] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            let _either_way = Model::read(&bytes);
        }
    }
}

#[test]
fn lying_counts_are_refused() {
    for at in [8, 16] {
        let mut bytes = Fixture::new("llama").bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        refusal(&bytes);
    }
}

#[test]
fn other_formats_and_versions_are_refused() {
    let mut bytes = Fixture::new("llama").bytes();
    bytes[4] = 1;
    assert!(refusal(&bytes).contains("found version 1"));
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(refusal(&bytes).contains("big-endian"));
    bytes[0] = b'X';
    assert!(refusal(&bytes).contains("starts with `GGUF`"));
}

#[test]
fn impossible_metadata_is_refused() {
    let huge = |code: u32| [&code.to_le_bytes()[..], &(1u64 << 63).to_le_bytes()].concat();
    for (item, message) in [
        (Item::Raw(8, (1u64 << 63).to_le_bytes().into()), "expected 9223372036854775808 more bytes"),
        (Item::Raw(9, huge(8)), "more bytes"),
        (Item::Raw(9, huge(10)), "an array that fits the file"),
        (Item::Raw(9, huge(9)), "nested arrays"),
        (Item::Raw(9, huge(99)), "value type 0 to 12, found 99"),
        (Item::Raw(13, vec![]), "value type 0 to 12, found 13"),
        (Item::Raw(7, vec![2]), "boolean byte 0 or 1, found 2"),
        (Item::Raw(8, [&1u64.to_le_bytes()[..], &[0xFF]].concat()), "UTF-8"),
    ] {
        let refusal = Fixture::new("llama").set("general.name", item).refusal();
        assert!(refusal.contains("`general.name`") && refusal.contains(message), "{refusal}");
    }
}

#[test]
fn wrong_types_are_named() {
    for (key, item) in [
        ("general.architecture", Item::U32(1)),
        ("llama.block_count", text("1")),
        ("llama.attention.head_count", Item::I32s(vec![2])),
        ("llama.rope.freq_base", Item::Bool(true)),
        ("llama.rope.freq_base", Item::F32(f32::NAN)),
        ("tokenizer.ggml.tokens", Item::I32s(vec![1])),
        ("tokenizer.ggml.token_type", Item::F32s(vec![1.0])),
        ("tokenizer.ggml.add_bos_token", Item::U32(1)),
        ("tokenizer.ggml.eos_token_id", Item::F32(0.0)),
        ("general.alignment", Item::U32(48)),
        ("general.alignment", Item::U32(0)),
    ] {
        let refusal = Fixture::new("llama").set(key, item).refusal();
        assert!(refusal.contains(&format!("`{key}`: expected")), "{refusal}");
    }
}

#[test]
fn repetition_is_refused() {
    let mut fixture = Fixture::new("llama");
    fixture.items.push(("general.architecture".into(), text("llama")));
    assert!(fixture.refusal().contains("key `general.architecture`: expected once"));
    assert!(
        Fixture::new("llama")
            .floats("output_norm.weight", &[8])
            .refusal()
            .contains("tensor `output_norm.weight`: expected once")
    );
}

#[test]
fn impossible_tensors_are_refused() {
    for (shape, code, message) in [
        (&[][..], F32_CODE, "1 to 4 axes, found 0"),
        (&[1, 1, 1, 1, 1], F32_CODE, "1 to 4 axes, found 5"),
        (&[8, 0], F32_CODE, "at least 1, found 0"),
        (&[1 << 40, 1 << 40], F32_CODE, "fits in memory"),
        (&[1 << 40], F32_CODE, "found a file of"),
        (&[8], 8, "multiple of 32 values for type Q8_0, found 8"),
        (&[256], 16, "found IQ2_XXS"),
        (&[256], 31, "unknown type code 31"),
    ] {
        let refusal = Fixture::new("llama").tensor("extra", shape, code, vec![]).refusal();
        assert!(refusal.contains("tensor `extra`") && refusal.contains(message), "{refusal}");
    }
}

#[test]
fn misplaced_tensors_are_refused() {
    let (bytes, _) = Fixture::new("llama").build();
    let entry = bytes.windows(18).position(|w| w == b"output_norm.weight").unwrap();
    // After the name: the number of axes, one axis, the type, then the offset.
    let offset = entry + 18 + 4 + 8 + 4;
    for (value, message) in [
        (8u64, "a multiple of 32, found 8"),
        (1 << 40, "found a file of"),
        (u64::MAX - 31, "found a file of"),
        (0, "overlapping"),
    ] {
        let mut bytes = bytes.clone();
        bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        let refusal = refusal(&bytes);
        assert!(refusal.contains("`output_norm.weight`") && refusal.contains(message), "{refusal}");
    }
}

#[test]
fn what_could_not_be_loaded_is_refused() {
    let refusal = Fixture::new("llama").set("llama.context_length", Item::U32(0)).refusal();
    assert!(refusal.contains("max_position_embeddings") && refusal.contains("found 0"), "{refusal}");
}

#[test]
fn absurd_hyperparameters_are_refused() {
    for name in ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"] {
        for value in [0, 3, u32::MAX] {
            Fixture::new("llama").set(&format!("llama.{name}"), Item::U32(value)).refusal();
        }
    }
}
