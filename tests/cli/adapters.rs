//! Adapters with a guard and without one.

use std::path::Path;

use super::run;
use super::tiny::{Tiny, copy_folder, golden};

/// A tiny model with the adapter that PEFT wrote for it in `adapter`, which has no guard.
fn with_a_plain_adapter() -> Tiny {
    let tiny = Tiny::new("llama");
    copy_folder(&golden().join("lora/llama-tiny"), &tiny.path("adapter"));
    tiny
}

const GENERATE: &str = "generate --model model --adapter adapter --max-new-tokens 8 abc";

#[test]
fn a_plain_adapter_works_where_no_guard_is_needed() {
    let tiny = with_a_plain_adapter();
    let generated = run(&tiny, GENERATE).ok();
    assert!(!generated.stderr.contains("prompt score"), "{}", generated.stderr);
    let json = run(&tiny, &format!("{GENERATE} --json")).ok().json_lines();
    assert!(json[0]["prompt_score"].is_null() && json[0]["guided"] == false, "{}", json[0]);
    run(&tiny, "export --model model --adapter adapter --merge --out merged").ok();
    let merged = run(&tiny, "generate --model merged --max-new-tokens 8 abc").ok();
    assert_eq!(merged.stdout, generated.stdout);
    let probe = |adapter: &str| {
        let data = "--data data/train --max-seq-len 160 --folds 3 --json";
        run(&tiny, &format!("probe --model model {adapter} {data}")).ok().json()
    };
    assert_ne!(probe("--adapter adapter")["layers"], probe("")["layers"], "the adapter changes the states");
}

#[test]
fn a_plain_adapter_is_told_from_a_guard() {
    let tiny = with_a_plain_adapter();
    let plain = run(&tiny, &format!("{GENERATE} --no-guard")).ok();
    assert_eq!(plain.stdout, run(&tiny, GENERATE).ok().stdout);
    run(&tiny, &format!("{GENERATE} --guidance-strength 1"))
        .fails(2, &["--guidance-strength", "with a guard"]);
    let said = ["--rescore-every adjusts the guidance", "not guided"];
    run(&tiny, &format!("{GENERATE} --rescore-every 2")).fails(2, &said);
    for option in ["--guidance-cap 1", "--unguided-tokens abc"] {
        let said = [option.split(' ').next().unwrap(), "adjusts the guidance", "not guided"];
        run(&tiny, &format!("{GENERATE} {option}")).fails(2, &said);
    }
    let said = ["adapter: this is a plain adapter", "a guard is", "a run of the method deepguard"];
    run(&tiny, "score --model model --adapter adapter prompt.py").fails(2, &said);
    // Before the model is looked for, which may have to be downloaded.
    run(&tiny, "score --model nowhere --adapter adapter prompt.py").fails(2, &said);
}

fn remove(tiny: &Tiny, file: &str) {
    std::fs::remove_file(tiny.path(file)).unwrap();
}

#[test]
fn half_an_adapter_is_refused() {
    let tiny = super::trained();
    copy_folder(&tiny.path("run/adapter"), &tiny.path("adapter"));
    let restored = || copy_folder(&tiny.path("run/adapter"), &tiny.path("adapter"));
    remove(&tiny, "adapter/manifest.json");
    for [missing, there] in [
        ["deepguard_config.json", "deepguard_model.safetensors"],
        ["deepguard_model.safetensors", "deepguard_config.json"],
    ] {
        remove(&tiny, &format!("adapter/{missing}"));
        run(&tiny, GENERATE).fails(4, &[missing, there, "half"]);
        restored();
        remove(&tiny, "adapter/manifest.json");
    }
    // A folder with a manifest says what belongs to it.
    restored();
    remove(&tiny, "adapter/deepguard_config.json");
    remove(&tiny, "adapter/deepguard_model.safetensors");
    run(&tiny, GENERATE).fails(4, &["deepguard_config.json", "manifest.json"]);
    remove(&tiny, "adapter/manifest.json");
    run(&tiny, GENERATE).ok();

    remove(&tiny, "adapter/adapter_model.safetensors");
    run(&tiny, GENERATE).fails(4, &["adapter_model.safetensors", "expected the adapter's weights"]);
    std::fs::write(tiny.path("adapter/adapter_model.bin"), "").unwrap();
    for command in [GENERATE, "export --model model --adapter adapter --merge --out merged"] {
        run(&tiny, command).fails(4, &["adapter_model.bin", "pickle", "never read", "save_pretrained"]);
    }
}

#[test]
fn what_is_no_adapter_is_told() {
    let tiny = with_a_plain_adapter();
    let with = |path: &str, named: &[&str]| {
        run(&tiny, &GENERATE.replace("--adapter adapter", &format!("--adapter {path}"))).fails(4, named);
    };
    with("nowhere", &["nowhere", "nothing of this name"]);
    with("model/config.json", &["model/config.json", "another file"]);
    with("model", &["model", "no adapter_config.json"]);
    copy_folder(Path::new(&tiny.path("adapter")), &tiny.path("runs/checkpoint-2"));
    with("runs", &["no adapter_config.json", "there is one in runs/checkpoint-2"]);
    for control in ["secure", "vulnerable"] {
        copy_folder(Path::new(&tiny.path("adapter")), &tiny.path(&format!("sven/checkpoint-3/{control}")));
    }
    with("sven", &["no adapter_config.json", "there is one in sven/checkpoint-3"]);
}
