//! Adapter folders: what is saved comes back exactly, what PEFT wrote is read, what does not fit is refused
//! by name.

#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{final_logits, score};
use deepguard::guard::{Aggregation, GuardConfig};
use deepguard::init::initialize;
use deepguard::model::config::Config;
use deepguard::model::lora::{LoraConfig, Projection};
use deepguard::model::prefix::PrefixConfig;
use deepguard::model::transformer::Transformer;
use deepguard::{ErrorKind, Result, adapter};
use serde_json::{Value, json};
use tiny::{Tiny, edit_json, edit_tensors};

const TOKENS: [u32; 9] = [5, 77, 201, 3, 3, 150, 99, 280, 41];

/// A tiny model and an adapter folder for it.
struct Saved {
    tiny: Tiny,
    dir: PathBuf,
    config: Config,
}

impl Saved {
    fn new(architecture: &str) -> Self {
        let tiny = Tiny::new(architecture);
        let (dir, config) = (tiny.path("adapter"), Config::from_dir(&tiny.model()).unwrap());
        std::fs::create_dir(&dir).unwrap();
        save(&dir, &tiny::attached(&config, 3), &config);
        Saved { tiny, dir, config }
    }

    fn load(&self) -> Result<Attached<Cpu>> {
        adapter::load(&Cpu::new(), &self.dir, &self.config)
    }

    #[track_caller]
    fn refused(&self, named: &[&str]) {
        let error = self.load().err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Model, "{error}");
        named.iter().for_each(|name| assert!(error.to_string().contains(name), "{name:?} not in: {error}"));
    }

    /// Runs `check` on a folder changed by `edit`, then puts the folder back.
    fn with(&self, edit: impl FnOnce(&Path), check: impl FnOnce(&Self)) {
        let backup = self.tiny.path("backup");
        tiny::copy_folder(&self.dir, &backup);
        edit(&self.dir);
        check(self);
        std::fs::remove_dir_all(&self.dir).unwrap();
        std::fs::rename(backup, &self.dir).unwrap();
    }
}

fn save(dir: &Path, attached: &Attached<Cpu>, config: &Config) {
    adapter::save(dir, attached, config, "tiny").unwrap();
}

fn assert_same(a: &Attached<Cpu>, b: &Attached<Cpu>) {
    assert_eq!(a.params.layout(), b.params.layout());
    let guard = |of: &Attached<Cpu>| of.guard.as_ref().map(|guard| guard.config);
    assert_eq!(
        (&a.lora.as_ref().unwrap().config, guard(a), &a.stats),
        (&b.lora.as_ref().unwrap().config, guard(b), &b.stats)
    );
    for param in a.params.layout().params() {
        assert_eq!(a.params.download(param).unwrap(), b.params.download(param).unwrap(), "{}", param.name);
    }
}

#[test]
fn what_is_saved_comes_back_exactly() {
    for architecture in ["llama", "qwen2"] {
        let saved = Saved::new(architecture);
        let (before, after) = (tiny::attached(&saved.config, 3), saved.load().unwrap());
        assert_same(&before, &after);
        let model = saved.tiny.load();
        assert_eq!(score(&model, &before, &TOKENS).unwrap(), score(&model, &after, &TOKENS).unwrap());
    }
}

#[test]
fn every_choice_of_hyper_parameters_comes_back() {
    let saved = Saved::new("qwen2");
    for aggregation in Aggregation::ALL {
        let lora = LoraConfig::default().with(|o| {
            o.rank = 3;
            o.alpha = 4.5;
            o.dropout = 0.15;
            o.targets = Projection::ALL.into_iter().collect();
            o.use_rslora = aggregation == Aggregation::Average;
        });
        let guard = GuardConfig::default().with(|o| {
            o.aggregation = aggregation;
            o.layers = 9;
            o.dropout = 0.3;
        });
        let mut attached = Attached::new(&Cpu::new(), &saved.config, lora, guard).unwrap();
        initialize(&mut attached, 8);
        save(&saved.dir, &attached, &saved.config);
        assert_same(&attached, &saved.load().unwrap());
    }
    // As people write it, not as an f32 looks in double precision.
    let written = tiny::read_json(&saved.dir.join("adapter_config.json"));
    assert_eq!((&written["lora_dropout"], &written["lora_alpha"]), (&json!(0.15), &json!(4.5)));
}

