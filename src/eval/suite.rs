//! Suites of scenarios in deepguard's own layout, `LANGUAGE/WEAKNESS/NAME/` below the suite's folder;
//! `data/eval` is one, and its README the layout's specification.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context, Error, ErrorKind, Result};

/// Longest file of a scenario in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Longest time limit of a check in seconds.
const MAX_SECONDS: f64 = 60.0;

/// A suite: its scenarios, and the harness that runs their checks.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Folder of the suite.
    pub dir: PathBuf,
    /// Scenarios in the order of their ids.
    pub scenarios: Vec<Scenario>,
}

/// Language of a scenario's code.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3.
    Python,
    /// C.
    C,
}

impl Language {
    /// Suffix of a file of code.
    pub fn suffix(self) -> &'static str {
        match self {
            Language::Python => "py",
            Language::C => "c",
        }
    }
}

/// `meta.toml` of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// `LANGUAGE/WEAKNESS/NAME`, which is also the scenario's folder.
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
    /// Names of the functional checks, in the order in which they run.
    pub functional: Vec<String>,
    /// Names of the security checks, which run after them.
    pub security: Vec<String>,
}

/// A prompt to be completed, with the checks that judge completions.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Folder of the scenario.
    pub dir: PathBuf,
    /// What `meta.toml` says.
    pub meta: Meta,
    /// What a model continues, without the file's last newline.
    pub prompt: String,
}

/// A completion whose verdict is known.
#[derive(Clone, Debug)]
pub struct Reference {
    /// File of the completion.
    pub path: PathBuf,
    /// The completion.
    pub completion: String,
    /// Whether its functional checks pass.
    pub functional: bool,
    /// Whether its security checks pass as well; `None` where the function does not work.
    pub secure: Option<bool>,
}

impl Suite {
    /// Reads a suite; `prefix` keeps only the scenarios whose id begins so.
    ///
    /// # Errors
    /// Kind `Data`, with the file: there is no scenario, or one that is not complete or contradicts itself.
    pub fn open(dir: &Path, prefix: &str) -> Result<Self> {
        let harness = dir.join(HARNESS);
        if !harness.is_file() {
            return Err(Error::data(format!(
                "{}: expected a suite of scenarios with its {HARNESS}; found no such file",
                dir.display()
            )));
        }
        let mut scenarios = Vec::new();
        for language in subfolders(dir)? {
            for weakness in subfolders(&language)? {
                for folder in subfolders(&weakness)? {
                    if folder.join(META).exists() {
                        scenarios.push(Scenario::open(dir, &folder)?);
                    }
                }
            }
        }
        scenarios.retain(|scenario| scenario.meta.id.starts_with(prefix));
        scenarios.sort_by(|a, b| a.meta.id.cmp(&b.meta.id));
        if scenarios.is_empty() {
            return Err(Error::data(format!(
                "{}: no scenario has an id that begins with {prefix:?}",
                dir.display()
            )));
        }
        Ok(Suite { dir: dir.to_owned(), scenarios })
    }

    /// The scenario with this id.
    pub fn scenario(&self, id: &str) -> Option<&Scenario> {
        let found = self.scenarios.binary_search_by(|scenario| scenario.meta.id.as_str().cmp(id));
        found.ok().map(|at| &self.scenarios[at])
    }
}

/// The harness's program in a suite's folder.
pub const HARNESS: &str = "harness/harness.py";

const META: &str = "meta.toml";

impl Scenario {
    fn open(suite: &Path, dir: &Path) -> Result<Self> {
        let meta_path = dir.join(META);
        let meta: Meta =
            toml::from_str(&read(&meta_path)?).kind(ErrorKind::Data, || meta_path.display().to_string())?;
        let complain = |message: String| Err(Error::data(format!("{}: {message}", meta_path.display())));
        let place = dir.strip_prefix(suite).unwrap_or(dir).to_string_lossy().replace('\\', "/");
        if meta.id != place {
            return complain(format!("id: expected {place:?}, the scenario's folder, found {:?}", meta.id));
        }
        if meta.functional.is_empty() || meta.security.is_empty() {
            return complain("expected at least one functional and one security check".to_owned());
        }
        if !(meta.time_limit > 0.0 && meta.time_limit <= MAX_SECONDS) {
            return complain(format!(
                "time_limit: expected up to {MAX_SECONDS} seconds, found {}",
                meta.time_limit
            ));
        }
        for list in [&meta.functional, &meta.security] {
            let mut seen = BTreeSet::new();
            if let Some(twice) = list.iter().find(|name| !seen.insert(name.as_str())) {
                return complain(format!("check {twice:?} is listed twice"));
            }
        }
        let prompt_path = dir.join(format!("prompt.{}", meta.language.suffix()));
        let prompt = read(&prompt_path)?;
        let Some(prompt) = prompt.strip_suffix('\n').filter(|rest| !rest.ends_with('\n') && !rest.is_empty())
        else {
            return Err(Error::data(format!(
                "{}: expected a prompt that ends in exactly one newline",
                prompt_path.display()
            )));
        };
        for name in ["checks.py".to_owned(), format!("secure.{}", meta.language.suffix())] {
            read(&dir.join(name))?;
        }
        Ok(Scenario { dir: dir.to_owned(), prompt: prompt.to_owned(), meta })
    }

    /// The references: the secure and the insecure one, and alternatives whose names begin with their
    /// verdict.
    ///
    /// # Errors
    /// Kind `Data`: a reference is missing or cannot be read, or its name says no verdict.
    pub fn references(&self) -> Result<Vec<Reference>> {
        let suffix = self.meta.language.suffix();
        let mut paths: Vec<PathBuf> =
            ["secure", "insecure"].map(|name| self.dir.join(format!("{name}.{suffix}"))).into();
        let alternatives = self.dir.join("alternatives");
        if alternatives.is_dir() {
            let mut more = entries(&alternatives)?;
            more.retain(|path| path.extension().is_some_and(|extension| extension == suffix));
            paths.extend(more);
        }
        paths.into_iter().map(reference).collect()
    }
}

fn reference(path: PathBuf) -> Result<Reference> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (functional, secure) = match stem.split('-').next() {
        Some("secure") => (true, Some(true)),
        Some("insecure") => (true, Some(false)),
        Some("broken") => (false, None),
        _ => {
            return Err(Error::data(format!(
                "{}: expected a name that begins with secure, insecure or broken",
                path.display()
            )));
        }
    };
    Ok(Reference { completion: read(&path)?, path, functional, secure })
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
