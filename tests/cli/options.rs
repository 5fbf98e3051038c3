//! Options of `dg-run train`: where they may stand, when they are checked, and what is said about them.

use serde_json::{Value, json};

use super::{run, run_with};
use crate::tiny::{Tiny, pair, read_json};

const TRAIN: &str = "train --model model --data data --output-dir run --batch-size 2 --max-seq-len 160 --lora-r 2 \
                     --max-steps 2 --save-steps 1";

fn write(tiny: &Tiny, name: &str, text: &str) {
    std::fs::write(tiny.path(name), text).unwrap();
}

#[test]
fn mistakes_are_told_together_and_before_a_model_is_looked_for() {
    let tiny = Tiny::new("llama");
    write(&tiny, "run.toml", "learning_rate = \"1e-4\"\nseeed = 1\nval_data = \"nowhere\"\nlora_r = 0\n");
    run(&tiny, "train --config run.toml --model org/none --batch-size 0").fails(
        2,
        &[
            "6 mistakes",
            "run.toml:1: learning_rate: expected a number, found \"1e-4\"",
            "run.toml:2: unknown key `seeed`; did you mean `seed`?",
            "run.toml:3: val_data: ",
            "run.toml:4: lora_r: expected 1 to 65536, found 0",
            "--batch-size: expected 1 to 2147483648, found 0",
            "--data is required",
        ],
    );
    // A path alone is a matter of data, or of a checkpoint.
    run(&tiny, "train --model org/none --data nowhere").fails(3, &["--data", "nowhere"]);
    run(&tiny, "train --model org/none --data data --resume-from-checkpoint nowhere")
        .fails(4, &["--resume-from-checkpoint", "nowhere"]);
    assert!(!tiny.path("runs").exists(), "a folder was made for a run that cannot begin");
}

/// A flag that can have no effect is a mistake; a file may be a template with every option.
#[test]
fn options_of_another_method_are_told() {
    let tiny = Tiny::new("llama");
    write(&tiny, "run.toml", "method = \"ce\"\nkl_weight = 1.0\nmargin = 0.5\n");
    run(&tiny, &format!("{TRAIN} --config run.toml --margin 0.4 --guard-layers 2")).fails(
        2,
        &["--margin: the method ce has no such part", "--guard-layers: the method ce has no such part"],
    );
    run(&tiny, &format!("{TRAIN} --method cee")).fails(2, &["cee", "deepguard, ce, safecoder"]);
    run(&tiny, &format!("{TRAIN} --config run.toml --dry-run")).ok();
}

#[test]
fn a_folder_that_is_used_is_the_last_complaint() {
    let tiny = Tiny::new("llama");
    run(&tiny, TRAIN).ok();
    let done = run(&tiny, &format!("{TRAIN} --margin 2"));
    assert!(!done.stderr.contains("earlier run"), "{}", done.stderr);
    done.fails(2, &["--margin: expected a number from 0 to 1, found 2"]);
    // Before the model is loaded: there is none.
    std::fs::rename(tiny.path("model"), tiny.path("other")).unwrap();
    run(&tiny, TRAIN).fails(2, &["--output-dir", "run/checkpoint-2", "earlier run"]);
}

#[test]
fn a_run_s_own_configuration_makes_the_same_run() {
    let tiny = Tiny::new("llama");
    run(&tiny, &format!("{TRAIN} --target_modules all-linear --recompute gate-up")).ok();
    run(&tiny, "train --config run/train_config.json --output_dir again").ok();
    let [mut first, mut again] =
        ["run", "again"].map(|run| read_json(&tiny.path(run).join("train_config.json")));
    assert_eq!(
        (first["target_modules"].as_str(), again["output_dir"].as_str()),
        (Some("all-linear"), Some("again"))
    );
    // The limits of the model are in it.
    assert_eq!(first["guard_layers"], 4);
    for config in [&mut first, &mut again] {
        config["output_dir"] = Value::Null;
    }
    assert_eq!(first, again);
    let losses = |run: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(tiny.path(run).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["total"].clone()).collect()
    };
    assert_eq!(losses("run"), losses("again"));
}

