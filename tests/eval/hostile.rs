//! Suites and samples that are not what they should be.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{LOANS, SUITE, can_judge, completion, eval, judge, lines, write_samples};

/// A suite of one scenario, to be changed.
fn suite(dir: &Path) -> PathBuf {
    let copy = |name: &str| {
        let to = dir.join(name);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(Path::new(SUITE).join(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    };
    copy("harness");
    copy(LOANS);
    dir.join(LOANS)
}

#[test]
fn suites_that_cannot_be_used_are_named() {
    type Change = fn(&Path);
    let changes: [(Change, &[&str]); 10] = [
        (|at| std::fs::remove_file(at.join("checks.py")).unwrap(), &["checks.py"]),
        (|at| std::fs::remove_file(at.join("insecure.py")).unwrap(), &["insecure.py"]),
        (|at| std::fs::write(at.join("meta.toml"), "id = ").unwrap(), &["meta.toml"]),
        (|at| edit(&at.join("meta.toml"), LOANS, "../../etc"), &["meta.toml", "the scenario's folder"]),
        (|at| edit(&at.join("meta.toml"), "time_limit = 5.0", "time_limit = 1e9"), &["time_limit"]),
        (|at| edit(&at.join("meta.toml"), "time_limit", "limit"), &["meta.toml", "limit"]),
        (
            |at| edit(&at.join("meta.toml"), "family = \"sql-injection\"", "family = \"unseen\""),
            &["family", "\"unseen\""],
        ),
        (
            |at| {
                std::fs::remove_file(at.join("prompt.py")).unwrap();
                symlink("/etc/passwd", at.join("prompt.py")).unwrap();
            },
            &["prompt.py", "links are not followed"],
        ),
        (|at| std::fs::write(at.join("prompt.py"), "def f():\n\n").unwrap(), &["exactly one newline"]),
        (|at| std::fs::write(at.join("secure.py"), vec![b'#'; 2 << 20]).unwrap(), &["secure.py"]),
    ];
    for (change, named) in changes {
        let dir = tempfile::tempdir().unwrap();
        change(&suite(dir.path()));
        eval(&["check", "--suite", dir.path().to_str().unwrap()]).fails(3, named);
    }
    let dir = tempfile::tempdir().unwrap();
    eval(&["check", "--suite", dir.path().to_str().unwrap()]).fails(3, &["expected a suite"]);
    eval(&["check", "--suite", "/no/such"]).fails(3, &["/no/such"]);
    eval(&["check", "--suite", SUITE, "--only", "python/none"]).fails(3, &["python/none"]);
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_scenario_whose_references_fail_is_excluded_by_name() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = suite(dir.path());
    let path = dir.path().to_str().unwrap();
    let kept = dir.path().join("references.jsonl");
    let arguments = ["check", "--suite", path, "--json", "--output", kept.to_str().unwrap()];
    eval(&arguments).ok();
    // The verdict on the insecure one is kept, and is not that of a secure one.
    std::fs::copy(at.join("insecure.py"), at.join("secure.py")).unwrap();
    let check = eval(&arguments);
    check.fails(7, &["no scenario can be judged"]);
    let why = check.json()["excluded"][LOANS].as_str().unwrap().to_owned();
    assert!(why.contains("secure.py: expected functional and secure, found Pass/No"), "{why}");
    let run = dir.path().join("run");
    let text = completion(&format!("{LOANS}/secure.py"));
    let samples = write_samples(&run, &[(LOANS, &text)]);
    let done = eval(&["judge", samples.to_str().unwrap(), "--suite", path]);
    done.fails(7, &["no sample was judged"]);
    assert!(done.stdout.contains("excluded") && done.stdout.contains(LOANS), "{}", done.stdout);
    assert_eq!(lines(&run.join("verdicts.jsonl")).len(), 0);
}

#[test]
fn samples_that_cannot_be_judged_are_named_by_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("samples.jsonl");
    let good = json!({"id": LOANS, "sample": 3, "completion": "\n    pass\n"}).to_string();
    let other = json!({"id": "python/none", "completion": ""}).to_string();
    let long = json!({"id": LOANS, "completion": "x".repeat(2 << 20)}).to_string();
    for (text, named) in [
        (String::new(), &["samples.jsonl", "empty"][..]),
        ("{}\n".to_owned(), &["line 1"]),
        (format!("{good}\n\u{1}\n"), &["line 2"]),
        (format!("{good}\n{}", &good[..20]), &["line 2"]),
        (format!("{good}\n\n{good}\n"), &["line 2"]),
        (format!("{good}\n{other}\n"), &["line 2", "python/none"]),
        (format!("{good}\n{good}\n"), &["line 2", "sample 3", "twice"]),
        (format!("{long}\n{other}\n"), &["line 1", "line 2"]),
        ("{\"id\": \"\\ud800\", \"completion\": \"\"}\n".to_owned(), &["line 1"]),
    ] {
        std::fs::write(&path, text).unwrap();
        judge(&path, &[]).fails(3, named);
        assert!(!dir.path().join("verdicts.jsonl").exists());
    }
    let elsewhere = dir.path().join("vllm.jsonl");
    std::fs::write(&elsewhere, good + "\n").unwrap();
    judge(&elsewhere, &[]).fails(2, &["--output-dir"]);
}

#[test]
fn verdicts_of_other_programs_are_refused() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (secure, insecure) =
        (completion(&format!("{LOANS}/secure.py")), completion(&format!("{LOANS}/insecure.py")));
    let path = write_samples(dir.path(), &[(LOANS, &secure)]);
    judge(&path, &[]).ok();
    write_samples(dir.path(), &[(LOANS, &insecure)]);
    judge(&path, &[]).fails(3, &["verdicts.jsonl: line 1", "of another program", "--output-dir"]);
    write_samples(dir.path(), &[(LOANS, &secure)]);
    judge(&path, &["--repeat", "2"]).fails(3, &["by other checks or in another environment"]);
    let verdicts = dir.path().join("verdicts.jsonl");
    let line = std::fs::read_to_string(&verdicts).unwrap();
    std::fs::write(&verdicts, line.repeat(2)).unwrap();
    judge(&path, &[]).fails(3, &["line 2", "twice"]);
}
