//! `dg-run` itself: what it writes where, with which exit code, and that nothing anybody feeds it makes it
//! panic.

#[path = "common/hand_made.rs"]
mod hand_made;
#[path = "common/places.rs"]
mod places;
#[cfg(unix)]
#[path = "common/required.rs"]
mod required;
#[path = "common/tiny.rs"]
mod tiny;

#[path = "cli/adapters.rs"]
mod adapters;
#[path = "cli/data.rs"]
mod data;
#[path = "cli/folders.rs"]
mod folders;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/info.rs"]
mod info;
#[path = "cli/options.rs"]
mod options;
#[path = "cli/paths.rs"]
mod paths;
#[path = "cli/probe.rs"]
mod probe;
#[path = "cli/products.rs"]
mod products;
#[cfg(unix)]
#[path = "cli/sampling.rs"]
mod sampling;
#[path = "cli/score.rs"]
mod score;
#[path = "cli/terminal.rs"]
mod terminal;
#[cfg(unix)]
#[path = "cli/verdicts.rs"]
mod verdicts;

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;
use tiny::{Tiny, read_json};

const SOURCE: &str = "def find(db, name):\n    return db.execute(\"SELECT 1\")\n";

/// The exit code and output of a finished process.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    #[track_caller]
    fn fails(self, code: i32, named: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        named.iter().for_each(|n| assert!(self.stderr.contains(n), "{n:?} not in: {}", self.stderr));
    }

    /// Standard output that is one object, over several lines.
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn dg_run(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command
        .current_dir(dir)
        .env("HF_HOME", dir)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .timeout(Duration::from_secs(60));
    command
}

/// Runs `dg-run` in the temporary folder with words separated by spaces.
fn run(tiny: &Tiny, arguments: &str) -> Done {
    run_with(tiny, &arguments.split_whitespace().collect::<Vec<_>>(), b"")
}

fn run_with(tiny: &Tiny, arguments: &[&str], stdin: &[u8]) -> Done {
    let output = dg_run(&tiny.path("")).args(arguments).write_stdin(stdin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("an exit code: no signal, and in time");
    let done = Done { code, stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!done.stderr.contains("panicked"), "{arguments:?}: {}", done.stderr);
    done
}

/// A tiny model with a trained adapter in `run/adapter`, a source file and its prompt.
fn trained() -> Tiny {
    let tiny = Tiny::new("llama");
    let train = "train --model model --data data --output-dir run --max-steps 2 --batch-size 2 --max-seq-len 160 \
                 --lora-r 4 --lr 1e-3";
    run(&tiny, train).ok();
    std::fs::write(tiny.path("source.py"), SOURCE).unwrap();
    std::fs::write(tiny.path("prompt.py"), "def f(").unwrap();
    tiny
}

#[test]
fn train_writes_a_run_and_nothing_to_stdout() {
    let tiny = Tiny::new("qwen2");
    let toml = "model = \"model\"\ndata = \"data\"\noutput-dir = \"from_file\"\nmax-steps = 9\nbatch_size = 2\n\
                max_seq_len = 160\nlora-r = 4\nseed = 5\ntarget-modules = [\"q_proj\"]\n";
    std::fs::write(tiny.path("run.toml"), toml).unwrap();
    let done = run(&tiny, "train --config run.toml --output-dir run --max-steps 2").ok();
    assert_eq!(done.stdout, "");
    for shown in
        ["training: 8 pairs", "validation: 3 pairs", "step 2/2", "validation at step 2", "run/adapter"]
    {
        assert!(done.stderr.contains(shown), "{shown:?} not in: {}", done.stderr);
    }
    let written = read_json(&tiny.path("run/train_config.json"));
    assert_eq!(
        (&written["max_steps"], &written["seed"], &written["lora_r"]),
        (&2.into(), &5.into(), &4.into())
    );
    assert!(!tiny.path("from_file").exists());
    let again = "train --config run.toml --output-dir run --max-steps 2";
    run(&tiny, again).fails(2, &["--resume-from-checkpoint"]);
    let resumed = run(&tiny, &format!("{again} --resume-from-checkpoint")).ok();
    assert!(resumed.stderr.contains("continuing after step 2"), "{}", resumed.stderr);
}

#[test]
fn score_shows_every_token() {
    let tiny = trained();
    let done = run(&tiny, "score --model model --adapter run --json source.py source.py").ok();
    let files = done.json_lines();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0]["file"], "source.py");
    let tokens = files[0]["tokens"].as_array().unwrap();
    let text: String = tokens.iter().map(|t| t["text"].as_str().unwrap()).collect();
    assert_eq!(text, SOURCE);
    let scores: Vec<f64> = tokens.iter().map(|t| t["score"].as_f64().unwrap()).collect();
    assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)));
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    assert!((files[0]["mean_score"].as_f64().unwrap() - mean).abs() < 1e-6);

    let plain = run(&tiny, "score --model model --adapter run/adapter source.py").ok();
    assert!(plain.stderr.contains("source.py: mean score"), "{}", plain.stderr);
    let shown: Vec<&str> = plain.stdout.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(shown, SOURCE.lines().collect::<Vec<_>>());
    let from_stdin = ["score", "--model", "model", "--adapter", "run", "-"];
    assert_eq!(run_with(&tiny, &from_stdin, SOURCE.as_bytes()).ok().stdout, plain.stdout);
}

