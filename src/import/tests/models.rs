//! Whole models: what arrives in the directory, and what is refused.

use super::*;
use crate::import::{ImportDtype, import_gguf};
use half::bf16;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with a file `model.gguf` that holds `bytes`.
fn stored(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("model.gguf");
    fs::write(&file, bytes).unwrap();
    (directory, file)
}

/// Imports `fixture`, and runs `test` on the directory.
fn imported<T>(fixture: &Fixture, dtype: ImportDtype, test: impl FnOnce(&Path) -> T) -> T {
    let (directory, file) = stored(&fixture.bytes());
    let out = directory.path().join("out");
    import_gguf(&file, &out, dtype).unwrap();
    test(&out)
}

fn json(file: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn config(fixture: &Fixture) -> Value {
    imported(fixture, ImportDtype::Bf16, |out| json(out.join("config.json")))
}

/// The f32 values of one tensor of an imported directory.
fn values(out: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    let data = model.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn names(out: &Path) -> Vec<String> {
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let mut names: Vec<_> =
        SafeTensors::deserialize(&bytes).unwrap().names().iter().map(|n| n.to_string()).collect();
    names.sort_unstable();
    names
}

/// Every value of the fixture's tensor at `index` starts from this.
fn start(index: usize) -> f32 {
    100.0 * index as f32
}

#[test]
fn a_llama_directory_is_complete() {
    imported(&Fixture::new("llama"), ImportDtype::F32, |out| {
        let mut files: Vec<_> =
            fs::read_dir(out).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        files.sort_unstable();
        let expected = [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(files, expected);
        let inputs = &json(out.join("tokenizer_config.json"))["model_input_names"];
        assert_eq!(*inputs, serde_json::json!(["input_ids", "attention_mask"]));
        assert_eq!(names(out).len(), 11);
        let embedding: Vec<f32> = (0..56).map(|i| i as f32).collect();
        assert_eq!(values(out, "model.embed_tokens.weight"), embedding);
        assert_eq!(values(out, "model.layers.0.mlp.down_proj.weight")[0], start(10));
    });
}

#[test]
fn the_config_holds_what_the_file_says() {
    let config = config(&Fixture::new("llama"));
    for (key, value) in [
        ("hidden_size", 8),
        ("head_dim", 4),
        ("intermediate_size", 12),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 1),
        ("max_position_embeddings", 64),
        ("vocab_size", 7),
        ("eos_token_id", 0),
        ("pad_token_id", 0),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["rope_theta"], 1e6);
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!((&config["rope_scaling"], &config["bos_token_id"]), (&Value::Null, &Value::Null));
}

#[test]
fn llama_query_and_key_rows_return_to_their_places() {
    imported(&Fixture::new("llama"), ImportDtype::F32, |out| {
        let rows = |name: &str, index| -> Vec<f32> {
            values(out, name).iter().step_by(8).map(|v| (v - start(index)) / 8.0).collect()
        };
        let q = rows("model.layers.0.self_attn.q_proj.weight", 3);
        assert_eq!(q, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(rows("model.layers.0.self_attn.k_proj.weight", 4), [0.0, 2.0, 1.0, 3.0]);
        assert_eq!(rows("model.layers.0.self_attn.v_proj.weight", 5), [0.0, 1.0, 2.0, 3.0]);
    });
}

#[test]
fn qwen2_has_biases_and_rows_in_place() {
    imported(&Fixture::new("qwen2"), ImportDtype::F32, |out| {
        let q: Vec<f32> = (0..64).map(|i| start(3) + i as f32).collect();
        assert_eq!(values(out, "model.layers.0.self_attn.q_proj.weight"), q);
        let bias: Vec<f32> = (0..4).map(|i| start(12) + i as f32).collect();
        assert_eq!(values(out, "model.layers.0.self_attn.k_proj.bias"), bias);
        assert_eq!(names(out).len(), 14);
        assert_eq!(json(out.join("config.json"))["architectures"][0], "Qwen2ForCausalLM");
    });
}

#[test]
fn an_output_tensor_unties_the_head() {
    let mut fixture = Fixture::new("llama");
    fixture.floats("output.weight", &[7, 8]);
    imported(&fixture, ImportDtype::F32, |out| {
        assert_eq!(values(out, "lm_head.weight")[0], start(11));
        assert_eq!(json(out.join("config.json"))["tie_word_embeddings"], false);
    });
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let mut fixture = Fixture::new("llama");
    let exact = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.1 / 256.0, -0.0, 1e-40, 3.0, 7.0f32];
    fixture.tensors[1].3 = exact.iter().flat_map(|v| v.to_le_bytes()).collect();
    imported(&fixture, ImportDtype::Bf16, |out| {
        let bytes = fs::read(out.join("model.safetensors")).unwrap();
        let model = SafeTensors::deserialize(&bytes).unwrap();
        let norm: Vec<u16> = model
            .tensor("model.norm.weight")
            .unwrap()
            .data()
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        assert_eq!(norm[..5], [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000]);
        assert_eq!(norm[5], bf16::from_f32(1e-40).to_bits());
    });
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let mut fixture = Fixture::new("llama");
        fixture.tensors[4].3[..4].copy_from_slice(&value.to_le_bytes());
        let (directory, file) = stored(&fixture.bytes());
        let out = directory.path().join("out");
        let error = import_gguf(&file, &out, ImportDtype::Bf16).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains("`model.layers.0.self_attn.k_proj.weight`"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left behind");
    }
}

#[test]
fn linear_scaling_is_kept_and_others_are_refused() {
    let mut fixture = Fixture::new("llama");
    fixture.set("llama.rope.scaling.type", text("linear")).set("llama.rope.scaling.factor", Item::F32(4.0));
    let scaling = &config(&fixture)["rope_scaling"];
    assert_eq!((&scaling["type"], &scaling["factor"]), (&"linear".into(), &4.0.into()));
    let mut older = Fixture::new("llama");
    older.set("llama.rope.scale_linear", Item::F32(2.0));
    assert_eq!(config(&older)["rope_scaling"]["factor"], 2.0);
    fixture.set("llama.rope.scaling.type", text("yarn"));
    assert!(fixture.refusal().contains("found `yarn`"));
    fixture.set("llama.rope.scaling.type", text("linear")).set("llama.rope.scaling.factor", Item::F32(-4.0));
    assert!(fixture.refusal().contains("expected a positive number, found -4"));
}

/// Ids of tokens at which llama.cpp ends a generation: by role, and by text.
#[test]
fn every_end_of_a_turn_ends_a_generation() {
    let ends = |changes: &[(&str, Item)]| {
        let mut fixture = Fixture::new("llama");
        changes.iter().for_each(|(key, item)| _ = fixture.set(key, item.clone()));
        imported(&fixture, ImportDtype::F32, |out| {
            let of = |name: &str| json(out.join(name))["eos_token_id"].clone();
            assert_eq!(of("generation_config.json"), of("config.json"));
            of("generation_config.json")
        })
    };
    let (eot, eom) = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id");
    assert_eq!(ends(&[]), 0, "<|end|> is the end token itself");
    assert_eq!(ends(&[(eot, Item::U32(6))]), serde_json::json!([0, 6]));
    assert_eq!(ends(&[(eot, Item::U32(6)), (eom, Item::U32(5))]), serde_json::json!([0, 6, 5]));
    assert_eq!(ends(&[(eot, Item::U32(0))]), 0);
    let tokens = ["<|end|>", "a", "b", "Ġ", "ab", "Ġa", "<|im_end|>"];
    assert_eq!(ends(&[("tokenizer.ggml.tokens", texts(&tokens))]), serde_json::json!([0, 6]));
    let beyond = Fixture::new("llama").set(eot, Item::U32(7)).refusal();
    assert!(beyond.contains("eot_token_id") && beyond.contains("below 7"), "{beyond}");
}

#[test]
fn keys_that_nobody_knows_are_named_or_refused() {
    let mut fixture = Fixture::new("llama");
    fixture.set("general.sampling.temp", Item::F32(0.5)).set("somebody.else", Item::U32(1));
    let notes = fixture.read(|model| model.unwrap().report(ImportDtype::F32).notes);
    assert_eq!(notes, ["metadata keys not known and not read: somebody.else"]);
    for key in ["llama.something", "tokenizer.ggml.something", "tokenizer.ggml.remove_extra_whitespaces"] {
        let refusal = Fixture::new("llama").set(key, Item::Bool(true)).refusal();
        assert!(refusal.contains(key) && refusal.contains("found true"), "{refusal}");
    }
    Fixture::new("llama")
        .set("tokenizer.ggml.remove_extra_whitespaces", Item::Bool(false))
        .read(|model| assert!(model.is_ok()));
}

#[test]
fn what_is_not_supported_is_named() {
    for (key, item, message) in [
        ("general.architecture", text("gemma3"), "found `gemma3`"),
        ("general.type", text("adapter"), "found `adapter`"),
        ("split.count", Item::U32(3), "one of 3 parts"),
        ("llama.expert_count", Item::U32(8), "`llama.expert_count`"),
        ("llama.attention.sliding_window", Item::U32(4096), "`llama.attention.sliding_window`"),
        ("llama.rope.dimension_count", Item::U32(2), "partial rotation"),
        ("llama.vocab_size", Item::U32(8), "expected as many tokens as `llama.vocab_size` says, 8, found 7"),
        ("tokenizer.ggml.model", text("t5"), "found `t5`"),
        ("tokenizer.ggml.pre", text("tekken"), "found `tekken`"),
        ("tokenizer.ggml.precompiled_charsmap", text(""), "`tokenizer.ggml.precompiled_charsmap`"),
    ] {
        let refusal = Fixture::new("llama").set(key, item).refusal();
        assert!(refusal.contains(message), "{refusal}");
    }
}

#[test]
fn tensors_must_be_those_of_the_architecture() {
    let rope = Fixture::new("llama").floats("rope_freqs.weight", &[2]).refusal();
    assert!(rope.contains("`rope_freqs.weight`") && rope.contains("llama3 rope scaling"), "{rope}");
    let bias = Fixture::new("llama").floats("blk.0.attn_q.bias", &[8]).refusal();
    assert!(bias.contains("`blk.0.attn_q.bias`"), "{bias}");
    let mut fixture = Fixture::new("llama");
    fixture.tensors[3].0 = "blk.0.attn_qkv.weight".into();
    assert!(fixture.refusal().contains("`blk.0.attn_q.weight`: expected shape [8, 8], found no such"));
    fixture.tensors[3].0 = "blk.0.attn_q.weight".into();
    fixture.tensors[3].1 = vec![4, 16];
    assert!(fixture.refusal().contains("expected shape [8, 8] from the hyperparameters, found [4, 16]"));
}

#[test]
fn an_occupied_output_is_refused_and_an_empty_one_filled() {
    let (directory, file) = stored(&Fixture::new("llama").bytes());
    let occupied = import_gguf(&file, directory.path(), ImportDtype::Bf16).unwrap_err();
    assert_eq!(occupied.kind(), ErrorKind::Usage);
    assert_eq!(import_gguf(&file, &file, ImportDtype::Bf16).unwrap_err().kind(), ErrorKind::Usage);
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let report = import_gguf(&file, &empty, ImportDtype::Bf16).unwrap();
    assert_eq!((report.vocab_size, report.tensors, report.parameters), (7, 11, 560));
    assert!(empty.join("config.json").exists());
}

#[test]
fn a_missing_file_is_named() {
    let directory = TempDir::new().unwrap();
    let error = import_gguf(Path::new("no/such.gguf"), &directory.path().join("out"), ImportDtype::Bf16);
    assert!(error.unwrap_err().to_string().contains("no/such.gguf"));
}

/// A zip archive of the named members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn an_archive_must_hold_exactly_one_model() {
    let model = Fixture::new("llama").bytes();
    let import = |members: &[(&str, &[u8])]| {
        let (directory, file) = stored(&archive(members));
        import_gguf(&file, &directory.path().join("out"), ImportDtype::Bf16)
    };
    assert_eq!(import(&[("a/README.md", b"read"), ("a/model.gguf", &model)]).unwrap().tensors, 11);
    let none = import(&[("README.md", b"read")]).unwrap_err();
    assert!(none.to_string().contains("found 0 []"), "{none}");
    let two = import(&[("a.gguf", &model), ("b.gguf", &model)]).unwrap_err();
    assert!(two.to_string().contains("found 2 [a.gguf, b.gguf]"), "{two}");
}

#[test]
fn damaged_archives_and_bombs_are_refused() {
    let import = |bytes: &[u8]| {
        let (directory, file) = stored(bytes);
        import_gguf(&file, &directory.path().join("out"), ImportDtype::Bf16).unwrap_err()
    };
    let whole = archive(&[("model.gguf", &Fixture::new("llama").bytes())]);
    for length in (0..whole.len()).step_by(7) {
        assert_eq!(import(&whole[..length]).kind(), ErrorKind::Model);
    }
    let mut changed = whole.clone();
    changed[200] ^= 1;
    assert_eq!(import(&changed).kind(), ErrorKind::Model);
    let bomb = import(&archive(&[("model.gguf", &vec![0; 80 << 20])]));
    assert!(bomb.to_string().contains("expected at most"), "{bomb}");
}
