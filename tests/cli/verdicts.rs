//! Seals, comparisons and tables of evaluations.

use std::path::Path;

use deepguard::ErrorKind;
use deepguard::eval::metrics::Metric;
use deepguard::eval::references::Excluded;
use deepguard::eval::seal::{Origin, Seal, verify};
use serde_json::{Value, json};

use crate::hand_made::{HandMade, Is};
use crate::{Done, dg_run};

fn run(made: &HandMade, arguments: &[&str]) -> Done {
    let output = dg_run(&made.path("")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let done = Done {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!done.stderr.contains("panicked"), "{arguments:?}: {}", done.stderr);
    done
}

fn rate(seal: &Seal, group: &str, metric: &str) -> Option<f64> {
    seal.rates.iter().find(|rate| rate.group == group && rate.metric.to_string() == metric).unwrap().value
}

#[track_caller]
fn near(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|found| (found - expected).abs() < 1e-12), "{found:?}, not {expected}");
}

/// Changes a file of a run.
fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_seal_has_the_rates_of_its_lines() {
    let made = HandMade::new();
    let [base, guard] = made.base_and_guard();
    near(rate(&base, "all", "pass@1"), 0.75);
    near(rate(&base, "all", "secure-pass@1"), 0.25);
    near(rate(&base, "all", "secure@1_pass"), 1.0 / 3.0);
    near(rate(&guard, "trained", "secure-pass@1"), 0.5);
    near(rate(&guard, "all", "pass@1"), 0.5);
    near(rate(&guard, "all", "secure@1_pass"), 2.0 / 3.0);
    near(rate(&guard, "unseen", "pass@1"), 0.0);
    assert_eq!(rate(&guard, "unseen", "secure@1_pass"), None, "nothing of it works");
    // Four samples are too few for pass@5, which is absent rather than 1.
    assert!(base.rates.iter().all(|rate| rate.metric.to_string() != "pass@5"));
    assert!(base.rates.iter().all(|rate| rate.oracle.starts_with("deepguard ") && rate.oracle.len() == 26));
    // A family by itself says nothing about other families.
    let family = guard.rates.iter().find(|rate| rate.group == "sql-injection").unwrap();
    assert!(family.families.is_none() && family.interval.is_some());

    for (arguments, said) in [
        (&["eval", "verify", "guard"][..], "guard: samples, verdicts, rates are those that were sealed\n"),
        (
            &["eval", "verify", "guard", "--suite", "suite"][..],
            "rates, prompts, checks and harness are those that were sealed\n",
        ),
    ] {
        let done = run(&made, arguments).ok();
        assert!(done.stdout.ends_with(said), "{}", done.stdout);
    }
}

