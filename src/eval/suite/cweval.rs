//! CWEval's `benchmark/` folder: a task with its solution, pytest cases and an unsafe program for each
//! scenario.

use std::path::{Path, PathBuf};

use super::{Content, Language, Meta, Reference, Scenario, entries, read};
use crate::error::{Error, Result};
use crate::eval::sandbox::system_folders;

/// Folders of scenarios with their languages.
const GROUPS: [(&str, Language); 6] = [
    ("core/py", Language::Python),
    ("core/js", Language::JavaScript),
    ("core/c", Language::C),
    ("core/cpp", Language::Cpp),
    ("core/go", Language::Go),
    ("lang/c", Language::C),
];

/// Seconds that a case may take.
const TIME_LIMIT: f64 = 20.0;

pub(super) fn is_suite(dir: &Path) -> bool {
    GROUPS.iter().any(|(group, _)| {
        entries(&dir.join(group)).is_ok_and(|files| files.iter().any(|file| name_of_case(file).is_some()))
    })
}

/// Name of the scenario whose pytest cases a file has.
fn name_of_case(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix("_test.py").filter(|name| name.starts_with("cwe_")).map(str::to_owned)
}

/// Programs of others that cases call, where they lie beside the suite. The folders themselves may be links.
///
/// # Errors
/// Kind `Data`: a link in one of them leads out of it, where the sandbox has something else, or nothing.
pub(super) fn mounts(dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    let places = [Some(dir.to_owned()), parent];
    let mut mounts = Vec::new();
    for name in ["third_party", "node_modules"] {
        let found = places.iter().flatten().map(|place| place.join(name)).find(|path| path.is_dir());
        if let Some(folder) = found.and_then(|path| path.canonicalize().ok()) {
            refuse_links_out(&folder, &folder)?;
            mounts.push((folder, Path::new("/").join(name)));
        }
    }
    Ok(mounts)
}

/// Refuses links below `dir` that lead out of `root`, but to folders that the sandbox has as well.
fn refuse_links_out(dir: &Path, root: &Path) -> Result<()> {
    for path in entries(dir)? {
        let Ok(target) = path.read_link() else {
            if path.is_dir() {
                refuse_links_out(&path, root)?;
            }
            continue;
        };
        // One that leads nowhere here leads nowhere there.
        let Ok(end) = path.canonicalize() else { continue };
        let is_inside = target.is_relative() && end.starts_with(root);
        if !is_inside && !system_folders().any(|folder| end.starts_with(folder)) {
            return Err(Error::data(format!(
                "{}: the link leads to {}, which the sandbox does not have; put a copy in its place, or make it \
                 relative if that lies in {}",
                path.display(),
                target.display(),
                root.display()
            )));
        }
    }
    Ok(())
}

pub(super) fn harness() -> Vec<(String, Content)> {
    let worker = include_str!("../harness/cweval_worker.py");
    super::embedded(include_str!("../harness/cweval.py"), &[("cweval_worker.py", worker)])
}

pub(super) fn scenarios(dir: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for (group, language) in GROUPS {
        let folder = dir.join(group);
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            if let Some(name) = name_of_case(&path) {
                scenarios.push(scenario(&folder, group, language, &name)?);
            }
        }
    }
    Ok(scenarios)
}

fn scenario(folder: &Path, group: &str, language: Language, name: &str) -> Result<Scenario> {
    let suffix = language.suffix();
    let task_path = folder.join(format!("{name}_task.{suffix}"));
    let task = read(&task_path)?;
    let parts = Parts::of(&task).ok_or_else(|| {
        Error::data(format!("{}: expected a line with BEGIN SOLUTION; found none", task_path.display()))
    })?;
    let case_path = folder.join(format!("{name}_test.py"));
    let case = read(&case_path)?;
    let unsafe_path = folder.join(format!("{name}_unsafe.{suffix}"));
    let insecure = match language {
        Language::Python => insecure_python(&parts.prompt, &case),
        _ if unsafe_path.exists() => Some(read(&unsafe_path)?),
        _ => None,
    };
    let reference = |name: &str, program: String, secure: bool| Reference {
        name: name.to_owned(),
        program,
        functional: true,
        secure: Some(secure),
    };
    let mut references = vec![reference("task", task.clone(), true)];
    references.extend(insecure.map(|program| reference("unsafe", program, false)));
    // `cwe_022_0_c` is of the family `cwe-022`.
    let weakness = name.split('_').nth(1).unwrap_or_default();
    let family = format!("cwe-{weakness}");
    Ok(Scenario {
        meta: Meta {
            id: format!("{group}/{name}"),
            language,
            cwe: family.clone(),
            family,
            unseen: false,
            entry: name.to_owned(),
            time_limit: TIME_LIMIT,
            packages: Vec::new(),
            functional: Vec::new(),
            security: Vec::new(),
        },
        prompt: parts.prompt,
        ending: parts.ending,
        files: vec![("test.py".to_owned(), Content::File(case_path))],
        references,
    })
}

