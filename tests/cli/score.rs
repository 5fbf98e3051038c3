//! `dg-run score` of many files, of which some cannot be scored.

use serde_json::{Value, json};

use super::tiny::Tiny;
use super::{Done, SOURCE, run, trained};

const SCORE: &str = "score --model model --adapter run";

/// Files that cannot be scored between some that can.
fn with_bad_files() -> Tiny {
    let tiny = trained();
    std::fs::write(tiny.path("binary.py"), b"ab\xffcd").unwrap();
    std::fs::write(tiny.path("empty.py"), b"").unwrap();
    tiny
}

const FILES: &str = "source.py binary.py empty.py nowhere.py model prompt.py";

#[track_caller]
fn three_fail(done: &Done) {
    assert_eq!(done.code, 3, "{}", done.stderr);
    for said in [
        "binary.py: expected UTF-8 text, found another byte at offset 2",
        "nowhere.py: cannot be read",
        "model: expected a file, found a folder",
        "dg-run: 3 of 6 files could not be scored",
    ] {
        assert!(done.stderr.contains(said), "{said:?} not in: {}", done.stderr);
    }
}

#[test]
fn what_can_be_scored_is_scored() {
    let tiny = with_bad_files();
    let alone = run(&tiny, &format!("{SCORE} source.py")).ok().stdout;
    let map = run(&tiny, &format!("{SCORE} {FILES}"));
    three_fail(&map);
    assert!(map.stdout.starts_with(&alone) && map.stdout.len() > alone.len(), "{}", map.stdout);
    assert!(map.stderr.contains("empty.py: nothing to score"), "{}", map.stderr);

    let done = run(&tiny, &format!("{SCORE} --json {FILES}"));
    three_fail(&done);
    let lines = done.json_lines();
    let names: Vec<&str> = lines.iter().map(|line| line["file"].as_str().unwrap()).collect();
    assert_eq!(names, FILES.split(' ').collect::<Vec<_>>());
    let failed: Vec<bool> = lines.iter().map(|line| line["error"].is_string()).collect();
    assert_eq!(failed, [false, true, false, true, true, false]);
    assert_eq!((&lines[2]["tokens"], &lines[2]["mean_score"]), (&json!([]), &Value::Null));
}

#[test]
fn sarif_and_pages_have_what_failed() {
    let tiny = with_bad_files();
    let done = run(&tiny, &format!("{SCORE} --sarif --threshold 1 --html page.html {FILES}"));
    three_fail(&done);
    let log = done.json();
    let run_of_log = &log["runs"][0];
    let invocation = &run_of_log["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let uri =
        |place: &Value| place["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap().to_owned();
    let notifications = invocation["toolExecutionNotifications"].as_array().unwrap();
    let named: Vec<String> = notifications.iter().map(|n| uri(&n["locations"][0])).collect();
    assert_eq!(named, ["binary.py", "nowhere.py", "model"]);
    let results = run_of_log["results"].as_array().unwrap();
    let found: Vec<String> = results.iter().map(|result| uri(&result["locations"][0])).collect();
    assert_eq!(found, ["source.py", "source.py", "prompt.py"]);

    let page = std::fs::read_to_string(tiny.path("page.html")).unwrap();
    let (before, after) = page.split_once("<h2>Not scored</h2>").unwrap();
    assert!(after.contains("<code>binary.py</code>: expected UTF-8 text"), "{before}");
    assert_eq!(page.matches("<section class=\"file\"").count(), 3);
}

#[test]
fn without_a_readable_file_there_are_documents_all_the_same() {
    let tiny = with_bad_files();
    let done = run(&tiny, &format!("{SCORE} --sarif nowhere.py"));
    assert_eq!(done.code, 3, "{}", done.stderr);
    let log = done.json();
    assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn an_empty_file_is_no_error() {
    let tiny = with_bad_files();
    std::fs::write(tiny.path("mark.py"), "\u{feff}").unwrap();
    for file in ["empty.py", "mark.py"] {
        let log = run(&tiny, &format!("{SCORE} --sarif {file}")).ok().json();
        assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], true);
        assert_eq!(log["runs"][0]["results"], json!([]));
        run(&tiny, &format!("{SCORE} --html page.html {file}")).ok();
        assert!(std::fs::read_to_string(tiny.path("page.html")).unwrap().contains("nothing to score"));
    }
}

#[test]
fn a_file_beyond_the_context_is_scored_whole() {
    let tiny = trained();
    let line = "x = f(a, b)  # ";
    let text: String = (0..400).map(|i| format!("{line}{i}\n")).collect();
    std::fs::write(tiny.path("long.py"), &text).unwrap();
    let scored = &run(&tiny, &format!("{SCORE} --json long.py")).ok().json_lines()[0];
    let tokens = scored["tokens"].as_array().unwrap();
    assert!(tokens.len() > 2048, "{} tokens fit the context", tokens.len());
    let shown: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(shown, text);
    assert!(tokens.iter().all(|token| token["layer_attention"].is_array()));
    let plain = run(&tiny, &format!("{SCORE} long.py")).ok().stdout;
    assert!(plain.lines().all(|line| line.starts_with("0.")) && plain.lines().count() == 400);
}

#[test]
fn a_byte_order_mark_changes_no_score() {
    let tiny = trained();
    std::fs::write(tiny.path("marked.py"), format!("\u{feff}{SOURCE}")).unwrap();
    let lines = run(&tiny, &format!("{SCORE} --json source.py marked.py")).ok().json_lines();
    let [plain, marked] = [0, 1].map(|i| lines[i]["tokens"].as_array().unwrap());
    assert_eq!(plain.len(), marked.len());
    for (plain, marked) in plain.iter().zip(marked) {
        assert_eq!((&plain["score"], &plain["text"]), (&marked["score"], &marked["text"]));
        // Offsets are those of the file.
        assert_eq!(plain["start"].as_u64().unwrap() + 3, marked["start"].as_u64().unwrap());
    }
}
