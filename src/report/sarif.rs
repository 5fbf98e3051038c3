//! SARIF 2.1.0: lines with low scores as results that code hosts show beside the code.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf, Prefix};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use super::lines::{ScoredLine, lines};
use super::scores::{ScoredText, Unscored};

/// The rule of every result.
const RULE: &str = "deepguard/low-security-score";

/// The kind of every notification.
const NOT_SCORED: &str = "deepguard/not-scored";

/// What the scores are.
const METHOD: &str = "https://arxiv.org/abs/2604.09089";

/// The log of `texts`: every line whose score is below `threshold` is a result, every one of `unscored` a
/// notification.
pub fn sarif(texts: &[ScoredText<'_>], unscored: &[Unscored<'_>], threshold: f64) -> Value {
    // No file may be there twice.
    let mut files: Vec<(Value, &ScoredText<'_>)> = Vec::new();
    for text in texts {
        let location = location(text.name);
        if files.iter().all(|(other, _)| *other != location) {
            files.push((location, text));
        }
    }
    let results: Vec<Value> = files.iter().flat_map(|(_, text)| results(text, threshold)).collect();
    let artifacts: Vec<Value> = files.iter().map(|(location, _)| json!({"location": location})).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "dg-run",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": METHOD,
                "rules": [rule(threshold)],
                "notifications": [{
                    "id": NOT_SCORED,
                    "shortDescription": {"text": "File that could not be scored"},
                }],
            }},
            "columnKind": "utf16CodeUnits",
            "invocations": [{
                "executionSuccessful": unscored.is_empty(),
                "toolExecutionNotifications": unscored.iter().map(notification).collect::<Vec<_>>(),
            }],
            "artifacts": artifacts,
            "results": results,
        }],
    })
}

fn notification(unscored: &Unscored<'_>) -> Value {
    json!({
        "descriptor": {"id": NOT_SCORED, "index": 0},
        "level": "error",
        "message": {"text": unscored.reason},
        "locations": [{"physicalLocation": {"artifactLocation": location(unscored.name)}}],
    })
}

fn rule(threshold: f64) -> Value {
    let meaning = format!(
        "The guard gives the tokens that begin on this line a mean security score below {threshold}. A score ranks \
         code by what the guard has seen in training, high being secure; it is no proof that there is a weakness."
    );
    json!({
        "id": RULE,
        "name": "LowSecurityScore",
        "shortDescription": {"text": "Line with a low security score"},
        "fullDescription": {"text": meaning},
        "help": {"text": format!("{meaning} Look at the line with its surroundings, or compare it with a safer way \
                                  to write it: `dg-run score --html` shows both side by side.")},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["security"], "precision": "low", "problem.severity": "warning"},
    })
}

fn results(text: &ScoredText<'_>, threshold: f64) -> Vec<Value> {
    let mut seen = HashMap::new();
    let mut results = Vec::new();
    for line in lines(text.text, text.scores) {
        let source = text.text.get(line.range.clone()).unwrap_or_default();
        // Counted whether low or not: a result keeps its fingerprint when another one appears or goes.
        let nth: &mut usize = seen.entry(source.trim()).or_default();
        *nth += 1;
        let low = line.score.filter(|&score| f64::from(score) < threshold && !source.trim().is_empty());
        if let Some(score) = low {
            results.push(result(text.name, &line, source, score, *nth));
        }
    }
    results
}

fn result(name: &Path, line: &ScoredLine, source: &str, score: f32, nth: usize) -> Value {
    json!({
        "ruleId": RULE,
        "ruleIndex": 0,
        "level": "warning",
        "message": {"text": format!("Low security score: {score:.3}")},
        "locations": [{"physicalLocation": {
            "artifactLocation": location(name),
            "region": region(line.number, source),
        }}],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint(source, nth)},
        "rank": f64::from((1.0 - score.clamp(0.0, 1.0)) * 1000.0).round() / 10.0,
        "properties": {"score": score},
    })
}