/// A task without its solution.
struct Parts {
    /// All before the solution, without the line that begins the prompt and without the last newline.
    prompt: String,
    /// What calls the function.
    ending: String,
}

impl Parts {
    fn of(task: &str) -> Option<Self> {
        let lines: Vec<&str> = task.split_inclusive('\n').collect();
        let solution = lines.iter().position(|line| line.contains("BEGIN SOLUTION"))?;
        let entry = lines.iter().position(|line| line.contains("BEGIN ENTRYPOINT")).unwrap_or(lines.len());
        let before = lines[..solution].iter().filter(|line| !line.contains("BEGIN PROMPT"));
        let prompt: String = before.copied().collect();
        let ending: String = lines.get(entry..)?.concat();
        let ending = if ending.is_empty() { ending } else { format!("\n{ending}") };
        Some(Parts { prompt: prompt.strip_suffix('\n').unwrap_or(&prompt).to_owned(), ending })
    }
}

/// The prompt with the body of the insecure function that the cases have, and what stands before that
/// function there, imports above all.
fn insecure_python(prompt: &str, case: &str) -> Option<String> {
    let lines: Vec<&str> = case.lines().collect();
    let start = lines.iter().position(|line| line.starts_with("def ") && line.contains("_unsafe"))?;
    let head = (start..lines.len()).find(|i| lines[*i].trim_end().ends_with(':'))?;
    let body: Vec<&str> = lines[head + 1..]
        .iter()
        .copied()
        .take_while(|line| line.is_empty() || line.starts_with(' ') || line.starts_with('\t'))
        .collect();
    let before: Vec<&str> = lines[..start]
        .iter()
        .copied()
        .filter(|line| !(line.contains("pytest") || line.contains("_task import")))
        .collect();
    Some(format!("{}\n{prompt}\n{}\n", before.join("\n"), body.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_taken_apart() {
        let task = "#include <a.h>\n\n// BEGIN PROMPT\nint f() {\n    // BEGIN SOLUTION\n    return 1;\n}\n\n\
                    // BEGIN ENTRYPOINT\nint main() { f(); }\n";
        let parts = Parts::of(task).unwrap();
        assert_eq!(parts.prompt, "#include <a.h>\n\nint f() {");
        assert_eq!(parts.ending, "\n// BEGIN ENTRYPOINT\nint main() { f(); }\n");
        assert!(Parts::of("int f() {}\n").is_none());
    }

    #[test]
    fn links_that_lead_out_of_the_suite_are_refused() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let suite = root.path().join("suite/benchmark");
        let folder = root.path().join("suite/third_party");
        std::fs::create_dir_all(&suite).unwrap();
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        std::fs::write(folder.join("tool"), "x").unwrap();
        std::fs::write(root.path().join("secret"), "x").unwrap();
        // To a neighbour, to nothing, to what the sandbox has; and a folder that is a link itself.
        symlink("../tool", folder.join("deep/near")).unwrap();
        symlink("gone", folder.join("nowhere")).unwrap();
        symlink("/usr", folder.join("system")).unwrap();
        symlink(&folder, root.path().join("suite/node_modules")).unwrap();
        let found = mounts(&suite).unwrap();
        let folder = folder.canonicalize().unwrap();
        assert_eq!(found, ["/third_party", "/node_modules"].map(|at| (folder.clone(), at.into())));
        let secret = root.path().join("secret");
        for target in [Path::new("../../../secret"), &secret, &folder.join("tool")] {
            let link = folder.join("deep/out");
            symlink(target, &link).unwrap();
            let error = mounts(&suite).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Data);
            for part in [link.to_str().unwrap(), target.to_str().unwrap(), "put a copy in its place"] {
                assert!(error.to_string().contains(part), "{error}");
            }
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn the_insecure_function_of_the_cases_gets_the_name_of_the_prompt() {
        let case = "import os\nimport pytest\nfrom cwe_1_0_task import f\n\n\ndef f_unsafe(\n    a, b\n) -> str:\n    \
                    x = 1\n\n    return a\n\n\nX = 2\n";
        let program = insecure_python("def f(a, b):\n    '''Doc.'''", case).unwrap();
        assert_eq!(program, "import os\n\n\ndef f(a, b):\n    '''Doc.'''\n    x = 1\n\n    return a\n\n\n");
    }
}
