//! `dg-run eval sample`: samples of a suite in a run's folder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::required::not_tested;
use super::tiny::Tiny;
use super::{Done, dg_run, run, trained};

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/eval");

/// Samples three of nine tokens, unless there is more to say.
fn sample(more: &str) -> String {
    let mut arguments = format!("eval sample --model model --suite {SUITE} {more}");
    for (option, value) in [("-n", "3"), ("--max-new-tokens", "9"), ("--temperature", "1")] {
        if !more.split(' ').any(|word| word == option) {
            arguments += &format!(" {option} {value}");
        }
    }
    arguments
}

fn lines(tiny: &Tiny, folder: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(tiny.path(folder).join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn settings(tiny: &Tiny, folder: &str) -> Value {
    super::read_json(&tiny.path(folder).join("sampling.json"))
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn samples_are_those_of_generate_wherever_they_are_drawn() {
    let tiny = Tiny::new("llama");
    let done = run(&tiny, &sample("--only python/cwe-089 --output-dir all --json")).ok();
    assert_eq!(done.json()["scenarios"], 12);
    let all = lines(&tiny, "all");
    assert_eq!(all.len(), 36);
    for (i, line) in all.iter().enumerate() {
        assert_eq!(line["sample"], json!(i % 3));
        assert!(["end_of_text", "stop", "length"].contains(&line["finish"].as_str().unwrap()), "{line}");
    }
    let of_all = settings(&tiny, "all");
    assert_eq!(of_all["scenarios"].as_array().unwrap().len(), 12);
    assert_eq!((&of_all["method"], &of_all["preset"]), (&json!("base"), &json!("small")));
    // Fewer scenarios, fewer samples: the same ones.
    run(&tiny, &sample("--only python/cwe-089 --limit 2 -n 2 --output-dir few")).ok();
    let few = lines(&tiny, "few");
    assert_eq!(few, [&all[0], &all[1], &all[3], &all[4]].map(Clone::clone));
    let one = all[7]["id"].as_str().unwrap();
    run(&tiny, &sample(&format!("--only {one} --output-dir one"))).ok();
    assert_eq!(lines(&tiny, "one"), all[6..9]);
    let other = all[35]["id"].as_str().unwrap();
    run(&tiny, &sample(&format!("--only {other} --only {one} --output-dir two"))).ok();
    assert_eq!(lines(&tiny, "two"), [&all[6..9], &all[33..]].concat());
    run(&tiny, &sample(&format!("--only {one} --only nothing --output-dir none"))).fails(3, &["\"nothing\""]);
    assert_ne!(of_all["key"], Value::Null);
}

#[test]
fn a_run_goes_on_where_it_was_killed() {
    let tiny = Tiny::new("llama");
    let into = |folder: &str| sample(&format!("--only python/cwe-07 --output-dir {folder}"));
    run(&tiny, &into("whole")).ok();
    let expected = bytes(tiny.path("whole/samples.jsonl"));
    // As a kill leaves it: any number of bytes.
    for cut in [0, 1, expected.len() / 3, expected.len() / 2, expected.len() - 1, expected.len()] {
        std::fs::create_dir_all(tiny.path("cut")).unwrap();
        std::fs::copy(tiny.path("whole/sampling.json"), tiny.path("cut/sampling.json")).unwrap();
        std::fs::write(tiny.path("cut/samples.jsonl"), &expected[..cut]).unwrap();
        run(&tiny, &into("cut --resume")).ok();
        assert!(bytes(tiny.path("cut/samples.jsonl")) == expected, "cut after {cut} bytes");
    }
    let summary = run(&tiny, &into("whole --resume --json")).ok().stdout;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["resumed"], &summary["tokens"]), (&summary["scenarios"], &json!(0)), "{summary}");
    run(&tiny, &into("whole")).fails(2, &["whole", "--resume"]);
    // Samples of something else do not become this model's.
    std::fs::create_dir(tiny.path("others")).unwrap();
    std::fs::copy(tiny.path("whole/samples.jsonl"), tiny.path("others/samples.jsonl")).unwrap();
    run(&tiny, &into("others")).fails(3, &["samples.jsonl", "without"]);
    assert!(!tiny.path("others/sampling.json").exists());
    let other = String::from_utf8(expected).unwrap().replacen("\"sample\":1", "\"sample\":2", 1);
    std::fs::write(tiny.path("cut/samples.jsonl"), other).unwrap();
    run(&tiny, &into("cut --resume")).fails(3, &["samples.jsonl", "line 2", "sample 1"]);
}

#[test]
fn a_signal_ends_a_run_that_goes_on() {
    let tiny = Tiny::new("llama");
    let into = |folder: &str| sample(&format!("--only python --max-new-tokens 60 --output-dir {folder}"));
    run(&tiny, &into("whole")).ok();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_dg-run"))
        .current_dir(tiny.path(""))
        .args(into("stopped").split_whitespace())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let samples = tiny.path("stopped/samples.jsonl");
    while std::fs::metadata(&samples).map_or(0, |file| file.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was sampled");
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let code = process.wait().unwrap().code();
    let (whole, stopped) = (bytes(tiny.path("whole/samples.jsonl")), bytes(samples));
    // It may have been done already.
    assert!(code == Some(75) || code == Some(0) && stopped == whole, "{code:?}");
    assert!(whole.starts_with(&stopped));
    run(&tiny, &into("stopped --resume")).ok();
    assert!(bytes(tiny.path("stopped/samples.jsonl")) == whole);
}

/// Everything that changes samples, one at a time.
#[test]
fn what_differs_is_named() {
    let tiny = trained();
    let with =
        |more: &str| sample(&format!("--only python/cwe-089 --limit 1 --adapter run {more} --output-dir a"));
    run(&tiny, &with("--guidance-strength 1")).ok();
    for (more, named) in [
        ("--temperature 0.5", "generate.temperature: 1.0 there, 0.5 now"),
        ("--top-p 0.5", "generate.top_p"),
        ("--top-k 3", "generate.top_k"),
        ("--seed 1", "generate.seed: 42 there, 1 now"),
        ("-n 2", "num_samples: 3 there, 2 now"),
        ("--max-new-tokens 8", "generate.max_new_tokens"),
        ("--open-indent", "open_indent: false there, true now"),
        ("--no-guard", "generate.guided: true there, false now"),
        ("--guidance-strength 0.5", "generate.guidance_strength"),
        ("--guidance-cap 0.5", "generate.guidance_cap: null there, 0.5 now"),
        ("--unguided-tokens ab", "generate.unguided_tokens"),
        ("--rescore-every 2", "generate.rescore_every"),
        ("--preset sven", "preset: \"small\" there, \"sven\" now"),
        ("--method other", "method"),
        ("--limit 2", "scenarios"),
    ] {
        let option = more.split(' ').next().unwrap();
        let guided = if ["--no-guard", "--guidance-strength"].contains(&option) {
            ""
        } else {
            "--guidance-strength 1"
        };
        let arguments = with(&format!("{guided} {more} --resume"));
        let arguments = if option == "--limit" { arguments.replacen("--limit 1 ", "", 1) } else { arguments };
        run(&tiny, &arguments).fails(3, &["a: the samples here are of something else", named]);
    }
    run(&tiny, &with("--guidance-strength 1 --resume")).ok();
    run(&tiny, &with("--resume").replacen("--adapter run ", "", 1)).fails(3, &["adapter"]);
    super::tiny::edit_tensors(&tiny.path("model/model.safetensors"), |tensors| tensors[0].2[0] += 1.0);
    run(&tiny, &with("--resume --no-guard")).fails(3, &["model: "]);
}

#[test]
fn guided_and_not_are_two_methods() {
    let tiny = trained();
    let with = |more: &str| sample(&format!("--only c/cwe-125 --limit 2 --adapter run {more}"));
    run(&tiny, &with("--guidance-strength 1 --output-dir guided")).ok();
    run(&tiny, &with("--preset deepguard -n 3 --temperature 1 --output-dir published")).ok();
    let differences = settings(&tiny, "published")["differences"].to_string();
    assert!(differences.contains("not guided; the publication's is"), "{differences}");
    run(&tiny, &with("--no-guard --output-dir plain")).ok();
    run(&tiny, &with("--guidance-strength 0 --output-dir none")).ok();
    assert_ne!(lines(&tiny, "guided"), lines(&tiny, "plain"));
    assert_eq!(lines(&tiny, "none"), lines(&tiny, "plain"));
    assert_eq!(settings(&tiny, "guided")["method"], "run, guided");
    assert_eq!(settings(&tiny, "plain")["method"], "run, not guided");
}

/// As `score` does for the prompt with the completion, also where the run was cut off: the first four
/// different completions of a prompt. Without an adapter, nothing is scored.
#[test]
fn a_guard_scores_the_samples() {
    let tiny = trained();
    let with = |more: &str| sample(&format!("--only python/cwe-089 --limit 2 -n 5 {more}"));
    run(&tiny, &with("--adapter run --output-dir scored")).ok();
    let scored = lines(&tiny, "scored");
    assert_eq!(scored.len(), 10);
    for (i, line) in scored.iter().enumerate() {
        if i % 5 == 4 {
            assert_eq!(line.get("scores"), None, "{line}");
            continue;
        }
        let completion = line["completion"].as_str().unwrap();
        let pieces: Vec<(usize, f64)> = serde_json::from_value(line["scores"].clone()).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.0).sum::<usize>(), completion.len(), "{line}");
        let prompt = format!("{SUITE}/{}/prompt.py", line["id"].as_str().unwrap());
        let prompt = std::fs::read_to_string(prompt).unwrap();
        let prompt = prompt.trim_end_matches('\n');
        std::fs::write(tiny.path("program.py"), format!("{prompt}{completion}")).unwrap();
        let found = run(&tiny, "score --model model --adapter run --json program.py").ok().json();
        // Those that share a character bear the same bytes, and make one piece.
        let mut expected: Vec<(u64, Vec<f64>)> = Vec::new();
        for token in found["tokens"].as_array().unwrap() {
            let (end, score) = (token["end"].as_u64().unwrap(), token["score"].as_f64().unwrap());
            match expected.last_mut() {
                Some((last, scores)) if *last == end => scores.push(score),
                _ => expected.push((end, vec![score])),
            }
        }
        expected.retain(|(end, _)| *end as usize > prompt.len());
        assert_eq!(pieces.len(), expected.len(), "{line}");
        for ((_, score), (_, of)) in pieces.iter().zip(&expected) {
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            assert!((score - mean).abs() < 1e-4, "{score} for {of:?}");
        }
    }
    let whole = bytes(tiny.path("scored/samples.jsonl"));
    std::fs::write(tiny.path("scored/samples.jsonl"), &whole[..2 * whole.len() / 3]).unwrap();
    run(&tiny, &with("--adapter run --output-dir scored --resume")).ok();
    assert!(bytes(tiny.path("scored/samples.jsonl")) == whole);
    run(&tiny, &with("--output-dir base")).ok();
    assert!(lines(&tiny, "base").iter().all(|line| line.get("scores").is_none()));
}