#[test]
fn a_folder_written_by_peft_is_read() {
    for architecture in ["llama", "qwen2"] {
        let saved = Saved::new(architecture);
        let rank_16 = Attached::new(
            &Cpu::new(),
            &saved.config,
            LoraConfig::default_for(&saved.config),
            GuardConfig::default(),
        );
        save(&saved.dir, &rank_16.unwrap(), &saved.config);
        let peft = tiny::golden().join("lora").join(format!("{architecture}-tiny"));
        tiny::copy_folder(&peft, &saved.dir);
        let attached = saved.load().unwrap();
        let written = tiny::read_tensors(&peft.join("adapter_model.safetensors"));
        assert_eq!(written.len(), 2 * attached.lora.as_ref().unwrap().pairs().count());
        for (name, _, values) in written {
            let param = attached.params.layout().params().iter().find(|p| p.name == name).unwrap();
            assert_eq!(attached.params.download(param).unwrap(), values, "{name}");
        }
        // The adapter has an effect, and PEFT's `all-linear` is the list of all linear layers.
        let model = saved.tiny.load();
        let with = final_logits(&model, Some(&attached), &TOKENS).unwrap();
        assert_ne!(with, final_logits(&model, None, &TOKENS).unwrap());
    }
}

#[test]
fn tensors_must_be_those_of_the_configuration() {
    let saved = Saved::new("llama");
    for file in ["adapter_model.safetensors", "deepguard_model.safetensors"] {
        let edited = |edit: &dyn Fn(&mut Vec<tiny::Tensor>), named: &[&str]| {
            saved.with(|dir| edit_tensors(&dir.join(file), |tensors| edit(tensors)), |s| s.refused(named));
        };
        let first = tiny::read_tensors(&saved.dir.join(file)).remove(0).0;
        edited(&|tensors| drop(tensors.remove(0)), &[file, "1 of", "missing", &first]);
        edited(&|tensors| tensors[0].0 = "stray".into(), &[file, "missing", &first, "unknown", "stray"]);
        edited(&|tensors| tensors[0].1.insert(0, 1), &[&first, "expected shape"]);
        edited(&|tensors| tensors[0].2[1] = f32::NAN, &[&first, "element 1", "NaN"]);
        edited(&|tensors| tensors[0].2[0] = f32::INFINITY, &[&first, "element 0", "inf"]);
    }
    let stats = |tensors: &mut Vec<tiny::Tensor>| {
        let stats = tensors.iter_mut().find(|t| t.0 == "token_security_stats").unwrap();
        stats.2[7] = f32::NAN;
    };
    saved.with(
        |dir| edit_tensors(&dir.join("deepguard_model.safetensors"), stats),
        |s| s.refused(&["token_security_stats", "element 7"]),
    );
}

#[test]
fn options_of_peft_that_are_not_implemented_are_refused() {
    let saved = Saved::new("llama");
    let cases = [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("modules_to_save", json!(["lm_head"])),
        ("fan_in_fan_out", json!(true)),
        ("layers_to_transform", json!([0])),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("an_option_of_the_future", json!("on")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("olora")),
        ("use_rslora", json!("yes")),
        ("peft_type", json!("LOHA")),
        ("task_type", json!("SEQ_CLS")),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!("q_proj|v_proj")),
        ("target_modules", json!([])),
        ("r", json!(0)),
        ("r", json!(4.5)),
        ("r", json!(1u64 << 40)),
        ("r", Value::Null),
        ("lora_alpha", json!("8")),
        ("lora_dropout", json!(1.5)),
    ];
    for (name, value) in cases {
        let edit = |dir: &Path| edit_json(&dir.join("adapter_config.json"), |c| c[name] = value.clone());
        saved.with(edit, |s| s.refused(&[name]));
    }
    let neutral = [
        ("init_lora_weights", json!("gaussian")),
        ("inference_mode", json!(false)),
        ("peft_version", json!("0.99")),
        ("an_option_of_the_future", Value::Null),
        ("use_rslora", Value::Null),
    ];
    for (name, value) in neutral {
        let edit = |dir: &Path| edit_json(&dir.join("adapter_config.json"), |c| c[name] = value.clone());
        saved.with(edit, |s| drop(s.load().unwrap()));
    }
}

