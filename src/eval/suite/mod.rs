//! Suites of scenarios: prompts to be completed, with the checks that judge completions and with references
//! whose verdicts are known. A suite is recognised by its layout.

mod cweval;
mod deepguard;
mod own;
mod seccodeplt;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, ErrorKind, Result};

/// The group of all scenarios.
pub const ALL: &str = "all";

/// The group of scenarios whose families are in the training data.
pub const TRAINED: &str = "trained";

/// The group of scenarios of unseen families.
pub const UNSEEN: &str = "unseen";

/// Longest file of a suite in bytes, but for those that hold all scenarios.
const MAX_FILE: u64 = 1 << 20;

/// A suite: its scenarios, and the harness that runs their checks.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Folder or file of the suite.
    pub dir: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Scenarios in the order of their ids.
    pub scenarios: Vec<Scenario>,
}

/// Layout of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// deepguard's own, `LANGUAGE/WEAKNESS/NAME/` below the suite's folder; `data/eval` is one, and its
    /// README the specification.
    Own,
    /// CWEval's `benchmark/`.
    CwEval,
    /// SecCodePLT's records.
    SecCodePlt,
    /// Folders with `info.json`, `file_context.*` and `func_context.*`, as DeepGuard and SVEN have them.
    Sven,
}

/// Language of a scenario's code.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3.
    Python,
    /// C.
    C,
    /// C++.
    Cpp,
    /// JavaScript, for Node.
    JavaScript,
    /// Go.
    Go,
}

impl Language {
    /// Suffix of a file of code.
    pub fn suffix(self) -> &'static str {
        match self {
            Language::Python => "py",
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::JavaScript => "js",
            Language::Go => "go",
        }
    }
}

/// What a scenario is; in our own layout, its `meta.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Name of the scenario, one in its suite.
    pub id: String,
    /// Language of prompt and completions.
    pub language: Language,
    /// Weakness, such as `cwe-089`.
    pub cwe: String,
    /// Family of weaknesses, over which families are resampled.
    pub family: String,
    /// Whether no training pair is of this family.
    pub unseen: bool,
    /// Function that the prompt begins.
    pub entry: String,
    /// Seconds that each check may take.
    pub time_limit: f64,
    /// Python packages beyond the standard library that the checks need.
    pub packages: Vec<String>,
    /// Names of the functional checks, in the order in which they run. Where there are none, the harness says
    /// which there are, before the candidate runs.
    pub functional: Vec<String>,
    /// Names of the security checks, which run after them.
    pub security: Vec<String>,
}

/// A prompt to be completed, with the checks that judge completions.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is.
    pub meta: Meta,
    /// What a model continues.
    pub prompt: String,
    /// What follows a completion in the program that is judged.
    pub ending: String,
    /// Files that the checks need, with their names there. No reference is among them.
    pub files: Vec<(String, Content)>,
    /// Programs whose verdicts are known.
    pub references: Vec<Reference>,
}

/// A file of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// As it is in the suite.
    File(PathBuf),
    /// Made from something in the suite.
    Text(String),
}

impl Content {
    /// The file's bytes.
    ///
    /// # Errors
    /// Kind `Data`: it cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Content::File(path) => read(path).map(String::into_bytes),
            Content::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// A program whose verdict is known.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its name, one in its scenario.
    pub name: String,
    /// The whole program.
    pub program: String,
    /// Whether its functional checks pass.
    pub functional: bool,
    /// Whether its security checks pass as well; `None` where the function does not work.
    pub secure: Option<bool>,
}

impl Suite {
    /// Reads a suite: the scenarios whose id begins with one of the prefixes `only`, or all if there is none.
    ///
    /// # Errors
    /// Kind `Data`, with the file: no id begins with one of the prefixes, or a scenario is not complete or
    /// contradicts itself.
    pub fn open(dir: &Path, only: &[String]) -> Result<Self> {
        let layout = layout_of(dir)?;
        let mut scenarios = match layout {
            Layout::Own => own::scenarios(dir)?,
            Layout::CwEval => cweval::scenarios(dir)?,
            Layout::SecCodePlt => seccodeplt::scenarios(dir)?,
            Layout::Sven => deepguard::scenarios(dir)?,
        };
        let begins = |prefix: &String| scenarios.iter().any(|scenario| scenario.meta.id.starts_with(prefix));
        if let Some(prefix) = only.iter().find(|prefix| !begins(prefix)) {
            return Err(Error::data(format!(
                "{}: no scenario has an id that begins with {prefix:?}",
                dir.display()
            )));
        }
        scenarios.retain(|Scenario { meta, .. }| {
            only.is_empty() || only.iter().any(|prefix| meta.id.starts_with(prefix))
        });
        scenarios.sort_by(|a, b| a.meta.id.cmp(&b.meta.id));
        if scenarios.is_empty() {
            return Err(Error::data(format!("{}: expected scenarios; there is none", dir.display())));
        }
        let reserved = |scenario: &&Scenario| [ALL, TRAINED, UNSEEN].contains(&scenario.meta.family.as_str());
        if let Some(Scenario { meta, .. }) = scenarios.iter().find(reserved) {
            return Err(Error::data(format!(
                "{}: {}: a family cannot be called {:?}, as a group of scenarios is",
                dir.display(),
                meta.id,
                meta.family
            )));
        }
        Ok(Suite { dir: dir.to_owned(), layout, scenarios })
    }