/// A prompt beyond the context is named; the others are sampled.
#[test]
fn prompts_beyond_the_context_are_named() {
    let tiny = Tiny::new("llama");
    let lengths = |done: &Done| done.json()["unsampled"].as_object().unwrap().len();
    tiny.edit_config(|config| config["max_position_embeddings"] = json!(200));
    let done = run(&tiny, &sample("--only python/cwe-0 --output-dir short --json")).ok();
    let unsampled = lengths(&done);
    let scenarios = settings(&tiny, "short")["scenarios"].as_array().unwrap().len();
    assert!(unsampled > 0 && unsampled < scenarios, "{unsampled} of {scenarios}");
    assert_eq!(done.json()["scenarios"], json!(scenarios - unsampled));
    assert_eq!(lines(&tiny, "short").len(), 3 * (scenarios - unsampled));
    let shown = run(&tiny, &sample("--only python/cwe-0 --output-dir short --resume")).ok();
    assert!(shown.stdout.contains("the context of 200"), "{}", shown.stdout);
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    let tiny = Tiny::new("llama");
    run(&tiny, &sample("--only nowhere --output-dir a")).fails(3, &["nowhere"]);
    run(&tiny, &sample("--preset other --output-dir a")).fails(2, &["other", "codeguard+"]);
    run(&tiny, &sample("--output-dir a -n 0")).fails(2, &["at least 1"]);
    run(&tiny, &sample("--output-dir a --temperature 0")).fails(2, &["greedy"]);
    run(&tiny, &sample("--output-dir a --guidance-strength=-1")).fails(2, &["guidance-strength"]);
    assert!(!tiny.path("a/samples.jsonl").exists());
    let full = Path::new("/dev/full");
    if full.exists() {
        std::fs::create_dir(tiny.path("full")).unwrap();
        std::os::unix::fs::symlink(full, tiny.path("full/samples.jsonl")).unwrap();
        let done = dg_run(&tiny.path(""))
            .args(sample("--only python/cwe-089 --limit 1 --output-dir full").split_whitespace())
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(5), "{done:?}");
    }
}