#[test]
fn generate_takes_its_prompt_from_anywhere() {
    let tiny = trained();
    let of = |arguments: &[&str], stdin: &[u8]| {
        let common = ["generate", "--model", "model", "--adapter", "run", "--max-new-tokens", "12"];
        run_with(&tiny, &[&common[..], arguments].concat(), stdin).ok()
    };
    let given = of(&["def f("], b"");
    assert_eq!(given.stdout, of(&["--prompt-file", "prompt.py"], b"").stdout);
    assert_eq!(given.stdout, of(&["-"], b"def f(").stdout);
    // Streamed text is the text that is decoded at the end.
    let json = of(&["--json", "def f("], b"").json_lines();
    assert_eq!(format!("{}\n", json[0]["text"].as_str().unwrap()), given.stdout);
    assert_eq!(json[0]["tokens"].as_array().unwrap().len(), 12);
    assert_eq!((&json[0]["finish_reason"], &json[0]["guided"]), (&"length".into(), &false.into()));
    assert_eq!(of(&["--no-guard", "def f("], b"").stdout, given.stdout);
    let guided = of(&["--json", "--guidance-strength", "1", "def f("], b"");
    assert!(guided.stderr.contains("prompt score"), "{}", guided.stderr);
    assert_eq!(guided.json_lines()[0]["guided"], true);
}