    /// The scenario with this id.
    pub fn scenario(&self, id: &str) -> Option<&Scenario> {
        let found = self.scenarios.binary_search_by(|scenario| scenario.meta.id.as_str().cmp(id));
        found.ok().map(|at| &self.scenarios[at])
    }

    /// Files of the harness with their names; `harness.py` is the program.
    ///
    /// # Errors
    /// Kind `Data`: they cannot be read.
    pub fn harness(&self) -> Result<Vec<(String, Content)>> {
        match self.layout {
            Layout::Own => own::harness(&self.dir),
            Layout::CwEval => Ok(cweval::harness()),
            Layout::SecCodePlt => Ok(seccodeplt::harness()),
            Layout::Sven => Ok(deepguard::harness()),
        }
    }

    /// Folders of the host that the checks need beside the scenario's files, with the paths that they have
    /// inside.
    ///
    /// # Errors
    /// Kind `Data`: a link in one of them leads to where the sandbox has something else, or nothing.
    pub fn mounts(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        match self.layout {
            Layout::Own | Layout::SecCodePlt | Layout::Sven => Ok(Vec::new()),
            Layout::CwEval => cweval::mounts(&self.dir),
        }
    }
}

/// BLAKE3 of the files of a harness, with their names.
///
/// # Errors
/// Kind `Data`: one of them cannot be read.
pub fn harness_hash(files: &[(String, Content)]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in files {
        hasher.update(blake3::hash(name.as_bytes()).as_bytes());
        hasher.update(blake3::hash(&content.read()?).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A harness of this crate: its program, files of its own, and those that it has in common with that of our
/// own layout.
fn embedded(program: &str, own: &[(&str, &str)]) -> Vec<(String, Content)> {
    let common = [
        ("harness.py", program),
        ("candidate.py", include_str!("../../../data/eval/harness/candidate.py")),
        ("patience.py", include_str!("../../../data/eval/harness/patience.py")),
        ("protocol.py", include_str!("../../../data/eval/harness/protocol.py")),
        ("worker.py", include_str!("../../../data/eval/harness/worker.py")),
    ];
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), Content::Text((*text).to_owned()));
    common.iter().chain(own).map(file).collect()
}

fn layout_of(dir: &Path) -> Result<Layout> {
    /// Whether a folder or file is a suite of a layout.
    type Recognises = fn(&Path) -> bool;
    let layouts: [(Layout, Recognises); 4] = [
        (Layout::Own, own::is_suite),
        (Layout::CwEval, cweval::is_suite),
        (Layout::SecCodePlt, seccodeplt::is_suite),
        (Layout::Sven, deepguard::is_suite),
    ];
    let found = layouts.into_iter().find(|(_, is_suite)| is_suite(dir));
    found.map(|(layout, _)| layout).ok_or_else(|| {
        Error::data(format!(
            "{}: expected a suite: a folder with {} (deepguard's layout), CWEval's folder benchmark, \
             a file of SecCodePLT's records, .json or .jsonl, or folders of scenarios with info.json (DeepGuard, SVEN)",
            dir.display(),
            own::HARNESS
        ))
    })
}

impl Scenario {
    /// The program that a completion makes.
    pub fn program(&self, completion: &str) -> String {
        format!("{}{completion}{}", self.prompt, self.ending)
    }

    /// BLAKE3 of all that decides what a verdict on a program of this scenario is, but for harness and
    /// environment.
    ///
    /// # Errors
    /// Kind `Data`: a file cannot be read.
    pub fn checks_hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(crate::files::json_text(&self.meta)?.as_bytes());
        for (name, content) in &self.files {
            add(name.as_bytes());
            add(&content.read()?);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Entries of a folder in the order of their names.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let complain = || format!("cannot read the folder {}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).kind(ErrorKind::Data, complain)? {
        paths.push(entry.kind(ErrorKind::Data, complain)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Folders in a folder. Links are left alone, so that no scenario lies outside the suite.
fn subfolders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = entries(dir)?;
    folders.retain(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir()));
    Ok(folders)
}

/// Text of a regular file of the suite.
fn read(path: &Path) -> Result<String> {
    let complain = || format!("cannot read {}", path.display());
    let found = path.symlink_metadata().kind(ErrorKind::Data, complain)?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(Error::data(format!(
            "{}: expected a regular file of at most {MAX_FILE} bytes; links are not followed",
            path.display()
        )));
    }
    std::fs::read_to_string(path).kind(ErrorKind::Data, complain)
}
