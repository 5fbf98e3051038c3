use std::f64::consts::TAU;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::error::{Error, ErrorKind};

fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(model)
}

/// The configuration of a golden model with some fields replaced.
fn edited(model: &str, fields: Value) -> String {
    let text = fs::read_to_string(golden(model).join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    config.extend(fields.as_object().unwrap().clone());
    Value::Object(config).to_string()
}

fn llama(fields: Value) -> Result<Config> {
    Config::from_json(&edited("llama-tiny", fields))
}

fn qwen2(fields: Value) -> Result<Config> {
    Config::from_json(&edited("qwen2-tiny", fields))
}

#[track_caller]
fn refused(result: Result<Config>, named: &[&str]) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    for name in named {
        assert!(error.to_string().contains(name), "{name:?} not in: {error}");
    }
}

#[test]
fn golden_configurations_resolve() {
    let llama = Config::from_dir(&golden("llama-tiny")).unwrap();
    let expected = Config {
        architecture: Architecture::Llama,
        hidden_size: 64,
        intermediate_size: 160,
        num_hidden_layers: 5,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        vocab_size: 512,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        attention_bias: false,
        torch_dtype: Some(Dtype::F32),
    };
    assert_eq!(llama, expected);
    let qwen2 = Config::from_dir(&golden("qwen2-tiny")).unwrap();
    let differs = Config {
        architecture: Architecture::Qwen2,
        rope_theta: 1e6,
        tie_word_embeddings: true,
        attention_bias: true,
        ..expected
    };
    assert_eq!(qwen2, differs);
}

#[test]
fn absent_fields_mean_what_transformers_takes_them_to_mean() {
    let config = llama(json!({
        "num_key_value_heads": null, "head_dim": null, "rope_theta": null, "rms_norm_eps": null, "hidden_act": null,
        "tie_word_embeddings": null, "torch_dtype": null, "architectures": null,
    }))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.rope_theta, config.rms_norm_eps), (1e4, 1e-6));
    assert_eq!((config.tie_word_embeddings, config.torch_dtype), (false, None));
}