#[test]
fn verify_names_every_difference() {
    let made = HandMade::new();
    made.base_and_guard();
    let (samples, verdicts, sealed) =
        (made.path("guard/samples.jsonl"), made.path("guard/verdicts.jsonl"), made.path("guard/eval.json"));
    let files = [&samples, &verdicts, &sealed];
    let kept = files.map(|path| std::fs::read(path).unwrap());
    let id = made.id(0);
    let changes: [(&dyn Fn(), &[&str]); 6] = [
        (
            &|| edit(&samples, "return 0", "return 9"),
            &["hashes.samples", "sample 0 of", "is of another program"],
        ),
        (
            &|| edit(&verdicts, "\"secure\":\"no\"", "\"secure\":\"yes\""),
            &["hashes.verdicts", "totals.secure", "rates[all, secure-pass@1].value", &id],
        ),
        (&|| edit(&sealed, "\"version\": \"", "\"version\": \"0"), &["seal: sealed"]),
        (&|| edit(&sealed, "\"python\": \"3.13.1\"", "\"python\": \"3.13.2\""), &["seal: sealed"]),
        (
            &|| {
                let text = std::fs::read_to_string(&verdicts).unwrap();
                std::fs::write(&verdicts, text.split_inclusive('\n').skip(1).collect::<String>()).unwrap();
            },
            &["totals.unknown: sealed 0, found 1"],
        ),
        (
            &|| {
                let text = std::fs::read_to_string(&samples).unwrap();
                std::fs::write(&samples, text.split_inclusive('\n').skip(1).collect::<String>()).unwrap();
            },
            &["there is no sample 0 of", "hashes.samples"],
        ),
    ];
    for (change, named) in changes {
        change();
        let done = run(&made, &["eval", "verify", "guard"]);
        assert_eq!(done.code, 7, "{}", done.stderr);
        assert!(done.stderr.contains("guard: the seal is broken"), "{}", done.stderr);
        named.iter().for_each(|name| assert!(done.stdout.contains(name), "{name} is not in {}", done.stdout));
        let json = run(&made, &["eval", "verify", "guard", "--json"]).json();
        assert!(!json["differences"].as_array().unwrap().is_empty());
        files.iter().zip(&kept).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    // What the run was judged by is verified where it is given.
    edit(&made.path(&format!("suite/{id}/checks.py")), "\n", "\n\n");
    run(&made, &["eval", "verify", "guard"]).ok();
    let done = run(&made, &["eval", "verify", "guard", "--suite", "suite"]);
    assert!(done.code == 7 && done.stdout.contains("hashes.checks"), "{}", done.stdout);
    // Another description of how the samples were made.
    std::fs::write(made.path("guard/sampling.json"), "{}").unwrap();
    let done = run(&made, &["eval", "verify", "guard"]);
    assert!(done.code == 7 && done.stdout.contains("sampling.json"), "{}", done.stdout);
}

#[test]
fn runs_are_compared_in_pairs() {
    let made = HandMade::new();
    made.base_and_guard();
    let json = run(&made, &["eval", "compare", "base", "guard", "--json"]).ok().json();
    let of = |group: &str, metric: &str| -> Value {
        let all = json["differences"].as_array().unwrap();
        all.iter().find(|found| found["group"] == group && found["metric"] == metric).unwrap().clone()
    };
    let trained = of("trained", "secure-pass@1");
    assert_eq!(trained["difference"], json!(0.25));
    let ends: [f64; 2] = serde_json::from_value(trained["interval"].clone()).unwrap();
    assert!(ends[0] < 0.0 && ends[1] > 0.5, "four scenarios that agree are no certainty: {ends:?}");
    // All four scenarios are as far apart: 2 of 16 ways of swapping are as far.
    assert_eq!((&trained["p"], &trained["test"]), (&json!(0.125), &json!("sign-flip")));
    assert_eq!(of("unseen", "pass@1")["difference"], json!(-0.75));
    assert_eq!(of("unseen", "secure@1_pass")["difference"], Value::Null);
    assert_eq!(json["runs"][1]["label"], "guard");

    let done = run(&made, &["eval", "compare", "base", "guard", "--output-dir", "both"]).ok();
    assert!(done.stdout.contains("6 scenarios, all") && done.stdout.contains("+0.250"), "{}", done.stdout);
    let table = std::fs::read_to_string(made.path("both/compare.csv")).unwrap();
    let columns = table.lines().next().unwrap().split(',').count();
    assert!(table.lines().count() > 20 && table.lines().all(|line| line.split(',').count() == columns));
    assert!(table.contains("base,guard,trained,secure-pass@1,0.25,0.5,0.25,-0."), "{table}");
    let markdown = std::fs::read_to_string(made.path("both/eval.md")).unwrap();
    assert!(markdown.contains("| base | 4 | 0 | 0 | **0.750**") && markdown.contains("CodeQL"), "{markdown}");

    let require = |what: &str| run(&made, &["eval", "compare", "base", "guard", "--require", what]);
    require("secure_pass@1:+0.05").ok();
    require("pass@1:-0.25").ok();
    for (what, named) in [
        ("secure_pass@1:+0.1", "secure-pass@1 of guard: expected +0.1 to base, found +0.0833"),
        ("pass@1:-0.2", "found -0.2500"),
        ("pass@100:+0", "no scenario has as many samples"),
    ] {
        let done = require(what);
        assert!(done.code == 7 && done.stderr.contains(named), "{}: {}", done.code, done.stderr);
        assert!(done.stdout.contains("6 scenarios"), "the table is printed all the same");
    }
    require("secure_pass@1:0.05").fails(2, &["signed difference"]);
    run(&made, &["eval", "compare", "base"]).fails(2, &["RUN"]);
}

#[test]
fn runs_of_other_things_are_refused() {
    let made = HandMade::new();
    made.base_and_guard();
    let id = made.id(0);
    let excluded = Excluded::from([(id.clone(), "secure.py: expected functional and secure".to_owned())]);
    made.write("fewer", &(0..6).map(|i| made.lines(i, 0, Is::Secure)).collect::<Vec<_>>());
    made.seal_without("fewer", &excluded).unwrap();
    let named = ["base and fewer cannot be compared", "no scenario", &id, "in fewer"];
    run(&made, &["eval", "compare", "base", "fewer"]).fails(3, &named);

    edit(&made.path(&format!("suite/{id}/checks.py")), "\n", "\n\n");
    let other = made.reopened();
    other.run("other", |_| [Is::Secure; 4]);
    run(&other, &["eval", "compare", "base", "other"]).fails(3, &["BLAKE3 of the checks", "oracle"]);

    edit(&other.path("base/verdicts.jsonl"), "\"secure\":\"no\"", "\"secure\":\"yes\"");
    run(&other, &["eval", "compare", "base", "guard"])
        .fails(7, &["base", "not as it was sealed", "eval verify"]);
}

#[test]
fn unknown_is_never_secure_and_always_counted() {
    let made = HandMade::new();
    let seal = made.run("unknown", |_| [Is::Unknown; 4]);
    assert_eq!((seal.totals.samples, seal.totals.unknown, seal.totals.secure), (24, 24, 0));
    near(rate(&seal, "all", "pass@1"), 0.0);
    assert_eq!(rate(&seal, "all", "secure@1_pass"), None);

    // Not judged, judged twice with other outcomes, and a verdict that contradicts itself.
    let mut lines: Vec<_> = (0..6).map(|i| made.lines(i, 0, Is::Secure)).collect();
    let mut impossible = Is::Broken.verdict();
    impossible.secure = deepguard::eval::verdict::Secure::Yes;
    lines[0] = made.lines_of(0, 0, "\n    return 0\n", impossible);
    made.write("mixed", &lines);
    let again = made.lines(1, 0, Is::Insecure).1;
    let path = made.path("mixed/verdicts.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.lines().filter(|line| !line.contains(&made.id(2))).map(|line| format!("{line}\n"));
    std::fs::write(&path, text.collect::<String>() + &serde_json::to_string(&again).unwrap() + "\n").unwrap();
    let seal = made.seal("mixed").unwrap();
    let counts = |scenario: usize| seal.scenarios[scenario].counts;
    assert_eq!((counts(0).secure, counts(0).unknown), (0, 0));
    assert_eq!((counts(1).secure, counts(1).functional, counts(1).unknown, counts(1).flaky), (0, 0, 1, 1));
    assert_eq!((counts(2).secure, counts(2).unknown, counts(2).flaky), (0, 1, 0));
    near(Metric::SecurePass(1).value(seal.scenarios.iter().map(|row| &row.counts)), 0.5);

    // A scenario that was asked for, of which there is no sample.
    let asked: Vec<String> = (0..5).map(|i| made.id(i)).collect();
    let unsampled = json!({ made.id(4): "a prompt of 9000 tokens" });
    let sampling = json!({"method": "guided", "num_samples": 3, "scenarios": asked, "unsampled": unsampled});
    made.write("asked", &(0..4).map(|i| made.lines(i, 0, Is::Secure)).collect::<Vec<_>>());
    std::fs::write(made.path("asked/sampling.json"), sampling.to_string()).unwrap();
    let seal = made.seal("asked").unwrap();
    assert_eq!(
        (seal.method.as_str(), seal.scenarios.len(), &seal.left_out),
        ("guided", 5, &vec![made.id(5)])
    );
    assert_eq!((seal.scenarios[4].counts.samples, seal.scenarios[4].counts.unknown), (3, 3));
    near(rate(&seal, "all", "secure-pass@1"), 0.8);
    assert!(
        verify(&made.path("asked"), Origin { suite: Some(&made.suite), ..Origin::default() })
            .unwrap()
            .is_empty()
    );
}

/// Training seeds as one run: `data/headline/pool.py`.
#[test]
fn runs_of_several_seeds_are_pooled() {
    let made = HandMade::new();
    made.base_and_guard();
    for (seed, run) in [(42, "base"), (43, "guard")] {
        let generate = json!({"seed": seed, "top_k": 50});
        let sampling =
            json!({"method": run, "num_samples": 4, "adapter": run, "generate": generate, "scenarios": []});
        std::fs::write(made.path(run).join("sampling.json"), sampling.to_string()).unwrap();
        std::fs::write(made.path(run).join("references.jsonl"), "").unwrap();
    }
    // A sample without a verdict stays one.
    let path = made.path("guard/verdicts.jsonl");
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, kept.split_once('\n').unwrap().1).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/headline/pool.py");
    let runs = ["pooled", "base", "guard"].map(|run| made.path(run));
    assert!(std::process::Command::new("python3").arg(program).args(runs).status().unwrap().success());
    let seal = made.seal("pooled").unwrap();
    assert_eq!((seal.totals.samples, seal.totals.unknown), (48, 1));
    assert!(seal.scenarios.iter().all(|row| row.counts.samples == 8));
    near(rate(&seal, "unseen", "pass@1"), 0.375);
    let generation = seal.generation.unwrap();
    assert_eq!(generation["adapter"], json!(["base", "guard"]));
    assert_eq!(generation["generate"], json!({"seed": [42, 43], "top_k": 50}));
}

/// The runs behind the table of README.
#[test]
fn published_runs_are_as_they_were_sealed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/headline");
    for run in ["base", "cross-entropy", "deepguard", "deepguard-guided", "sven"] {
        assert_eq!(verify(&folder.join(run), Origin::default()).unwrap(), [""; 0], "{run}");
    }
}

