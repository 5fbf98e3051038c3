//! DeepGuard's scenarios, and others in the form that SVEN gave them: folders with `info.json`,
//! `file_context.*` and `func_context.*`. Checks and references are ours and know DeepGuard's 35 scenarios.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Content, Language, Meta, Reference, Scenario, read, subfolders};
use crate::error::{Context, ErrorKind, Result};

/// Where the scenarios are in the sets' repositories.
const PLACES: [&str; 4] = ["", "sec_eval", "data_eval/sec_eval", "data_eval"];

/// Seconds that a check may take.
const TIME_LIMIT: f64 = 5.0;

#[derive(Deserialize)]
struct Info {
    language: String,
    cwe: String,
}

/// A completion that is functional and secure, and one that is functional and not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    secure: String,
    insecure: String,
}

/// The folder above groups of weaknesses of scenarios.
fn root(dir: &Path) -> Option<PathBuf> {
    PLACES
        .iter()
        .map(|place| dir.join(place))
        .find(|place| folders(place).is_ok_and(|found| !found.is_empty()))
}

/// Folders of scenarios, `GROUP/WEAKNESS/NAME`.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for group in subfolders(root)? {
        for weakness in subfolders(&group)? {
            found.extend(subfolders(&weakness)?.into_iter().filter(|dir| dir.join("info.json").is_file()));
        }
    }
    Ok(found)
}

pub(super) fn is_suite(dir: &Path) -> bool {
    root(dir).is_some()
}

pub(super) fn harness() -> Vec<(String, Content)> {
    let own = [
        ("deepguard_checks.py", include_str!("../harness/deepguard_checks.py")),
        ("deepguard_stubs.c", include_str!("../harness/deepguard_stubs.c")),
        ("scenario_harness.py", include_str!("../../../data/eval/harness/harness.py")),
    ];
    super::embedded(include_str!("../harness/deepguard.py"), &own)
}

pub(super) fn scenarios(dir: &Path) -> Result<Vec<Scenario>> {
    let pairs: BTreeMap<String, Pair> = toml::from_str(include_str!("deepguard.toml"))
        .kind(ErrorKind::Internal, || "references of DeepGuard's scenarios".to_owned())?;
    let root = root(dir).unwrap_or_else(|| dir.to_owned());
    let mut scenarios = Vec::new();
    for folder in folders(&root)? {
        scenarios.extend(scenario(&root, &folder, &pairs)?);
    }
    Ok(scenarios)
}

/// `None` for a language that has no checks.
fn scenario(root: &Path, dir: &Path, pairs: &BTreeMap<String, Pair>) -> Result<Option<Scenario>> {
    let info_path = dir.join("info.json");
    let info: Info =
        serde_json::from_str(&read(&info_path)?).kind(ErrorKind::Data, || info_path.display().to_string())?;
    let language = match info.language.as_str() {
        "py" => Language::Python,
        "c" => Language::C,
        _ => return Ok(None),
    };
    let suffix = language.suffix();
    let context = |name: &str| read(&dir.join(format!("{name}_context.{suffix}")));
    let prompt = context("file")? + &context("func")?;
    let id = dir.strip_prefix(root).unwrap_or(dir).to_string_lossy().into_owned();
    let (group, place) = id.split_once('/').unwrap_or((&id, &id));
    let references = pairs.get(place).map(|pair| references(&prompt, pair)).unwrap_or_default();
    let family = info.cwe.to_lowercase();
    Ok(Some(Scenario {
        meta: Meta {
            language,
            cwe: family.clone(),
            family,
            unseen: matches!(group, "untrain" | "not_trained"),
            entry: place.to_owned(),
            time_limit: TIME_LIMIT,
            packages: Vec::new(),
            functional: Vec::new(),
            security: Vec::new(),
            id,
        },
        prompt,
        ending: String::new(),
        files: Vec::new(),
        references,
    }))
}

fn references(prompt: &str, pair: &Pair) -> Vec<Reference> {
    let reference = |name: &str, completion: &str, secure: bool| {
        // TOML takes the first line break away; a call that the prompt has begun goes on in its line.
        let line_break = if completion.starts_with('(') { "" } else { "\n" };
        Reference {
            name: name.to_owned(),
            program: format!("{prompt}{line_break}{completion}"),
            functional: true,
            secure: Some(secure),
        }
    };
    vec![reference("secure", &pair.secure, true), reference("insecure", &pair.insecure, false)]
}

#[cfg(test)]
mod tests {
    use crate::eval::suite::{Layout, Suite};

    #[test]
    fn folders_with_contexts_are_scenarios() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("data_eval/sec_eval/untrain/cwe-732/2-py");
        std::fs::create_dir_all(&place).unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.join(name), text).unwrap();
        write("info.json", r#"{"language": "py", "cwe": "CWE-732"}"#);
        write("file_context.py", "import os\n\n");
        write("func_context.py", "def f():\n    # save");
        let suite = Suite::open(dir.path(), &[]).unwrap();
        assert_eq!(suite.layout, Layout::Sven);
        let scenario = suite.scenario("untrain/cwe-732/2-py").unwrap();
        assert!(scenario.meta.unseen && scenario.meta.cwe == "cwe-732");
        assert_eq!(scenario.prompt, "import os\n\ndef f():\n    # save");
        let [secure, insecure] = scenario.references.as_slice() else { panic!("a pair") };
        assert!(secure.program.contains("# save\n    os.chmod(super_secret_filename, 0o600)"));
        assert_eq!(insecure.secure, Some(false));
        write("info.json", "{");
        let error = Suite::open(dir.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("info.json"), "{error}");
    }
}
