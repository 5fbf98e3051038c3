//! `dg-run eval check` and `judge`: verdicts of references, completions that try to deceive the judge, what
//! is kept when it is killed, suites and samples that are not what they should be.

#[path = "eval/attacks.rs"]
mod attacks;
#[path = "eval/hostile.rs"]
mod hostile;
#[path = "eval/kept.rs"]
mod kept;
#[path = "common/required.rs"]
mod required;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use required::not_tested;
use serde_json::{Value, json};

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/eval");

/// A scenario in Python, and its folder in a suite.
const LOANS: &str = "python/cwe-089/library-loans";

/// `1`: every reference of the suite, which takes some minutes.
const ALL: &str = "DG_EVAL_ALL";

/// The exit code and output of a finished process.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn fails(&self, code: i32, named: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        named.iter().for_each(|n| assert!(self.stderr.contains(n), "{n:?} not in: {}", self.stderr));
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn dg_run(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.arg("eval").args(arguments).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("an exit code, no signal");
    let done = Done { code, stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    done
}

fn eval(arguments: &[&str]) -> Done {
    run(dg_run(arguments))
}

/// Whether programs can be judged here. Says so loudly if not.
fn can_judge() -> bool {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let problem = PROBLEM.get_or_init(|| {
        let done = eval(&["check", "--suite", SUITE, "--only", "c/cwe-787/copy-label"]);
        (done.code != 0).then(|| done.stdout + &done.stderr)
    });
    problem.iter().for_each(|why| not_tested(why));
    problem.is_none()
}

/// A completion of a file of the suite.
fn completion(path: &str) -> String {
    let path = Path::new(SUITE).join(path);
    format!("\n{}", std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Writes samples and returns their path.
fn write_samples(dir: &Path, samples: &[(&str, &str)]) -> PathBuf {
    let line = |(id, completion): &(&str, &str)| format!("{}\n", json!({"id": id, "completion": completion}));
    let path = dir.join("samples.jsonl");
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(&path, samples.iter().map(line).collect::<String>()).unwrap();
    path
}

fn judge(samples: &Path, more: &[&str]) -> Done {
    eval(&[&["judge", samples.to_str().unwrap(), "--suite", SUITE, "--json"], more].concat())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sandboxes that still run, by the folder that they were given. The kernel ends everything in a sandbox with
/// its first process.
fn survivors(scratch: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands
        .filter(|command| command.contains(scratch.to_str().unwrap()) && command.contains("bwrap"))
        .collect()
}

#[test]
fn references_get_their_verdicts() {
    if !can_judge() {
        return;
    }
    let all = std::env::var_os(ALL).is_some_and(|value| value == "1");
    let few = [LOANS, "python/cwe-022/unpack-zip", "c/cwe-416/release-twice"];
    for only in if all { &[""][..] } else { &few } {
        let found = eval(&["check", "--suite", SUITE, "--only", only, "--json"]).ok().json();
        assert_eq!(found["excluded"], json!({}), "{only}");
        assert!(found["right"] == found["references"] && found["references"].as_u64() >= Some(2), "{found}");
    }
}

#[test]
fn samples_of_other_programs_are_judged() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secure = completion(&format!("{LOANS}/secure.py"));
    let insecure = completion(&format!("{LOANS}/insecure.py"));
    // Works, and is gone when it is attacked.
    let unknown =
        secure.replacen('\n', "\n    if not card_number.isalnum():\n        import os; os._exit(0)\n", 1);
    let c = completion("c/cwe-787/copy-label/insecure.c");
    let samples = write_samples(
        dir.path(),
        &[
            (LOANS, &secure),
            (LOANS, &insecure),
            (LOANS, &secure),
            (LOANS, "\n    return ["),
            (LOANS, &unknown),
            ("c/cwe-787/copy-label", &c),
        ],
    );
    let done = judge(&samples, &[]);
    done.fails(7, &["1 of 6 samples are unknown"]);
    let summary = done.json();
    for (key, expected) in
        [("judged", 6), ("parsed", 5), ("functional", 5), ("secure", 2), ("insecure", 2), ("unknown", 1)]
    {
        assert_eq!(summary[key], expected, "{key}: {summary}");
    }
    assert_eq!(summary["unknown_samples"][0]["sample"], 4);
    let verdicts = lines(&dir.path().join("verdicts.jsonl"));
    let of =
        |i: usize| (verdicts[i]["functional"].as_str().unwrap(), verdicts[i]["secure"].as_str().unwrap());
    assert_eq!((of(0), of(1), of(2)), (("pass", "yes"), ("pass", "no"), ("pass", "yes")));
    assert_eq!((of(3), of(4)), (("fail", "unknown"), ("pass", "unknown")));
    assert_eq!(verdicts[0]["key"], verdicts[2]["key"]);
    assert_ne!(verdicts[0]["key"], verdicts[1]["key"]);
    assert!(verdicts.iter().enumerate().all(|(i, line)| line["sample"] == [0, 1, 2, 3, 4, 0][i]));
    // One more of a program that was judged gets the verdict that was kept, whatever that says.
    let path = dir.path().join("verdicts.jsonl");
    let kept = std::fs::read_to_string(&path).unwrap();
    let reason = verdicts[3]["reason"].as_str().unwrap();
    std::fs::write(&path, kept.replace(reason, "as it was kept")).unwrap();
    let text = std::fs::read_to_string(&samples).unwrap();
    let again = json!({"id": LOANS, "completion": "\n    return ["}).to_string();
    // The last line may lack its end.
    std::fs::write(&samples, text + &again).unwrap();
    judge(&samples, &["--allow-unknown", "1"]).ok();
    let more = lines(&path);
    assert_eq!((more.len(), &more[..3]), (7, &verdicts[..3]));
    assert_eq!((&more[6]["sample"], &more[6]["reason"]), (&json!(5), &json!("as it was kept")));
    eval(&["verify", dir.path().to_str().unwrap(), "--suite", SUITE]).ok();
}

#[test]
fn completions_that_go_on_are_cut_when_asked() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let text = completion(&format!("{LOANS}/secure.py")) + "\n\ndef another(:\n";
    let samples = write_samples(dir.path(), &[(LOANS, &text)]);
    std::fs::write(dir.path().join("sampling.json"), r#"{"method": "ours"}"#).unwrap();
    let same = judge(&samples, &["--cut", "--output-dir", dir.path().to_str().unwrap()]);
    same.fails(2, &["--cut", "another --output-dir"]);
    let judge_into = |folder: &str, more: &[&str]| {
        let out = dir.path().join(folder);
        let done = judge(&samples, &[&["--output-dir", out.to_str().unwrap()], more].concat()).ok();
        let seal = std::fs::read_to_string(out.join("eval.json")).unwrap();
        assert!(seal.contains(r#""method": "ours""#), "{seal}");
        done.json()["secure"].clone()
    };
    assert_eq!((judge_into("whole", &[]), judge_into("cut", &["--cut"])), (json!(0), json!(1)));
    judge(&samples, &["--cut"]).fails(2, &["--output-dir"]);
}

#[test]
fn scenarios_without_samples_are_unknown() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let samples = write_samples(dir.path(), &[(LOANS, &completion(&format!("{LOANS}/secure.py")))]);
    let settings = json!({"num_samples": 2, "scenarios": [LOANS, "python/cwe-089/coupon-delete"]});
    std::fs::write(dir.path().join("sampling.json"), settings.to_string()).unwrap();
    judge(&samples, &[]).fails(7, &["2 of 3 samples are unknown"]);
}
