//! What verdicts were found with: sandbox, interpreter, compilers and packages. Versions decide verdicts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::sandbox::{Ending, Job, Sandbox, system_folders, words};
use crate::error::{Context, Error, ErrorKind, Result};

/// Programs beside Python that checks run.
const TOOLS: [&str; 5] = ["gcc", "g++", "node", "go", "nm"];

/// Everything that verdicts depend on beside programs and checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this crate.
    pub deepguard: String,
    /// Sandbox and its version.
    pub sandbox: String,
    /// Version of Python.
    pub python: String,
    /// Compilers and interpreters with their versions; those that are missing are left out.
    pub tools: BTreeMap<String, String>,
    /// Python packages with their versions.
    pub packages: BTreeMap<String, String>,
}

/// Interpreter that runs checks if no other is named.
pub const PYTHON: &str = "/usr/bin/python3";

impl Environment {
    /// That of a judge with the sandbox of this machine and the system's Python.
    ///
    /// # Errors
    /// Those of [`Sandbox::find`], [`Python::find`] and [`Environment::of`].
    pub fn here() -> Result<Self> {
        Environment::of(&Sandbox::find()?, &Python::find(Path::new(PYTHON))?)
    }

    /// What is found in the sandbox.
    ///
    /// # Errors
    /// Kind `Device`: there is no Python 3.11 or later in the sandbox.
    pub fn of(sandbox: &Sandbox, python: &Python) -> Result<Self> {
        let mut command = vec![python.program.clone().into_os_string()];
        command.extend(words(["-I", "-c", include_str!("environment.py")]));
        command.extend(TOOLS.map(Into::into));
        let folders = python.folders.iter().map(|folder| (folder.clone(), folder.clone()));
        let cannot = || "cannot make a temporary folder".to_owned();
        let work = tempfile::tempdir().kind(ErrorKind::Device, cannot)?;
        sandbox.give(0, work.path()).kind(ErrorKind::Device, cannot)?;
        let read_only = folders.collect();
        let outcome =
            sandbox.run(0, &Job { command, read_only, work: work.path().into(), ..Job::default() })?;
        let said = String::from_utf8_lossy(&outcome.stderr);
        let complain = || {
            format!(
                "expected Python 3.11 or later as {}, readable in the sandbox by a user who is nobody; found: {}",
                python.program.display(),
                said.lines().last().unwrap_or("no answer")
            )
        };
        if outcome.ending != Ending::Exited(0) {
            return Err(Error::device(complain()));
        }
        #[derive(Deserialize)]
        struct Found {
            python: String,
            tools: BTreeMap<String, String>,
            packages: BTreeMap<String, String>,
        }
        let found: Found = serde_json::from_slice(&outcome.stdout).kind(ErrorKind::Device, complain)?;
        Ok(Environment {
            deepguard: env!("CARGO_PKG_VERSION").to_owned(),
            sandbox: sandbox.name().to_owned(),
            python: found.python,
            tools: found.tools,
            packages: found.packages,
        })
    }

    /// Adds the packages of a folder `node_modules`, if it is one.
    pub(super) fn add_node_packages(&mut self, folder: &Path) {
        #[derive(Deserialize)]
        struct Package {
            name: String,
            version: String,
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path().join("package.json")).unwrap_or_default();
            if let Ok(Package { name, version }) = serde_json::from_slice(&text) {
                self.packages.insert(format!("node:{name}"), version);
            }
        }
    }

    /// BLAKE3 of all of it.
    ///
    /// # Errors
    /// None that can be met.
    pub fn hash(&self) -> Result<String> {
        Ok(blake3::hash(crate::files::json_text(self)?.as_bytes()).to_hex().to_string())
    }
}

/// A Python interpreter and the folders that it needs.
#[derive(Clone, Debug)]
pub struct Python {
    /// The interpreter.
    pub program: PathBuf,
    /// Folders of its installation and packages outside those of the system.
    pub folders: Vec<PathBuf>,
}

impl Python {
    /// Asks an interpreter where its folders are.
    ///
    /// # Errors
    /// Kind `Device`: it cannot be run.
    pub fn find(program: &Path) -> Result<Self> {
        const QUESTION: &str = "import os, sys; print('\\n'.join({os.path.realpath(p) for p in \
                                [sys.prefix, sys.base_prefix, *sys.path] if os.path.isdir(p)} | {sys.prefix}))";
        let complain = || format!("expected a Python interpreter as {}", program.display());
        let output = Command::new(program).args(["-I", "-c", QUESTION]).stdin(Stdio::null()).output();
        let output = output.kind(ErrorKind::Device, complain)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::device(format!("{}; found: {said}", complain())));
        }
        let program = std::path::absolute(program).kind(ErrorKind::Device, complain)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut folders: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
        folders.retain(|folder| !system_folders().any(|system| folder.starts_with(system)));
        folders.sort();
        folders.dedup_by(|inner, outer| inner.starts_with(&*outer));
        Ok(Python { program, folders })
    }
}
