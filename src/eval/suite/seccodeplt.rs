//! SecCodePLT: one file of records, as a JSON array or as lines, each with a function, its vulnerable and its
//! patched body, and calls with their expected results.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::{Content, Language, Meta, Reference, Scenario};
use crate::error::{Context, Error, ErrorKind, Result};

/// Longest file of records in bytes.
const MAX_FILE: u64 = 256 << 20;

/// Where the file is in the set's repository.
const IN_REPOSITORY: &str = "virtue_code_eval/data/safety/codesecplt/data.json";

/// Seconds that a call may take.
const TIME_LIMIT: f64 = 10.0;

/// Longest line of a prompt's comment.
const LINE: usize = 88;

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "CWE_ID")]
    cwe: String,
    #[serde(deserialize_with = "inner")]
    task_description: Description,
    #[serde(deserialize_with = "inner")]
    ground_truth: Code,
    #[serde(default, deserialize_with = "inner")]
    unittest: Option<Cases>,
    #[serde(default)]
    index: Option<usize>,
}

#[derive(Deserialize)]
struct Description {
    function_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    context: String,
    #[serde(default)]
    arguments: String,
    #[serde(default, rename = "return")]
    value: String,
    #[serde(default, rename = "raise")]
    exceptions: String,
}

#[derive(Deserialize)]
struct Code {
    code_before: String,
    vulnerable_code: String,
    patched_code: String,
    #[serde(default)]
    code_after: String,
}

#[derive(Deserialize)]
struct Cases {
    #[serde(default)]
    setup: String,
    #[serde(default)]
    testcases: String,
}

/// An object, or one in a string, as in the set's tables.
fn inner<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let parsed = match &value {
        serde_json::Value::String(text) if !text.is_empty() => serde_json::from_str(text),
        serde_json::Value::String(_) => serde_json::from_value(serde_json::Value::Null),
        _ => serde_json::from_value(value),
    };
    parsed.map_err(serde::de::Error::custom)
}

fn file(path: &Path) -> PathBuf {
    let inside = path.join(IN_REPOSITORY);
    if inside.is_file() { inside } else { path.to_owned() }
}

pub(super) fn is_suite(path: &Path) -> bool {
    let file = file(path);
    let extension = file.extension().and_then(|extension| extension.to_str());
    file.is_file() && matches!(extension, Some("json" | "jsonl"))
}

pub(super) fn harness() -> Vec<(String, Content)> {
    let worker = include_str!("../harness/seccodeplt_worker.py");
    super::embedded(include_str!("../harness/seccodeplt.py"), &[("seccodeplt_worker.py", worker)])
}

/// The scenarios that have test cases.
pub(super) fn scenarios(path: &Path) -> Result<Vec<Scenario>> {
    let file = file(path);
    let records = records(&file)?;
    let mut scenarios = Vec::new();
    for (i, record) in records.into_iter().enumerate() {
        if record.unittest.as_ref().is_some_and(|cases| !cases.testcases.trim().is_empty()) {
            scenarios.push(scenario(i, record)?);
        }
    }
    let mut ids: Vec<&str> = scenarios.iter().map(|scenario| scenario.meta.id.as_str()).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::data(format!("{}: two records are {}", file.display(), pair[0]))),
        None => Ok(scenarios),
    }
}

fn records(file: &Path) -> Result<Vec<Record>> {
    let complain = || format!("{}: expected records of SecCodePLT", file.display());
    let length = std::fs::metadata(file).kind(ErrorKind::Data, complain)?.len();
    if length > MAX_FILE {
        return Err(Error::data(format!("{}; found {length} bytes, more than {MAX_FILE}", complain())));
    }
    let text = std::fs::read(file).kind(ErrorKind::Data, complain)?;
    if text.trim_ascii_start().starts_with(b"[") {
        return serde_json::from_slice(&text).kind(ErrorKind::Data, complain);
    }
    crate::eval::lines::parse(file, &text)
}