#[test]
fn an_adapter_of_another_base_model_is_refused() {
    let saved = Saved::new("llama");
    // Same sizes, other architecture.
    let other = Saved::new("qwen2");
    save(&saved.dir, &tiny::attached(&other.config, 3), &other.config);
    saved.refused(&["deepguard_config.json", "qwen2", "llama", "base model"]);
    for (field, value) in [("vocab_size", 511), ("hidden_size", 32), ("num_hidden_layers", 4)] {
        save(&saved.dir, &tiny::attached(&saved.config, 3), &saved.config);
        edit_json(&saved.dir.join("deepguard_config.json"), |config| config[field] = value.into());
        saved.refused(&["deepguard_config.json", field, "base model"]);
    }
}

#[test]
fn damaged_files_are_refused() {
    let saved = Saved::new("llama");
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "deepguard_config.json",
        "deepguard_model.safetensors",
    ] {
        let path = saved.dir.join(name);
        let content = std::fs::read(&path).unwrap();
        let bad: [&[u8]; 4] = [b"", b"[]", &content[..content.len() / 2], &[0xff; 64]];
        for bytes in bad {
            saved.with(|dir| std::fs::write(dir.join(name), bytes).unwrap(), |s| s.refused(&[name]));
        }
        saved.with(|dir| std::fs::remove_file(dir.join(name)).unwrap(), |s| s.refused(&[name]));
    }
    let fields = [
        ("format_version", json!(2)),
        ("aggregation_method", json!("median")),
        ("num_hidden_layers_to_use", json!(0)),
        ("analyzer_dropout", json!(1.0)),
        ("hidden_widths", json!([1, 2, 3])),
        ("more", json!(1)),
    ];
    for (name, value) in fields {
        let edit = |dir: &Path| edit_json(&dir.join("deepguard_config.json"), |c| c[name] = value.clone());
        saved.with(edit, |s| s.refused(&["deepguard_config.json"]));
    }
}

/// A prefix for each of these controls, saved, of a tiny model.
fn saved_prefixes(controls: usize) -> Saved {
    let tiny = Tiny::new("llama");
    let (dir, config) = (tiny.path("adapter"), Config::from_dir(&tiny.model()).unwrap());
    std::fs::create_dir(&dir).unwrap();
    save(&dir, &prefixes(&config, controls), &config);
    Saved { tiny, dir, config }
}

fn prefixes(model: &Config, controls: usize) -> Attached<Cpu> {
    let config = PrefixConfig { len: 3, dropout: 0.0 };
    let mut attached = Attached::with_prefixes(&Cpu::new(), model, config, controls).unwrap();
    for (number, param) in attached.params.layout().params().to_vec().into_iter().enumerate() {
        let values: Vec<f32> = (0..param.range.len()).map(|i| (i + number) as f32 / 64.0).collect();
        attached.params.upload(&param, &values);
    }
    attached
}

#[test]
fn prefixes_come_back_exactly() {
    for controls in [1, 2] {
        let saved = saved_prefixes(controls);
        let (before, after) = (prefixes(&saved.config, controls), saved.load().unwrap());
        assert_eq!(before.params.layout(), after.params.layout());
        assert_eq!(before.prefix.unwrap().config, after.prefix.unwrap().config);
        for param in before.params.layout().params() {
            assert_eq!(before.params.download(param).unwrap(), after.params.download(param).unwrap());
        }
    }
}

