use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tiny::{Tiny, pair};
use crate::{run, run_with};

/// Writes a file of the temporary folder.
fn write(tiny: &Tiny, name: &str, lines: &[String]) {
    std::fs::create_dir_all(tiny.path(name).parent().unwrap()).unwrap();
    std::fs::write(tiny.path(name), lines.join("\n")).unwrap();
}

fn report(tiny: &Tiny, arguments: &str) -> Value {
    serde_json::from_str(&run(tiny, &format!("data check --json {arguments}")).ok().stdout).unwrap()
}

fn record(before: &str, after: &str, more: Value) -> String {
    let mut record = json!({"func_src_before": before, "func_src_after": after});
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record.to_string()
}

#[test]
fn data_check_counts_what_there_is() {
    let tiny = Tiny::new("llama");
    let long = "x = 1\n".repeat(200);
    let lines = [
        record("def f():\n  a", "def f():\n  b", json!({"vul_type": "cwe-089", "file_name": "a/b.py"})),
        record("int f() { a; }", "int f() { b; }", json!({"vul_type": "cwe-787", "file_name": "c.c"})),
        record("def f():\n  a", "def f():\n  b", json!({"vul_type": "cwe-089", "file_name": "other.py"})),
        record("same", " same\n", json!({})),
        record(&format!("{long}a"), &format!("{long}b"), json!({"file_name": "long.unheard-of"})),
    ];
    write(&tiny, "pairs/train/x.jsonl", &lines);
    let leak = record("something else", "int f() { b; }", json!({"vul_type": "cwe-787"}));
    write(&tiny, "pairs/val/y.jsonl", &[record("q", "r", json!({})), leak]);

    let report = report(&tiny, "pairs --model model --max-seq-len 100");
    let train = &report["train"];
    assert_eq!(train["pairs"], 5);
    assert_eq!(train["by_cwe"], json!({"cwe-089": 2, "cwe-787": 1, "none given": 2}));
    assert_eq!(train["by_language"], json!({"C": 1, "Python": 2, "unknown": 2}));
    assert_eq!(train["duplicates"]["places"], json!(["pairs/train/x.jsonl:3 is pairs/train/x.jsonl:1"]));
    assert_eq!(train["identical"]["places"], json!(["pairs/train/x.jsonl:4"]));
    assert_eq!(report["leaks"]["places"], json!(["pairs/val/y.jsonl:2 is in pairs/train/x.jsonl:2"]));
    let tokens = &train["tokens"];
    assert_eq!(tokens["over_limit"]["count"], 1);
    assert_eq!(tokens["identical_within_limit"]["places"], json!(["pairs/train/x.jsonl:5"]));
    let in_bars: u64 =
        tokens["histogram"].as_array().unwrap().iter().map(|bar| bar[1].as_u64().unwrap()).sum();
    assert_eq!(in_bars, 5);
    let share = tokens["shared_prefix_share"].as_f64().unwrap();
    assert!(share > 0.9 && share < 1.0, "{share}");

    let text = run(&tiny, "data check pairs --model model").ok().stdout;
    for said in
        ["training: 5 pairs", "cwe-089 2", "Python 2", "there twice: 1", "shares", "validation: 2 pairs"]
    {
        assert!(text.contains(said), "{said} is not in {text}");
    }
}

#[test]
fn bad_records_are_named_or_left_out() {
    let tiny = Tiny::new("llama");
    let good: Vec<String> = (0..4).map(|i| pair(i).to_string()).collect();
    let bad =
        [r#"{"func_src_before": 1}"#, "nonsense", r#"{"func_src_before": "\ud800", "func_src_after": "b"}"#];
    let lines: Vec<String> = good.iter().cloned().chain(bad.map(str::to_owned)).collect();
    write(&tiny, "bad/x.jsonl", &lines);

    let failed = run(&tiny, "data check bad");
    assert_eq!(failed.code, 3);
    for place in ["bad/x.jsonl:5", "bad/x.jsonl:6", "bad/x.jsonl:7"] {
        assert!(failed.stdout.contains(place), "{place} is not in {}", failed.stdout);
    }
    assert!(failed.stderr.contains("3 records") && failed.stderr.contains("--on-bad-record skip"));
    let skipped = run(&tiny, "data check bad --on-bad-record skip").ok();
    assert!(skipped.stdout.contains("training: 4 pairs"));

    let train = "train --model model --data bad --val-data data/val --output-dir run --max-steps 1 --batch-size 2 \
                 --max-seq-len 96 --lora-r 2";
    run(&tiny, train).fails(3, &["bad/x.jsonl:5", "func_src_before"]);
    let trained = run(&tiny, &format!("{train} --on-bad-record skip")).ok();
    assert!(trained.stderr.contains("3 records left out"), "{}", trained.stderr);
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let tiny = Tiny::new("llama");
    let bytes = [
        pair(0).to_string().as_bytes(),
        b"\r\n{\"func_src_before\": \"\xff\xfe\", \"func_src_after\": \"b\"}",
    ]
    .concat();
    std::fs::write(tiny.path("bytes.jsonl"), [&b"\xEF\xBB\xBF"[..], &bytes].concat()).unwrap();
    let failed = run(&tiny, "data check bytes.jsonl");
    assert_eq!(failed.code, 3);
    assert!(failed.stdout.contains("training: 1 pairs") && failed.stdout.contains("bytes.jsonl:2"));
}

/// A hundred thousand lines here; in proportion, a million take no minute. One function is 100,000 characters
/// long.
#[test]
fn many_records_are_no_trouble() {
    let tiny = Tiny::new("llama");
    let line = |i: usize| record(&format!("def f{i}(): pass"), &format!("def f{i}(): return"), json!({}));
    let mut lines: Vec<String> = (0..100_000).map(line).collect();
    lines.push(record(&"a".repeat(100_000), &"b".repeat(100_000), json!({})));
    write(&tiny, "many.jsonl", &lines);
    let started = Instant::now();
    let done = run_with(&tiny, &["data", "check", "many.jsonl"], b"").ok();
    assert!(done.stdout.contains("training: 100001 pairs"), "{}", done.stdout);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}