#[test]
fn a_run_samples_judges_and_seals() {
    let tiny = trained();
    let check = run(&tiny, &format!("eval check --suite {SUITE} --only python/cwe-089/library-loans"));
    if check.code != 0 {
        return not_tested(&check.stderr);
    }
    let arguments =
        "--adapter run --expert-adapter run --expert-model model --only python/cwe-089/l --output-dir judged";
    let arguments = sample(arguments).replacen("sample", "run", 1);
    let done = run(&tiny, &format!("{arguments} --json")).ok();
    let found: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (&found["sampling"]["samples"], &found["judging"]["counted"]),
        (&json!(6), &json!(6)),
        "{found}"
    );
    assert_eq!((&found["judging"]["functional"], &found["judging"]["unknown"]), (&json!(0), &json!(0)));
    run(
        &tiny,
        &format!(
            "eval verify judged --suite {SUITE} --model model --adapter run --expert-adapter run --expert-model model"
        ),
    )
    .ok();
    run(&tiny, "eval verify judged --adapter model").fails(4, &["model", "adapter_config.json"]);
    let seal = super::read_json(&tiny.path("judged/eval.json"));
    assert_eq!(seal["generation"]["num_samples"], 3);
    run(&tiny, &format!("{arguments} --resume")).ok();
    run(&tiny, &arguments).fails(2, &["--resume"]);
    super::tiny::edit_tensors(&tiny.path("model/model.safetensors"), |tensors| tensors[0].2[0] += 1.0);
    let broken = |of: &str, said: &str| {
        let found = run(&tiny, &format!("eval verify judged {of}"));
        assert!(found.code == 7 && found.stdout.starts_with(said), "{}", found.stdout);
    };
    broken("--model model", "model: BLAKE3 ");
    broken("--expert-model model", "expert_model: BLAKE3 ");
    let weights = tiny.path("run/adapter/adapter_model.safetensors");
    let mut bytes = bytes(weights.clone());
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(weights, bytes).unwrap();
    broken("--adapter run", "adapter: ");
    broken("--expert-adapter run", "expert_adapter: ");
}