#[test]
fn generate_makes_many_samples() {
    let tiny = trained();
    let common = "generate --model model --max-new-tokens 6 --num-samples 3 --temperature 1 --seed 4";
    let json = run(&tiny, &format!("{common} --json abc")).ok().json_lines();
    assert_eq!(json.iter().map(|s| s["sample"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(json.iter().all(|s| s["prompt_score"].is_null() && s["guided"] == false));
    let text = run(&tiny, &format!("{common} abc")).ok().stdout;
    let expected: String = json
        .iter()
        .map(|s| format!("--- sample {}\n{}\n", s["sample"], s["text"].as_str().unwrap()))
        .collect();
    assert_eq!(text, expected);
    // Hyphens at the start of a prompt, and more threads, are nothing special.
    let threads = run(&tiny, &format!("--threads 3 {common} -- --x")).ok().stdout;
    assert_eq!(threads, run(&tiny, &format!("{common} --threads 1 -- --x")).ok().stdout);
}

#[test]
fn export_writes_a_model_that_runs() {
    let tiny = trained();
    let done = run(&tiny, "export --model model --adapter run --merge --out merged").ok();
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("merged: logits differ"), "{}", done.stderr);
    let of = |model: &str| run(&tiny, &format!("generate --max-new-tokens 8 --model {model} abc")).ok();
    assert_eq!(of("merged").stdout, of("model --adapter run").stdout);
    run(&tiny, "export --model model --adapter run --merge --out merged")
        .fails(2, &["merged: expected a folder that is new or empty"]);
    run(&tiny, "export --model model --merge --out other").fails(2, &["--adapter"]);
    run(&tiny, "export --model model --adapter run --out other").fails(2, &["--merge"]);
}

#[test]
fn import_turns_gguf_into_a_model_that_runs() {
    let tiny = Tiny::new("llama");
    std::fs::write(tiny.path("model.gguf"), hostile::gguf()).unwrap();
    let done = run(&tiny, "import model.gguf --out imported --dtype f32").ok();
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("imported: "), "{}", done.stderr);
    assert_eq!(read_json(&tiny.path("imported/config.json"))["model_type"], "llama");
    run(&tiny, "generate --model imported --max-new-tokens 4 ab").ok();
    run(&tiny, "import model.gguf --out imported").fails(2, &["imported"]);
    run(&tiny, "import nowhere.gguf --out other").fails(4, &["nowhere.gguf"]);
    run(&tiny, "import prompt --out other").fails(4, &["prompt"]);
    assert!(!tiny.path("other").exists());
}

#[test]
fn help_names_every_option() {
    let tiny = Tiny::new("llama");
    let model = ["--model", "--adapter", "--device", "--dtype", "--threads"];
    let train = "--config --dry-run --quiet --verbose --device --dtype --model --data --val-data --on-bad-record --val-fraction --output-dir --num-epochs --max-steps \
                 --batch-size --gradient-accumulation-steps --micro-batch-tokens --learning-rate --warmup-ratio --weight-decay \
                 --max-grad-norm --max-seq-len --seed --lora-r --lora-alpha --lora-dropout --target-modules \
                 --aggregation --guard-layers --guard-dropout --margin --security-weight --kl-weight \
                 --early-stop-patience --eval-steps --save-steps --save-total-limit --base-cache-device-mib --base-cache-mib --recompute \
                 --resume-from-checkpoint --threads";
    let generate = "--prompt-file --max-new-tokens --num-samples --temperature --top-p --top-k --seed --no-guard \
                    --rescore-every --ignore-eos --json";
    let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
    let commands = [
        ("train", words(train)),
        ("score", [&model[..], &["--json"]].concat()),
        ("generate", [&model[..], &words(generate)].concat()),
        ("export", vec!["--model", "--adapter", "--merge", "--out"]),
        ("import", vec!["--out", "--dtype", "--threads"]),
        ("data check", vec!["--val-data", "--model", "--max-seq-len", "--on-bad-record", "--json"]),
        ("info", vec!["--json", "--threads"]),
    ];
    let overview = run(&tiny, "--help").ok();
    for (command, options) in commands {
        assert!(overview.stdout.contains(command.split(' ').next().unwrap()));
        let help = run(&tiny, &format!("{command} --help")).ok();
        assert_eq!(help.stderr, "");
        options.iter().for_each(|o| assert!(help.stdout.contains(o), "{command} --help lacks {o}"));
    }
    assert!(run(&tiny, "--version").ok().stdout.starts_with("dg-run "));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let tiny = trained();
    for arguments in
        ["--help", "score --json --model model --adapter run source.py", "generate --model model ab"]
    {
        let mut process = Process::new(env!("CARGO_BIN_EXE_dg-run"));
        process.args(arguments.split_whitespace()).current_dir(tiny.path("")).stdout(Stdio::piped());
        let mut child = process.stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !stderr.contains("panicked"), "{arguments}: {stderr}");
    }
}