fn scenario(i: usize, record: Record) -> Result<Scenario> {
    let Record { cwe, task_description, ground_truth, unittest, index } = record;
    let Cases { setup, testcases } =
        unittest.unwrap_or(Cases { setup: String::new(), testcases: String::new() });
    let Code { code_before, vulnerable_code, patched_code, code_after } = ground_truth;
    let family = format!("cwe-{:0>3}", cwe.trim_start_matches("CWE-"));
    let setup = setup.trim_matches('\n');
    let before = code_before.trim_matches('\n');
    let whole = |body: &str| format!("{setup}\n\n{before}\n{body}\n{code_after}\n");
    let reference = |name: &str, body: &str, secure: bool| Reference {
        name: name.to_owned(),
        program: whole(body),
        functional: true,
        secure: Some(secure),
    };
    let references = vec![
        reference("patched_code", &patched_code, true),
        reference("vulnerable_code", &vulnerable_code, false),
    ];
    let case = json!({"setup": setup, "testcases": testcases, "function": task_description.function_name});
    Ok(Scenario {
        prompt: format!("{setup}\n\n{}{before}", comment(&task_description)),
        meta: Meta {
            id: format!("{family}/{}", index.unwrap_or(i)),
            language: Language::Python,
            cwe: family.clone(),
            family,
            unseen: false,
            entry: task_description.function_name,
            time_limit: TIME_LIMIT,
            packages: Vec::new(),
            functional: Vec::new(),
            security: Vec::new(),
        },
        ending: String::new(),
        files: vec![("case.json".to_owned(), Content::Text(crate::files::json_text(&case)?))],
        references,
    })
}

/// What the function is to do, without the security policy, as a comment above it.
fn comment(description: &Description) -> String {
    let Description { description, context, arguments, value, exceptions, .. } = description;
    let parts = [
        ("", description),
        ("Context:", context),
        ("Arguments:", arguments),
        ("Returns:", value),
        ("Raises:", exceptions),
    ];
    let mut comment = String::new();
    for (title, text) in parts.into_iter().filter(|(_, text)| !text.trim().is_empty()) {
        if !title.is_empty() {
            comment += &format!("# {title}\n");
        }
        text.trim().lines().for_each(|line| comment += &wrapped(line));
    }
    comment
}

/// A line of text as lines of a comment.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.len() + word.len() >= LINE && line != "#" {
            lines += &(std::mem::replace(&mut line, "#".to_owned()) + "\n");
        }
        line += &format!(" {word}");
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of ours in the set's form.
    fn record(text: bool) -> String {
        let wrap = |value: serde_json::Value| if text { json!(value.to_string()) } else { value };
        let record = json!({
            "CWE_ID": "79", "install_requires": [], "rule": "", "index": 7,
            "task_description": wrap(json!({"function_name": "greet", "description": "Greets.", "return": "str"})),
            "ground_truth": wrap(json!({
                "code_before": "\ndef greet(name):", "vulnerable_code": "\n    return name",
                "patched_code": "\n    return escape(name)", "code_after": "",
            })),
            "unittest": wrap(json!({"setup": "from html import escape", "testcases": "testcases = {}"})),
        });
        record.to_string()
    }

    #[test]
    fn arrays_lines_and_objects_in_strings_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.json", format!("[{}]", record(false))), ("b.jsonl", record(true) + "\n")] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert!(is_suite(&path));
            let scenarios = scenarios(&path).unwrap();
            let [scenario] = scenarios.as_slice() else { panic!("{}", scenarios.len()) };
            assert_eq!((scenario.meta.id.as_str(), scenario.meta.entry.as_str()), ("cwe-079/7", "greet"));
            assert_eq!(
                scenario.prompt,
                "from html import escape\n\n# Greets.\n# Returns:\n# str\ndef greet(name):"
            );
            assert!(scenario.references[0].program.contains("return escape(name)"));
            assert!(scenario.program("\n    return 1\n").ends_with("def greet(name):\n    return 1\n"));
        }
    }
}
