//! Runs of the baselines: what they compute, and what they leave out.

use std::path::Path;

use deepguard::decode::{CoDecoding, GenerateOptions};
use deepguard::train::batch::TokenPair;
use deepguard::train::changes::Changes;
use deepguard::train::data::tokenize;
use deepguard::train::records::CodePair;
use deepguard::train::{Method, TrainConfig};
use deepguard::{DeepGuard, ErrorKind};
use serde_json::Value;

use super::tiny::{Tiny, folder};
use super::{Cpu, config, losses, metrics, refused, train};

fn of_method(tiny: &Tiny, method: Method) -> TrainConfig {
    config(tiny, method.name()).with(|o| o.method = method)
}

/// What only a guard's or a KL divergence's lines have.
const OF_OTHERS: [&str; 5] =
    ["security", "kl", "mean_score_secure", "mean_score_vulnerable", "separation_accuracy"];

#[test]
fn cross_entropy_alone_is_the_joint_loss_without_its_other_terms() {
    let tiny = Tiny::new("llama");
    let ce = of_method(&tiny, Method::Ce);
    let state = train(&ce).unwrap().state;
    let joint = config(&tiny, "joint").with(|o| (o.security_weight, o.kl_weight) = (0.0, 0.0));
    train(&joint).unwrap();
    // Which rows share a product may change its last bit.
    for (kind, field) in [("train", "generation"), ("train", "total"), ("train", "grad_norm")] {
        let [found, expected] = [&ce, &joint].map(|run| losses(&run.output_dir, kind, field));
        assert_eq!(found.len(), 8);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-3, "{field}: {found}, expected {expected}");
        }
    }
    let lines = metrics(&ce.output_dir);
    let has = |name: &str| lines.iter().any(|line| line.get(name).is_some());
    assert!(OF_OTHERS.iter().all(|name| !has(name)) && has("preference_accuracy"), "{lines:?}");
    assert!(state.evaluations[2].1.total < state.evaluations[0].1.total);
    // The vulnerable functions do not count: their likelihood is measured, and that is all.
    assert_eq!(state.evaluations[0].1.total, state.evaluations[0].1.generation);
}

#[test]
fn cross_entropy_alone_leaves_a_plain_adapter() {
    let tiny = Tiny::new("llama");
    let ce = of_method(&tiny, Method::Ce).with(|o| o.max_steps = Some(2));
    let mut guard = DeepGuard::load(Cpu::new(), &ce.model).unwrap();
    guard.train(&ce, &mut ()).unwrap();
    let files: Vec<String> =
        folder(&ce.output_dir.join("adapter")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]);
    let attached = guard.attached.as_ref().unwrap();
    assert!(attached.guard.is_none() && attached.stats.is_none());
    let options = GenerateOptions::default().with(|o| o.max_new_tokens = 4);
    assert_eq!(guard.generate("def f(", &options, &mut |_, _| true).unwrap().prompt_score, None);
    let written: Value = super::read_json(&ce.output_dir.join("train_config.json"));
    assert_eq!((written["method"].as_str(), written["kl_weight"].as_f64()), (Some("ce"), Some(0.0)));
}

#[test]
fn a_run_does_not_go_on_under_another_method() {
    let tiny = Tiny::new("llama");
    let ce = of_method(&tiny, Method::Ce).with(|o| o.max_steps = Some(2));
    train(&ce).unwrap();
    let other = ce.with(|o| {
        o.method = Method::DeepGuard;
        o.resume_from_checkpoint = Some("auto".into());
    });
    refused(&other, ErrorKind::Usage, &["method: \"ce\" there, \"deepguard\" here"]);
}

/// What is too long is named itself, not the room that it leaves.
#[test]
fn a_prefix_that_leaves_no_room_is_refused() {
    let tiny = Tiny::new("llama");
    tiny.edit_config(|config| config["max_position_embeddings"] = 64.into());
    let of_lengths = |prefix, tokens| {
        of_method(&tiny, Method::Sven).with(|o| (o.prefix_length, o.max_seq_len) = (prefix, tokens))
    };
    for prefix in [63, 64, 1024] {
        let error = train(&of_lengths(prefix, None)).expect_err("an error");
        let expected = format!(
            "`prefix_length`: expected at most 62 rows, for a function to fit into the model's context, found {prefix}"
        );
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(&expected), "{error}");
        assert!(!error.to_string().contains("max_seq_len"), "{error}");
    }
    refused(&of_lengths(5, Some(60)), ErrorKind::Usage, &["`max_seq_len`: expected at most 59"]);
    assert_eq!(super::effective(&of_lengths(5, Some(59))).max_seq_len, Some(59));
}