#[test]
fn newer_spellings_are_read() {
    let config = llama(json!({
        "torch_dtype": null, "dtype": "bfloat16", "rope_theta": null, "pretraining_tp": 1, "layer_types": ["full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 1.0},
    }))
    .unwrap();
    assert_eq!(config.torch_dtype, Some(Dtype::Bf16));
    assert_eq!((config.rope_theta, config.rope_scaling), (5e5, RopeScaling::None));
    assert_eq!(config, llama(json!({"torch_dtype": "bfloat16", "rope_theta": 500_000})).unwrap());
}

#[test]
fn ids_that_are_not_used_may_be_anything() {
    for field in ["pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"] {
        for value in [json!(-1), json!(512), json!([1, 9999]), json!(u64::MAX), json!("x")] {
            assert_eq!(llama(json!({ field: value })).unwrap(), llama(json!({})).unwrap(), "{field}");
        }
    }
}

#[test]
fn unknown_fields_are_named_but_not_those_about_generation() {
    let dir = tempfile::tempdir().unwrap();
    let fields = json!({"new_thing": 1, "nothing": null, "no_repeat_ngram_size": 3, "use_cache": true});
    fs::write(dir.path().join("config.json"), edited("llama-tiny", fields)).unwrap();
    let mut notes = Vec::new();
    Config::with_notes(dir.path(), &mut notes).unwrap();
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(note.contains("config.json") && note.contains("\"new_thing\""), "{note}");
    assert!(!note.contains("nothing") && !note.contains("ngram") && !note.contains("use_cache"), "{note}");
}

#[test]
fn rope_scaling_variants() {
    let linear = RopeScaling::Linear { factor: 4.0 };
    let scaling = |rope| llama(json!({ "rope_scaling": rope })).map(|config| config.rope_scaling);
    assert_eq!(scaling(json!({"type": "linear", "factor": 4.0})).unwrap(), linear);
    assert_eq!(scaling(json!({"rope_type": "linear", "type": "linear", "factor": 4})).unwrap(), linear);
    assert_eq!(scaling(json!({"rope_type": "default"})).unwrap(), RopeScaling::None);
    assert_eq!(scaling(json!({})).unwrap(), RopeScaling::None);
}

#[test]
fn unsupported_rope_is_refused_by_name() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                        "original_max_position_embeddings": 8192});
    let broken = |field: &str, value: Value| {
        let mut rope = llama3.clone();
        rope[field] = value;
        rope
    };
    for (rope, named) in [
        (json!({"type": "yarn", "factor": 4.0}), "yarn"),
        (json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
        (json!({"rope_type": "longrope", "long_factor": [1.0]}), "longrope"),
        (json!({"rope_type": 3}), "rope_type"),
        (json!({"type": "linear"}), "factor"),
        (json!({"type": "linear", "factor": 0.5}), "factor"),
        (json!({"type": "linear", "factor": -1}), "factor"),
        (json!({"factor": 2.0}), "factor"),
        (json!({"type": "linear", "factor": 2, "attention_factor": 2}), "attention_factor"),
        (json!({"type": "linear", "factor": 2, "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"type": "linear", "rope_type": "llama3", "factor": 2}), "type"),
        (json!({"full_attention": {"rope_type": "default"}}), "full_attention"),
        (json!("linear"), "rope_scaling"),
        (broken("high_freq_factor", json!(1)), "high_freq_factor"),
        (broken("low_freq_factor", json!(0)), "low_freq_factor"),
        (broken("original_max_position_embeddings", json!(0)), "original_max_position_embeddings"),
        (broken("original_max_position_embeddings", Value::Null), "original_max_position_embeddings"),
    ] {
        refused(llama(json!({ "rope_scaling": rope })), &["rope_scaling", named]);
    }
    refused(llama(json!({"rope_parameters": {"rope_theta": 5e5}})), &["rope_theta", "500000"]);
    refused(
        llama(json!({"rope_parameters": {}, "rope_scaling": {"type": "linear", "factor": 2}})),
        &["rope_parameters"],
    );
}

#[test]
fn unsupported_models_are_refused_by_name() {
    for (field, value) in [
        ("architectures", json!(["MistralForCausalLM"])),
        ("architectures", json!(["LlamaForCausalLM", "Qwen2ForCausalLM"])),
        ("architectures", json!([])),
        ("model_type", json!("mistral")),
        ("hidden_act", json!("gelu")),
        ("mlp_bias", json!(true)),
        ("attention_bias", json!(true)),
        ("use_sliding_window", json!(true)),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("pretraining_tp", json!(2)),
        ("partial_rotary_factor", json!(0.5)),
        ("rope_interleaved", json!(true)),
        ("attention_dropout", json!(0.1)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("auto_map", json!({"AutoModelForCausalLM": "modeling.Model"})),
        ("torch_dtype", json!("float64")),
    ] {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        refused(llama(json!({ field: value })), &[field, &shown]);
    }
    refused(llama(json!({"architectures": null, "model_type": null})), &["architectures"]);
    refused(qwen2(json!({"attention_bias": false})), &["attention_bias"]);
    assert!(qwen2(json!({"attention_bias": true, "sliding_window": 4096})).is_ok());
}

#[test]
fn sizes_out_of_range_are_refused_by_name() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
    ] {
        for wrong in
            [json!(0), json!(-1), json!(64.5), json!("64"), json!(true), json!([64]), json!(1u64 << 63)]
        {
            refused(llama(json!({ field: wrong })), &[field]);
        }
    }
    for required in
        ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    {
        refused(llama(json!({ required: null })), &[required, "found nothing"]);
    }
    refused(llama(json!({"num_attention_heads": 6})), &["num_attention_heads"]);
    refused(llama(json!({"num_key_value_heads": 3})), &["num_key_value_heads", "divisor"]);
    refused(llama(json!({"num_key_value_heads": 8})), &["num_key_value_heads", "divisor"]);
    refused(llama(json!({"head_dim": 15})), &["head_dim", "even"]);
    refused(llama(json!({"hidden_size": 4 * 2048})), &["head_dim", "1024"]);
    refused(llama(json!({"hidden_size": 60})), &["head_dim", "even"]);
    for wrong in [json!(0.0), json!(-1e-6), json!(2.0), json!(1e-300), json!("1e-6")] {
        refused(llama(json!({ "rms_norm_eps": wrong })), &["rms_norm_eps"]);
    }
    for wrong in [json!(0), json!(-1e4), json!(1e300)] {
        refused(llama(json!({ "rope_theta": wrong })), &["rope_theta"]);
    }
}

#[test]
fn head_dim_is_independent_of_hidden_size_where_given() {
    let config = llama(json!({"head_dim": 32})).unwrap();
    assert_eq!((config.q_size(), config.kv_size()), (128, 64));
}

#[test]
fn malformed_files_are_refused() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let nan = edited("llama-tiny", json!({"rms_norm_eps": 12345})).replace("12345", "NaN");
    let overflow = edited("llama-tiny", json!({"rms_norm_eps": 12345})).replace("12345", "1e999");
    for text in ["", "{", "[]", "null", "{}x", &deep, &nan, &overflow] {
        refused(Config::from_json(text), &["config.json", "not a valid JSON object"]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    refused(Config::from_dir(dir.path()), &["config.json", "No such file"]);
    fs::write(&path, b"{\"hidden_act\": \"\xff\"}").unwrap();
    refused(Config::from_dir(dir.path()), &["config.json"]);
    // Sparse: what is not read costs nothing.
    fs::File::create(&path).unwrap().set_len(8 << 30).unwrap();
    refused(Config::from_dir(dir.path()), &["config.json", "at most 1048576 bytes", "8589934592"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(Config::from_dir(dir.path()), &["config.json", "not a regular file"]);
}

#[test]
fn a_long_hostile_value_is_shown_cut() {
    let error = llama(json!({"hidden_act": "é".repeat(100_000)})).unwrap_err();
    assert!(error.to_string().len() < 500, "{error}");
}

/// The rule as `transformers` writes it: by wavelength, in three cases.
fn llama3_by_wavelength(
    head_dim: usize,
    theta: f64,
    factor: f64,
    low: f64,
    high: f64,
    context: f64,
) -> Vec<f32> {
    let scaled = |inv_freq: f64| {
        let wavelength = TAU / inv_freq;
        if wavelength < context / high {
            return inv_freq;
        }
        if wavelength > context / low {
            return inv_freq / factor;
        }
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
    };
    (0..head_dim / 2).map(|i| scaled(1.0 / theta.powf((2 * i) as f64 / head_dim as f64)) as f32).collect()
}

#[track_caller]
fn assert_close(found: f32, expected: f64) {
    assert!((f64::from(found) / expected - 1.0).abs() < 2e-7, "expected {expected:e}, found {found:e}");
}

#[test]
fn plain_and_linear_frequencies() {
    let plain = llama(json!({})).unwrap().rope_frequencies();
    assert_eq!(plain.len(), 8);
    // 10000^(-2i/16) = 10^(-i/2).
    for (i, &found) in plain.iter().enumerate() {
        assert_close(found, 10f64.powf(-0.5 * i as f64));
    }
    let linear =
        llama(json!({"rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap().rope_frequencies();
    assert!(linear.iter().zip(&plain).all(|(a, b)| a * 4.0 == *b));
}

#[test]
fn llama3_frequencies() {
    let config = llama(json!({"head_dim": 128, "rope_theta": 500_000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}}))
    .unwrap();
    let found = config.rope_frequencies();
    // Computed by hand, outside this crate, for Llama 3.1: kept up to 28, blended from 29 to 34, then divided
    // by 8.
    for (i, expected) in [
        (0, 1.0),
        (1, 0.8146172338565447),
        (28, 0.0032114459947525913),
        (29, 0.002166570763503359),
        (31, 0.0008567514129196321),
        (34, 0.00017850781276799638),
        (35, 9.556212353964683e-05),
        (63, 3.068925988914511e-07),
    ] {
        assert_close(found[i], expected);
    }
    let independent = llama3_by_wavelength(128, 500_000.0, 8.0, 1.0, 4.0, 8192.0);
    for (&found, expected) in found.iter().zip(independent) {
        assert_close(found, f64::from(expected));
    }
}

proptest! {
    /// Any byte of a configuration may be anything: an answer or a refusal, never a panic.
    #[test]
    fn damaged_configurations_do_not_panic(at in 0usize..576, byte: u8) {
        let mut text = fs::read(golden("qwen2-tiny").join("config.json")).unwrap();
        text[at] = byte;
        if let Err(error) = Fields::parse("config.json".to_owned(), &CONFIG, &text).and_then(|fields| resolve(&fields)) {
            prop_assert_eq!(error.kind(), ErrorKind::Model);
        }
    }
}