/// The line without the space around it; columns count from 1 and in UTF-16 units.
fn region(number: usize, source: &str) -> Value {
    let units = |text: &str| text.encode_utf16().count();
    let indent = units(source) - units(source.trim_start());
    let trimmed = source.trim();
    json!({
        "startLine": number,
        "startColumn": indent + 1,
        "endLine": number,
        "endColumn": indent + 1 + units(trimmed),
        "snippet": {"text": trimmed},
    })
}

/// A fingerprint that is the same wherever the line stands: its text, and which of the lines with this text
/// it is.
fn fingerprint(source: &str, nth: usize) -> String {
    let hash = blake3::hash(source.trim().as_bytes()).to_hex();
    format!("{}:{nth}", &hash[..16])
}

/// A path as SARIF has it: relative to the root of the source, which is the current folder, or, outside of
/// it, absolute as a `file:` URI.
fn location(path: &Path) -> Value {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if parts.pop().is_some() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return json!({"uri": file_uri(&whole(path))});
            }
            Component::Normal(part) => parts.push(part),
        }
    }
    let parts: Vec<String> = parts.into_iter().map(encoded).collect();
    json!({"uri": parts.join("/"), "uriBaseId": "%SRCROOT%"})
}

/// The path from the root, also of a file that is not there.
fn whole(path: &Path) -> PathBuf {
    let found = path.canonicalize().or_else(|_| std::path::absolute(path));
    found.unwrap_or_else(|_| path.to_owned())
}

/// A whole path as a URI (RFC 8089).
fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for part in path.components() {
        match part {
            Component::Prefix(prefix) => uri.push_str(&drive(prefix.kind())),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => uri.push_str("/.."),
            Component::Normal(part) => uri.extend(["/", &encoded(part)]),
        }
    }
    uri
}

/// What a path of Windows starts with.
fn drive(prefix: Prefix<'_>) -> String {
    match prefix {
        Prefix::Disk(letter) | Prefix::VerbatimDisk(letter) => format!("/{}:", char::from(letter)),
        Prefix::UNC(server, share) | Prefix::VerbatimUNC(server, share) => {
            format!("{}/{}", encoded(server), encoded(share))
        }
        Prefix::Verbatim(name) | Prefix::DeviceNS(name) => format!("/{}", encoded(name)),
    }
}

/// Part of a URI's path: its bytes, whether they are text or not, percent-encoded but for unreserved
/// characters (RFC 3986). A colon could look like a scheme.
fn encoded(part: &OsStr) -> String {
    percent_encode(part.as_encoded_bytes(), RESERVED).to_string()
}