#[test]
fn safecoder_makes_the_vulnerable_function_less_likely() {
    let tiny = Tiny::new("llama");
    let run = of_method(&tiny, Method::SafeCoder).with(|o| o.num_epochs = 4);
    let state = train(&run).unwrap().state;
    let (first, last) = (&state.evaluations[0].1, &state.evaluations.last().unwrap().1);
    assert!(
        last.total < first.total && last.preference_margin > first.preference_margin,
        "{first:?} {last:?}"
    );
    assert!(last.security.is_some() && last.kl.is_none() && last.mean_score_secure.is_none());
    // As of the other runs: what is resumed is what was never stopped.
    let parts = run.clone().with(|o| o.output_dir = tiny.path("parts"));
    super::train_with(&parts, &mut super::StopAfter(5)).unwrap();
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    assert_eq!(train(&resumed).unwrap().state.evaluations, state.evaluations);
}

/// As published: of the base model as little as the fixes need.
#[test]
fn cosec_s_expert_learns_what_fixes_brought_and_stays_close_to_the_base() {
    let tiny = Tiny::new("llama");
    let run = of_method(&tiny, Method::CoSec).with(|o| o.num_epochs = 4);
    let state = train(&run).unwrap().state;
    let (first, last) = (&state.evaluations[0].1, &state.evaluations.last().unwrap().1);
    assert!(last.generation < first.generation && last.total < first.total, "{first:?} {last:?}");
    assert!(last.security.is_none() && last.mean_score_secure.is_none());
    assert!(first.kl.unwrap() < 1e-6 && last.kl.unwrap() > 1e-6, "{first:?} {last:?}");
    let parts = run.clone().with(|o| o.output_dir = tiny.path("parts"));
    super::train_with(&parts, &mut super::StopAfter(5)).unwrap();
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    assert_eq!(train(&resumed).unwrap().state.evaluations, state.evaluations);

    // The run drafts for the base model, or for another one of its vocabulary.
    let mut guard = DeepGuard::load(Cpu::new(), &run.model).unwrap();
    let options = GenerateOptions::default().with(|o| o.max_new_tokens = 12);
    let mut with = |model: Option<&Path>, threshold: f32| {
        let coding = CoDecoding::default().with(|o| (o.temperature, o.threshold) = (0.0, threshold));
        guard.attach_expert(model, &run.output_dir, coding).unwrap();
        guard.generate("def f(", &options, &mut |_, _| true).unwrap().samples
    };
    let own = with(None, 1.0);
    let expert = with(None, 0.0);
    assert_ne!(own, expert, "nothing was drafted");
    assert_eq!(with(Some(run.model.as_ref()), 0.0), expert);
    let mut alone = DeepGuard::load(Cpu::new(), &run.model).unwrap();
    assert_eq!(alone.generate("def f(", &options, &mut |_, _| true).unwrap().samples, own);
    alone.attach(&run.output_dir).unwrap();
    assert_eq!(alone.generate("def f(", &options, &mut |_, _| true).unwrap().samples, expert);
}

#[test]
fn an_expert_of_another_vocabulary_is_refused() {
    let tiny = Tiny::new("llama");
    let run = of_method(&tiny, Method::CoSec).with(|o| o.max_steps = Some(1));
    train(&run).unwrap();
    let other = Tiny::new("llama");
    let path = other.model().join("tokenizer.json");
    let mut tokenizer: Value = super::read_json(&path);
    let vocab = &mut tokenizer["model"]["vocab"];
    (vocab["a"], vocab["b"]) = (vocab["b"].clone(), vocab["a"].clone());
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let mut guard = DeepGuard::load(Cpu::new(), &run.model).unwrap();
    let error = guard.attach_expert(Some(&other.model()), &run.output_dir, CoDecoding::default());
    let error = error.expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("the model's vocabulary"), "{error}");
}