#[test]
fn what_is_no_prefix_of_the_model_is_refused() {
    let saved = saved_prefixes(1);
    let context = saved.config.max_position_embeddings;
    for (name, value) in [
        ("num_virtual_tokens", json!(context)),
        ("num_virtual_tokens", json!(0)),
        ("token_dim", json!(7)),
        ("num_layers", json!(7)),
        ("num_attention_heads", json!(7)),
        ("num_transformer_submodules", json!(2)),
        ("modules_to_save", json!(["lm_head"])),
        ("an_option_of_the_future", json!("on")),
        ("lora_alpha", json!(8)),
        ("task_type", json!("SEQ_CLS")),
    ] {
        let edit = |dir: &Path| edit_json(&dir.join("adapter_config.json"), |c| c[name] = value.clone());
        saved.with(edit, |s| s.refused(&["adapter_config.json", name]));
    }
    for (name, value) in [("token_dim", Value::Null), ("prefix_projection", json!(true))] {
        let edit = |dir: &Path| edit_json(&dir.join("adapter_config.json"), |c| c[name] = value.clone());
        saved.with(edit, |s| drop(s.load().unwrap()));
    }
    let file = "adapter_model.safetensors";
    let edited = |edit: &dyn Fn(&mut Vec<tiny::Tensor>), named: &[&str]| {
        saved.with(|dir| edit_tensors(&dir.join(file), |tensors| edit(tensors)), |s| s.refused(named));
    };
    let stray = |tensors: &mut Vec<tiny::Tensor>| {
        let (_, shape, values) = tensors[0].clone();
        tensors.push(("stray".into(), shape, values));
    };
    edited(&stray, &[file, "1 tensors are unknown: stray"]);
    edited(&|tensors| tensors[0].0 = "other".into(), &[file, "missing: prompt_embeddings"]);
    edited(&|tensors| tensors[0].1.insert(0, 1), &[file, "prompt_embeddings", "expected shape"]);
}

/// Of folders that PEFT wrote, one of them of a prefix that an encoder made, and of one that a run left.
#[test]
fn behind_a_prefix_are_the_logits_that_peft_computes() {
    let folder = tiny::golden().join("prefix");
    let computed = tiny::read_tensors(&folder.join("logits.safetensors"));
    assert_eq!(computed.len(), 3);
    for (name, shape, expected) in computed {
        let base = tiny::golden().join("models").join(Path::new(&name).file_name().unwrap());
        let model = Transformer::load(Cpu::new(), &base).unwrap();
        let attached = adapter::load(&Cpu::new(), &folder.join(&name), &model.config).unwrap();
        assert_eq!(shape, [TOKENS.len(), model.config.vocab_size]);
        let off = |attached| {
            let found = final_logits(&model, attached, &TOKENS).unwrap();
            found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
        };
        assert!(off(Some(&attached)) < 1e-4, "{name}: off by {}", off(Some(&attached)));
        assert!(off(None) > 0.1, "{name}: the prefix changes nothing");
    }
}

/// PEFT has read this folder. If another one is to be written, `tests/golden/prefix/generate.py` has to read
/// it.
#[test]
fn a_prefix_is_written_as_peft_has_read_it() {
    let read = tiny::golden().join("prefix/by-dg-run/llama-tiny");
    let saved = saved_prefixes(1);
    let attached = adapter::load(&Cpu::new(), &read, &saved.config).unwrap();
    let config = tiny::read_json(&read.join("adapter_config.json"));
    let base_model = config["base_model_name_or_path"].as_str().unwrap();
    adapter::save(&saved.dir, &attached, &saved.config, base_model).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let [found, expected] = [&saved.dir, &read].map(|dir| std::fs::read(dir.join(file)).unwrap());
        assert!(found == expected, "{file}");
    }
}

/// Positions of a model are for tokens, too.
#[test]
fn a_prefix_as_long_as_the_context_is_refused() {
    let saved = saved_prefixes(1);
    let context = saved.config.max_position_embeddings;
    let of_len = |len| {
        Attached::with_prefixes(&Cpu::new(), &saved.config, PrefixConfig { len, dropout: 0.0 }, 1).map(drop)
    };
    of_len(context - 1).unwrap();
    for len in [0, context, context + 1] {
        let error = of_len(len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(&len.to_string()), "{error}");
    }
}
