//! What `dg-run` makes for other programs: SARIF, completions, manual pages, a configuration to start from.

use serde_json::Value;

use super::{run, run_with, trained};
use crate::tiny::Tiny;

/// A log has what the specification and code hosts ask for.
fn check_log(log: &Value) {
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().ends_with("sarif-schema-2.1.0.json"));
    let runs = log["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert_eq!(driver["name"], "dg-run");
    let rules = driver["rules"].as_array().unwrap();
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(!rule[text]["text"].as_str().unwrap().is_empty(), "{text} of {rule}");
        }
        assert!(
            ["note", "warning", "error"].contains(&rule["defaultConfiguration"]["level"].as_str().unwrap())
        );
    }
    for result in runs[0]["results"].as_array().unwrap() {
        let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(result["ruleId"], rule["id"]);
        assert_eq!(result["level"], "warning");
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        assert!((0.0..=100.0).contains(&result["rank"].as_f64().unwrap()));
        let fingerprint = result["partialFingerprints"]["primaryLocationLineHash"].as_str().unwrap();
        let (hash, nth) = fingerprint.split_once(':').unwrap();
        assert!(
            hash.len() == 16
                && hash.bytes().all(|c| c.is_ascii_hexdigit())
                && nth.parse::<usize>().unwrap() > 0
        );
        let locations = result["locations"].as_array().unwrap();
        assert_eq!(locations.len(), 1);
        let place = &locations[0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uriBaseId"], "%SRCROOT%");
        assert!(!place["artifactLocation"]["uri"].as_str().unwrap().starts_with('/'));
        let number = |name: &str| place["region"][name].as_u64().unwrap();
        assert!(number("startLine") >= 1 && number("endLine") == number("startLine"));
        assert!(number("startColumn") >= 1 && number("endColumn") > number("startColumn"));
    }
}

#[test]
fn sarif_has_the_low_lines() {
    let tiny = trained();
    let source = "def f(a):\n    b = a\n\n    return b\n";
    std::fs::write(tiny.path("a b.py"), source).unwrap();
    let log_of = |threshold: &str| -> Value {
        let common = ["score", "--model", "model", "--adapter", "run", "--sarif", "--threshold", threshold];
        let done = run_with(&tiny, &[&common[..], &["a b.py", "source.py"]].concat(), b"").ok();
        let log = serde_json::from_str(&done.stdout).unwrap();
        check_log(&log);
        log
    };
    let lines = |log: &Value| -> Vec<(String, u64)> {
        let results = log["runs"][0]["results"].as_array().unwrap();
        let of = |result: &Value| {
            let place = &result["locations"][0]["physicalLocation"];
            let uri = place["artifactLocation"]["uri"].as_str().unwrap().to_owned();
            (uri, place["region"]["startLine"].as_u64().unwrap())
        };
        results.iter().map(of).collect()
    };
    assert_eq!(lines(&log_of("0")), []);
    let all = lines(&log_of("1"));
    let expected = [("a%20b.py", 1), ("a%20b.py", 2), ("a%20b.py", 4), ("source.py", 1), ("source.py", 2)];
    assert_eq!(all, expected.map(|(uri, line)| (uri.to_owned(), line)));
    // Between the line means that the heat map shows, some are below and some are not.
    let plain = run(&tiny, "score --model model --adapter run source.py").ok().stdout;
    let means: Vec<f64> = plain.lines().map(|line| line[..6].parse().unwrap()).collect();
    assert!((means[0] - means[1]).abs() > 1e-3, "{means:?}");
    let middle = (means[0] + means[1]) / 2.0;
    let low: Vec<_> =
        lines(&log_of(&middle.to_string())).into_iter().filter(|(uri, _)| uri == "source.py").collect();
    assert_eq!(low, [("source.py".to_owned(), if means[0] < means[1] { 1 } else { 2 })]);
}

#[test]
fn wrong_combinations_for_sarif_are_refused() {
    let tiny = trained();
    let common = "score --model model --adapter run source.py";
    run(&tiny, &format!("{common} --sarif --json")).fails(2, &["--sarif"]);
    run(&tiny, &format!("{common} --threshold 0.4")).fails(2, &["--sarif"]);
    run(&tiny, &format!("{common} --sarif --threshold 1.5")).fails(2, &["--threshold", "0 to 1", "1.5"]);
    run(&tiny, &format!("{common} --sarif --threshold NaN")).fails(2, &["--threshold"]);
}

#[test]
fn completions_know_every_command() {
    let tiny = Tiny::new("llama");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&tiny, &format!("completions {shell}")).ok().stdout;
        for word in ["train", "score", "report", "learning-rate", "threshold"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    run(&tiny, "completions tcsh").fails(2, &["tcsh", "bash"]);
    // Bash itself completes with it.
    let script = run(&tiny, "completions bash").ok().stdout;
    std::fs::write(tiny.path("dg-run.bash"), script).unwrap();
    let probe = "source ./dg-run.bash; COMP_WORDS=(dg-run train --learn); COMP_CWORD=2; _dg__run dg-run --learn train; \
                 echo \"${COMPREPLY[@]}\"";
    let output =
        std::process::Command::new("bash").args(["-c", probe]).current_dir(tiny.path("")).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--learning-rate"), "{said}");
}

#[test]
fn manual_pages_have_every_option() {
    let tiny = Tiny::new("llama");
    let program = run(&tiny, "man").ok().stdout;
    assert!(program.contains(".TH dg-run 1"), "{program}");
    for command in ["train", "score", "generate", "report", "config", "completions"] {
        assert!(program.contains(&format!("dg\\-run\\-{command}")), "{command} is missing in: {program}");
    }
    let train = run(&tiny, "man train").ok().stdout;
    assert!(train.contains(".TH dg-run-train 1"), "{train}");
    assert!(train.contains("\\-\\-learning\\-rate") && train.contains("Peak learning rate"));
    run(&tiny, "man nothing").fails(2, &["nothing", "train, score"]);
}

#[test]
fn config_prints_a_configuration_to_start_from() {
    let tiny = Tiny::new("llama");
    let template = run(&tiny, "config").ok().stdout;
    let own = format!(
        "model = \"model\"\ndata = \"data\"\nlora_r = 4\nmax_seq_len = 160\nmax_steps = 1\n{template}"
    );
    // A key that is there twice would be an error: the defaults of those give way.
    let kept: Vec<&str> = own
        .lines()
        .enumerate()
        .filter(|(i, line)| *i < 5 || !["lora_r ", "max_seq_len "].iter().any(|key| line.starts_with(key)))
        .map(|(_, line)| line)
        .collect();
    std::fs::write(tiny.path("run.toml"), kept.join("\n")).unwrap();
    run(&tiny, "train --config run.toml --output-dir run").ok();
    let used = crate::tiny::read_json(&tiny.path("run/train_config.json"));
    assert_eq!((&used["lora_r"], &used["learning_rate"]), (&4.into(), &2e-5.into()));
}