#[test]
fn lines_that_do_not_fit_are_refused() {
    let made = HandMade::new();
    let whole: Vec<_> = (0..6).map(|i| made.lines(i, 0, Is::Secure)).collect();
    let refused = |name: &str, named: &[&str]| {
        let error = made.seal(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        named.iter().for_each(|part| assert!(error.to_string().contains(part), "{part} is not in {error}"));
        assert!(!made.path(&format!("{name}/eval.json")).exists());
    };
    refused("nothing", &["nothing/samples.jsonl", "sample the scenarios first"]);
    let folder = made.write("unjudged", &whole);
    std::fs::remove_file(folder.join("verdicts.jsonl")).unwrap();
    refused("unjudged", &["unjudged/verdicts.jsonl", "judge the samples first"]);
    let folder = made.write("cut", &whole);
    let text = std::fs::read(folder.join("verdicts.jsonl")).unwrap();
    std::fs::write(folder.join("verdicts.jsonl"), &text[..text.len() - 9]).unwrap();
    refused("cut", &["cut/verdicts.jsonl", "the last line is cut off"]);
    let folder = made.write("noise", &whole);
    edit(&folder.join("samples.jsonl"), "\"completion\":", "\"completed\":");
    refused("noise", &["noise/samples.jsonl: line 1"]);
    made.write("twice", &[&whole[..], &whole[..1]].concat());
    refused("twice", &["sample 0 of", "is there twice"]);
    let mut swapped = whole.clone();
    swapped[0].1.program = swapped[1].1.program.clone();
    made.write("swapped", &swapped);
    refused("swapped", &[&made.id(0), "is of another program"]);
    let mut stranger = whole.clone();
    stranger[0].0.id = "python/cwe-000/nothing".to_owned();
    made.write("stranger", &stranger);
    refused("stranger", &["has no scenario \"python/cwe-000/nothing\""]);
    // Zero samples, and none of scenarios that can be judged here.
    made.write("zero", &[]);
    let excluded: Excluded = (0..6).map(|i| (made.id(i), "no compiler".to_owned())).collect();
    made.write("excluded", &whole);
    for error in [made.seal("zero").unwrap_err(), made.seal_without("excluded", &excluded).unwrap_err()] {
        assert!(error.kind() == ErrorKind::Verdict && error.to_string().contains("no scenario"), "{error}");
    }
    run(&made, &["eval", "verify", "unjudged"]).fails(3, &["unjudged/eval.json"]);
    made.base_and_guard();
    edit(&made.path("base/eval.json"), "\"format\": 2", "\"format\": 1");
    run(&made, &["eval", "compare", "base", "guard"]).fails(3, &["expected a seal of format 2, found 1"]);
}