#[test]
fn device_and_threads_may_stand_in_the_file() {
    let tiny = Tiny::new("llama");
    write(&tiny, "run.toml", "device = \"cpu\"\nthreads = 3\ndtype = \"f32\"\n");
    let done = run(&tiny, &format!("{TRAIN} --config run.toml")).ok();
    assert!(done.stderr.contains("in f32, 3 threads; run folder: run"), "{}", done.stderr);
    assert!(done.stderr.contains("model: model, llama with 5 layers of width 64"), "{}", done.stderr);
    write(&tiny, "run.toml", "device = \"cpu\"\nthreads = 0\ndtype = \"bf16\"\n");
    run(&tiny, "train --config run.toml --model model --data data").fails(
        2,
        &[
            "run.toml:2: threads: expected 1 to 4096, found 0",
            "run.toml:3: dtype: the processor computes in f32 only",
        ],
    );
}

#[test]
fn limits_of_the_model_are_checked_before_its_weights_are_loaded() {
    let tiny = Tiny::new("llama");
    std::fs::write(tiny.path("model/model.safetensors"), "no weights").unwrap();
    let train = "train --model model --data data --output-dir run";
    run(&tiny, &format!("{train} --guard-layers 6 --max-seq-len 4096")).fails(
        2,
        &["--guard-layers: expected at most 5 layers, which the model has, found 6", "--max-seq-len", "2048"],
    );
    run(&tiny, train).fails(4, &["cannot load the base model model: ", "model.safetensors"]);
    assert!(!tiny.path("run").exists());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let tiny = Tiny::new("llama");
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(tiny.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let done = run(&tiny, &format!("{TRAIN} --dry-run")).ok();
    assert_eq!(files(), before);
    for said in [
        "training: 8 pairs",
        "validation: 3 pairs",
        "MiB of working memory",
        "2 steps",
        "nothing was written",
    ] {
        assert!(done.stdout.contains(said), "{said:?} not in: {}", done.stdout);
    }
    assert!(!done.stdout.contains("a step took"), "{}", done.stdout);
    // What is planned is what is taken.
    let planned = done.stdout.lines().find(|line| line.contains("working memory")).unwrap();
    let taken = run(&tiny, &TRAIN.replace("--max-steps 2", "--max-steps 2 --num-epochs 3")).ok().stderr;
    assert!(taken.contains(planned), "{planned:?} not in: {taken}");
    // Of a run that goes on, it is known how long a step takes; of another course, that it cannot go on.
    let more = format!("{TRAIN} --num-epochs 3 --resume-from-checkpoint run/checkpoint-1 --dry-run");
    let done = run(&tiny, &more).ok().stdout;
    assert!(done.contains("continuing after step 1") && done.contains("a step took "), "{done}");
    run(&tiny, &format!("{more} --seed 1")).fails(2, &["seed: 42 there, 1 here"]);
    run(&tiny, &format!("{TRAIN} --dry-run")).fails(2, &["earlier run"]);
    run(&tiny, "train --model model --data data --dry-run --margin 2").fails(2, &["--margin"]);
}

#[test]
fn a_resume_names_every_option_that_differs() {
    let tiny = Tiny::new("llama");
    run(&tiny, TRAIN).ok();
    let resume = format!("{TRAIN} --resume-from-checkpoint");
    run(&tiny, &format!("{resume} auto --learning-rate 3e-4 --lora_dropout 0.2")).fails(
        2,
        &["run/checkpoint-2", "learning_rate: ", "there, 0.0003 here", "lora_dropout: 0.1 there, 0.2 here"],
    );
    run(&tiny, &resume.replace("--data data", "--data data/val --val-data data/train")).fails(
        2,
        &["training pairs: 8 of data (", "there, 3 of data/val (", "validation pairs: 3 of data/val ("],
    );
    tiny.edit_tensor("model.norm.weight", |values| values[0] += 1.0);
    let done = run(&tiny, &resume);
    assert!(!done.stderr.contains("pairs:"), "{}", done.stderr);
    done.fails(2, &["weights of the base model: model (BLAKE3 "]);
}

#[test]
fn quiet_and_verbose() {
    let tiny = Tiny::new("llama");
    let quiet = run(&tiny, &format!("-q {TRAIN}")).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    run(&tiny, &format!("{TRAIN} --quiet")).fails(2, &["earlier run"]);
    let verbose =
        run(&tiny, &format!("{TRAIN} -v --output-dir second").replace("--output-dir run ", "")).ok().stderr;
    for said in ["tokenising 11 pairs", "validating on 3 pairs", "lora xa", "first moments", "step 2/2"] {
        assert!(verbose.contains(said), "{said:?} not in: {verbose}");
    }
    run(&tiny, &format!("{TRAIN} -q -v")).fails(2, &["--quiet", "--verbose"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_bar_says_what_goes_on_before_the_first_step() {
    let tiny = Tiny::new("llama");
    crate::tiny::write_pairs(&tiny.path("many/pairs.jsonl"), 0..24);
    let shown =
        super::terminal::shown(&tiny.path(""), &format!("{TRAIN} --val-data many"), &[("TERM", "xterm")]);
    let is_time = |word: &str| word.strip_suffix('s').is_some_and(|seconds| seconds.parse::<u32>().is_ok());
    let line_with = |text: &str| shown.split(['\r', '\n']).find(|line| line.contains(text));
    for text in ["validating on 24 pairs", "2/2"] {
        let line = line_with(text).unwrap_or_else(|| panic!("no {text} in: {shown}"));
        assert!(line.split_whitespace().any(is_time), "{line}");
    }
}

#[test]
fn pairs_that_are_lost_to_the_limit_are_warned_of() {
    let tiny = Tiny::new("llama");
    let long = "x = 1\n".repeat(60);
    let lost = json!({"func_src_before": format!("{long}a"), "func_src_after": format!("{long}b")});
    let cut = json!({"func_src_before": format!("a{long}"), "func_src_after": format!("b{long}")});
    let lines: Vec<String> = (0..4).map(pair).chain([lost, cut]).map(|pair| pair.to_string()).collect();
    write(&tiny, "pairs.jsonl", &lines.join("\n"));
    let train = "train --model model --data pairs.jsonl --max-steps 1 --lora-r 2";
    let limit = "--max-seq-len 160";
    let said = "warning: training: of 6 pairs, 1 are cut to 160 tokens, and 1 are left out";
    let trained = run(&tiny, &format!("{train} {limit} -o run -q")).ok().stderr;
    assert!(trained.starts_with(said), "{trained}");
    let checked = run(&tiny, &format!("data check pairs.jsonl --model model {limit} -q")).ok().stderr;
    assert_eq!(checked, trained);
    // With the limit that it names, nothing is lost.
    let (_, rest) = trained.split_once("--max-seq-len ").unwrap();
    let enough = rest.split(' ').next().unwrap();
    for command in [format!("{train} -o enough"), "data check pairs.jsonl --model model".to_owned()] {
        assert_eq!(run(&tiny, &format!("{command} --max-seq-len {enough} -q")).ok().stderr, "");
        let less = enough.parse::<usize>().unwrap() - 1;
        let done = run(&tiny, &format!("{} --max-seq-len {less} -q", command.replace("enough", "less"))).ok();
        assert!(done.stderr.contains("warning: training"), "{}", done.stderr);
    }
}

#[test]
fn help_has_groups_and_the_defaults_of_the_library() {
    let tiny = Tiny::new("llama");
    let help = run(&tiny, "train --help").ok().stdout;
    let groups = ["Model", "Data", "Training", "LoRA", "Guard", "Checkpoints", "Device and memory", "Output"];
    for group in groups {
        assert!(help.contains(&format!("\n{group}:\n")), "{group} is missing in: {help}");
    }
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "Peak learning rate [default: 2e-5]",
        "Pairs per micro-batch [default: 8]",
        "Run folder [default: runs/deepguard]",
        "[default: attention]",
        "Dropout in the analyzer [default: 0.1]",
        "Largest norm of the gradients [default: 1]",
        "cuda or cuda:N [default: auto]",
    ] {
        assert!(words.contains(said), "{said:?} is missing in: {words}");
    }
    // Every default of the library stands there, and no other: see `dg-run config`.
    let template: toml::Table = toml::from_str(&run(&tiny, "config").ok().stdout).unwrap();
    for (key, default) in template.iter().filter(|(_, default)| !default.is_bool()) {
        let flag = format!("--{} <", key.replace('_', "-"));
        let (_, entry) = words.split_once(&flag).unwrap_or_else(|| panic!("{flag} is missing in: {words}"));
        let entry = entry.split(" --").next().unwrap();
        let (_, shown) =
            entry.split_once("[default: ").unwrap_or_else(|| panic!("no default of {key}: {entry}"));
        let shown = shown.split(']').next().unwrap();
        let same = match default {
            toml::Value::String(text) => shown == text,
            number => shown.parse::<f64>().unwrap() == number.to_string().parse::<f64>().unwrap(),
        };
        assert!(same, "{key}: {default} in the file, {shown} in the help");
    }
}

#[test]
fn wrong_types_of_fields_that_are_not_needed_are_no_matter() {
    let tiny = Tiny::new("llama");
    let others = [
        json!({"vul_type": null, "func_name": null, "file_name": null}),
        json!({"vul_type": 89, "func_name": ["f"], "file_name": {"a": 1}}),
        json!({"vul_type": true, "char_changes": {"added": null}, "line_changes": "none", "commit_link": 1.5}),
        json!({"vul_type": "cwe-089", "file_name": "a.py", "description": {"deep": [[[]]]}}),
    ];
    let mut lines: Vec<String> = Vec::new();
    for (i, other) in others.iter().enumerate() {
        let mut record = pair(i);
        record.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        lines.push(record.to_string());
    }
    // Half a surrogate, and a field that is there twice.
    for other in [r#""file_name": "\ud800""#, r#""vul_type": "a", "vul_type": "b""#] {
        let halves =
            json!({"func_src_before": format!("a{}", lines.len()), "func_src_after": "b"}).to_string();
        lines.push(format!("{}, {other}}}", halves.trim_end_matches('}')));
    }
    write(&tiny, "pairs.jsonl", &lines.join("\n"));
    let report: Value =
        serde_json::from_str(&run(&tiny, "data check pairs.jsonl --model model --json").ok().stdout).unwrap();
    assert_eq!((&report["train"]["pairs"], &report["train"]["bad_records"]["count"]), (&6.into(), &0.into()));
    assert_eq!(report["train"]["by_cwe"]["cwe-089"], 1);
    let trained = run(&tiny, "train --model model --data pairs.jsonl --max-steps 1 --lora-r 2 -o run").ok();
    assert!(trained.stderr.contains("training: 6 pairs"), "{}", trained.stderr);
}

#[test]
fn check_and_train_agree_about_pairs() {
    let tiny = Tiny::new("llama");
    let cases = [
        (json!({"func_src_before": "f()\n", "func_src_after": "f()"}), "identical"),
        (json!({"func_src_before": " f()", "func_src_after": "f()\r\n"}), "identical"),
        (json!({"func_src_before": "a:\n  b\n  c", "func_src_after": "a:\n  b\nc"}), "usable"),
        (json!({"func_src_before": "f()", "func_src_after": "f() "}), "identical"),
        (json!({"func_src_before": "", "func_src_after": "f()"}), "bad"),
        (json!({"func_src_before": "f()", "func_src_after": " \n\t"}), "bad"),
        (json!({"func_src_before": "f()", "func_src_after": "g()"}), "usable"),
    ];
    let of = |kind: &str| cases.iter().filter(|(_, expected)| *expected == kind).count();
    let lines: Vec<String> = cases.iter().map(|(record, _)| record.to_string()).collect();
    write(&tiny, "pairs.jsonl", &lines.join("\n"));
    let check = "data check pairs.jsonl --on-bad-record skip --json";
    for arguments in [check.to_owned(), format!("{check} --model model")] {
        let report: Value = serde_json::from_str(&run(&tiny, &arguments).ok().stdout).unwrap();
        let split = &report["train"];
        assert_eq!(split["identical"]["count"], of("identical"), "{split}");
        assert_eq!(split["bad_records"]["count"], of("bad"), "{split}");
        assert_eq!(split["pairs"], of("identical") + of("usable"), "{split}");
    }
    let train = "train --model model --data pairs.jsonl --on-bad-record skip --max-steps 1 --lora-r 2 -o run";
    let trained = run(&tiny, train).ok().stderr;
    let said = format!(
        "training: {} pairs (0 cut to the length limit, {} dropped as identical within it; {} records left out",
        of("usable"),
        of("identical"),
        of("bad")
    );
    assert!(trained.contains(&said), "{said:?} not in: {trained}");
    // Neither is content with pairs of which nothing can be learnt.
    write(&tiny, "pairs.jsonl", &lines[..2].join("\n"));
    let checked = run_with(&tiny, &["data", "check", "pairs.jsonl"], b"");
    assert!(checked.code == 3 && checked.stderr.contains("no pair"), "{}", checked.stderr);
    run(&tiny, &train.replace("-o run", "-o other")).fails(3, &["pairs.jsonl", "no pair is left"]);
}