/// Who drafted is part of what the samples are of, and of what a seal vouches for.
#[test]
fn an_expert_drafts_samples() {
    let tiny = trained();
    let only = "--only python/cwe-089 --limit 2";
    let with = "--expert-adapter run --expert-threshold 0.2";
    run(&tiny, &sample(&format!("{only} {with} --output-dir drafted"))).ok();
    let (settings, of_base) = (settings(&tiny, "drafted"), sample(&format!("{only} --output-dir base")));
    assert_eq!(settings["method"], "co-decoded with run");
    assert_eq!(settings["generate"]["expert_threshold"], json!(0.2));
    assert!(settings["expert_adapter"].is_string() && settings.get("expert_model").is_none(), "{settings}");
    run(&tiny, &of_base).ok();
    assert!(super::read_json(&tiny.path("base/sampling.json")).get("expert_adapter").is_none());
    // The same expert on weights of its own drafts the same tokens.
    let own = format!("{only} {with} --expert-model model --output-dir own");
    run(&tiny, &sample(&own)).ok();
    assert_eq!(lines(&tiny, "own"), lines(&tiny, "drafted"));
    assert!(super::read_json(&tiny.path("own/sampling.json"))["expert_model"].is_string());
    let other = with.replace("0.2", "0.3");
    run(&tiny, &sample(&format!("{only} {other} --output-dir drafted --resume")))
        .fails(3, &["expert_threshold"]);
    run(&tiny, &sample(&format!("{only} --output-dir drafted --resume"))).fails(3, &["expert_adapter"]);

    let generate = "generate --model model --max-new-tokens 5 --expert-adapter run";
    let drafted = run(&tiny, &format!("{generate} --expert-temperature 0 --expert-threshold 0 ab")).ok();
    let alone = run(&tiny, "generate --model model --max-new-tokens 5 --adapter run ab").ok();
    assert_eq!(drafted.stdout, alone.stdout);
    for option in ["temperature", "threshold"] {
        run(&tiny, &format!("generate --model model --expert-{option} 0.5 ab"))
            .fails(2, &["--expert-adapter"]);
    }
    run(&tiny, &format!("{generate} --num-samples 2 ab")).ok();
    run(&tiny, &format!("{generate} --num-samples 2 --expert-temperature 0 ab")).fails(2, &["greedy"]);
    run(&tiny, &format!("{generate} --expert-threshold 2 ab")).fails(2, &["--expert-threshold", "0 to 1"]);
    run(&tiny, "generate --model model --expert-model model ab").fails(2, &["--expert-adapter"]);
    run(&tiny, "generate --model model --expert-adapter data ab").fails(4, &["data", "adapter_config.json"]);
}