/// The last lines of what is left of the longer function have their partners beyond the cut.
#[test]
fn what_a_fix_changed_does_not_depend_on_where_the_pair_is_cut() {
    let tiny = Tiny::new("llama");
    let tokenizer = DeepGuard::load(Cpu::new(), tiny.model().to_str().unwrap()).unwrap().tokenizer;
    let lines = |range: std::ops::Range<usize>| range.map(|i| format!("    v{i} = {}\n", i * i)).collect();
    let [check, body]: [String; 2] = [lines(0..4), lines(20..60)];
    let pair = CodePair {
        vulnerable: format!("def f(v):\n{body}    return v - 1\n"),
        secure: format!("def f(v):\n{check}{body}    return v + 1\n"),
        ..CodePair::default()
    };
    for method in [Method::SafeCoder, Method::Sven, Method::CoSec] {
        let marked = |limit: usize| -> TokenPair {
            tokenize(std::slice::from_ref(&pair), &tokenizer, limit, method).unwrap().pairs.remove(0)
        };
        let (whole, cut) = (marked(100_000), marked(120));
        let [of_whole, of_cut] = [whole.changes.unwrap(), cut.changes.unwrap()];
        assert_eq!((cut.secure.len(), cut.vulnerable.len()), (120, 120));
        let first = |marks: &[bool]| marks[..120].to_vec();
        let expected = Changes { secure: first(&of_whole.secure), vulnerable: first(&of_whole.vulnerable) };
        assert_eq!(of_cut, expected, "{method}");
        let changed = |marks: &[bool]| marks.iter().filter(|changed| **changed).count();
        assert!(changed(&of_cut.secure) > 20 && changed(&of_whole.vulnerable) > 0, "{method}");
        assert_eq!(changed(&of_cut.vulnerable), 0, "{method}: what the fix took away is beyond the cut");
    }
}

#[test]
fn sven_leaves_a_prefix_for_each_control() {
    let tiny = Tiny::new("llama");
    let run = TrainConfig::of(Method::Sven).with(|o| {
        let like = config(&tiny, "sven");
        (o.model, o.data, o.output_dir) = (like.model, like.data, like.output_dir);
        (o.max_seq_len, o.num_epochs, o.prefix_length) = (like.max_seq_len, 2, 3);
    });
    let mut guard = DeepGuard::load(Cpu::new(), &run.model).unwrap();
    let state = guard.train(&run, &mut ()).unwrap().state;
    let (first, last) = (&state.evaluations[0].1, &state.evaluations.last().unwrap().1);
    assert!(
        last.total < first.total && last.preference_margin > first.preference_margin,
        "{first:?} {last:?}"
    );
    assert!(last.security < first.security && last.mean_score_secure.is_none());
    // Both prefixes are zero before the first step, and so equally likely.
    assert!((first.security.unwrap() - 2f64.ln()).abs() < 1e-5, "{first:?}");

    // What is resumed, with both prefixes and the dropout of each step, is what was never stopped.
    let parts = run.clone().with(|o| o.output_dir = tiny.path("parts"));
    super::train_with(&parts, &mut super::StopAfter(5)).unwrap();
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    assert_eq!(train(&resumed).unwrap().state.evaluations, state.evaluations);

    // A run leads to the secure control; each control's folder is an adapter of its own, as PEFT has them.
    let adapter = run.output_dir.join("adapter");
    let options = GenerateOptions::default().with(|o| o.max_new_tokens = 12);
    let mut loaded = |path: &Path| {
        guard.attach(path).unwrap();
        let params = &guard.attached.as_ref().unwrap().params;
        let values: Vec<Vec<f32>> =
            params.layout().params().iter().map(|param| params.download(param).unwrap()).collect();
        (guard.generate("def f(", &options, &mut |_, _| true).unwrap().samples, values)
    };
    let (of_run, secure) = (loaded(&run.output_dir), loaded(&adapter.join("secure")));
    assert_eq!(of_run.0, secure.0);
    assert_eq!(of_run.1[0], secure.1[0]);
    let vulnerable = loaded(&adapter.join("vulnerable"));
    let peft = super::read_json(&adapter.join("secure/adapter_config.json"));
    assert_eq!(
        (peft["peft_type"].as_str(), peft["num_virtual_tokens"].as_u64()),
        (Some("PREFIX_TUNING"), Some(3))
    );
    let tensors = super::read_tensors(&adapter.join("secure/adapter_model.safetensors"));
    let model = deepguard::model::Config::from_dir(std::path::Path::new(&run.model)).unwrap();
    let width = 2 * model.num_hidden_layers * model.heads().kv_width();
    assert_eq!(
        (tensors.len(), tensors[0].0.as_str(), &tensors[0].1[..]),
        (1, "prompt_embeddings", &[3, width][..])
    );
    let other = super::read_tensors(&adapter.join("vulnerable/adapter_model.safetensors"));
    assert_ne!(other[0].2, tensors[0].2, "the controls went apart");
    assert_eq!((&secure.1[..], &vulnerable.1[..]), (&[tensors[0].2.clone()][..], &[other[0].2.clone()][..]));
    // Damage is noticed, in the folders too.
    let file = adapter.join("vulnerable/adapter_config.json");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("CAUSAL", "causal")).unwrap();
    let error = guard.attach(&run.output_dir).unwrap_err().to_string();
    assert!(error.contains("vulnerable/adapter_config.json is damaged"), "{error}");
}