/// All but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepguard::{TextScores, TokenScore};

    fn log(name: &str, text: &str, scores: &[f32]) -> Value {
        let mut start = 0;
        let token = |(line, &score): (&str, &f32)| {
            let range = start..start + line.len();
            start = range.end;
            TokenScore { token: 1, range, score, attention: vec![] }
        };
        let tokens = text.split_inclusive('\n').zip(scores).map(token).collect();
        let scores = TextScores { tokens, mean: 0.5, layers: vec![1] };
        sarif(&[ScoredText { name: Path::new(name), text, scores: &scores }], &[], 0.5)
    }

    #[test]
    fn low_lines_are_results() {
        let text = "ok\n\t🦀é x\n\nlast";
        let log = log("./a b/c:d.py", text, &[0.9, 0.4, 0.1, 0.49]);
        let results = log["runs"][0]["results"].as_array().unwrap();
        let lines: Vec<u64> = results
            .iter()
            .map(|r| r["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap())
            .collect();
        assert_eq!(lines, [2, 4]); // an empty line has nothing to show
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"], json!({"uri": "a%20b/c%3Ad.py", "uriBaseId": "%SRCROOT%"}));
        // The crab is two UTF-16 units.
        assert_eq!((&place["region"]["startColumn"], &place["region"]["endColumn"]), (&json!(2), &json!(7)));
        assert_eq!(results[0]["rank"], 60.0);
    }

    #[test]
    fn fingerprints_move_with_their_lines() {
        let of = |text: &str| -> Vec<String> {
            let scores = vec![0.1; text.lines().count()];
            let log = log("a", text, &scores);
            let results = log["runs"][0]["results"].as_array().unwrap().clone();
            let one =
                |r: Value| r["partialFingerprints"]["primaryLocationLineHash"].as_str().unwrap().to_owned();
            results.into_iter().map(one).collect()
        };
        let (before, after) = (of("x = 1\nx = 1\ny\n"), of("z\nif a:\n  x = 1\nx = 1\r\ny"));
        assert_eq!(before, after[2..]);
        assert_ne!(before[0], before[1]);
    }

    #[test]
    fn absolute_paths_are_file_uris() {
        let location = |path: &str| location(Path::new(path));
        assert_eq!(location("/src/ü.c"), json!({"uri": "file:///src/%C3%BC.c"}));
        let parent = std::env::current_dir().unwrap().parent().unwrap().to_owned();
        assert_eq!(location(".."), location(parent.to_str().unwrap()));
        assert_eq!(location("a/../b//./c"), json!({"uri": "b/c", "uriBaseId": "%SRCROOT%"}));
        // Also of a file that is not there.
        let missing = location("../there/is/none.py")["uri"].as_str().unwrap().to_owned();
        assert!(missing.starts_with("file:///") && missing.ends_with("/there/is/none.py"), "{missing}");
    }

    #[test]
    fn drives_of_windows_are_part_of_the_uri() {
        assert_eq!(drive(Prefix::VerbatimDisk(b'C')), "/C:");
        assert_eq!(drive(Prefix::UNC(OsStr::new("host"), OsStr::new("a b"))), "host/a%20b");
    }

    #[test]
    #[cfg(unix)]
    fn names_keep_their_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let name = Path::new(OsStr::from_bytes(b"a b/raw\xff\\.py"));
        assert_eq!(location(name), json!({"uri": "a%20b/raw%FF%5C.py", "uriBaseId": "%SRCROOT%"}));
    }

    #[test]
    fn a_byte_order_mark_counts_nowhere() {
        let line = |text: &str| {
            let result = log("a", text, &[0.1, 0.1])["runs"][0]["results"][0].clone();
            (
                result["locations"][0]["physicalLocation"]["region"].clone(),
                result["partialFingerprints"].clone(),
            )
        };
        let (region, fingerprint) = line("\u{feff}x = 1\r\n");
        assert_eq!((&region, &fingerprint), (&line("x = 1\n").0, &line("x = 1\n").1));
        assert_eq!((&region["endColumn"], &region["snippet"]["text"]), (&json!(6), &json!("x = 1")));
    }

    #[test]
    fn what_could_not_be_scored_is_a_notification() {
        let unscored = [Unscored { name: Path::new("b d.py"), reason: "no text" }];
        let log = sarif(&[], &unscored, 0.5);
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false);
        let notification = &invocation["toolExecutionNotifications"][0];
        assert_eq!(
            (&notification["level"], &notification["message"]["text"]),
            (&json!("error"), &json!("no text"))
        );
        let location = &notification["locations"][0]["physicalLocation"]["artifactLocation"];
        assert_eq!(location["uri"], "b%20d.py");
        assert_eq!(log["runs"][0]["results"], json!([]));
        assert_eq!(sarif(&[], &[], 0.5)["runs"][0]["invocations"][0]["executionSuccessful"], true);
    }

    #[test]
    fn a_file_given_twice_is_there_once() {
        let scores = TextScores {
            tokens: vec![TokenScore { token: 1, range: 0..1, score: 0.1, attention: vec![] }],
            mean: 0.1,
            layers: vec![1],
        };
        let texts = ["a.py", "./a.py", "b.py"].map(|name| ScoredText {
            name: Path::new(name),
            text: "x",
            scores: &scores,
        });
        let log = sarif(&texts, &[], 0.5);
        for list in ["artifacts", "results"] {
            assert_eq!(log["runs"][0][list].as_array().unwrap().len(), 2, "{list}");
        }
    }
}
