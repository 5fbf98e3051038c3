//! Which adapter folder a path means, and what is in it.

use std::path::{Path, PathBuf};

use super::{ADAPTER_CONFIG, ADAPTER_MODEL, GUARD_CONFIG, GUARD_MODEL};
use crate::attached::NO_GUARD;
use crate::error::{Error, Result};
use crate::model::prefix::CONTROLS;

/// The finished adapter inside a run folder.
pub const FINAL_ADAPTER: &str = "adapter";

/// PEFT's older weights file.
const PICKLE: &str = "adapter_model.bin";

/// Subfolders with an adapter that a message names at most.
const MOST_NAMED: usize = 3;

/// A folder with PEFT's two files and, if a guard was trained, the guard's two.
#[derive(Clone, Debug)]
pub struct AdapterFolder {
    path: PathBuf,
    has_guard: bool,
}

impl AdapterFolder {
    /// `path` itself if it is an adapter folder, else the finished adapter of the run folder `path`.
    ///
    /// # Errors
    /// Kind `Model`: neither is an adapter folder, or a file of it is missing.
    pub fn find(path: &Path) -> Result<Self> {
        let candidates = [path.to_owned(), path.join(FINAL_ADAPTER)];
        let found = candidates.iter().find(|dir| is_adapter(dir));
        found.map_or_else(|| Err(not_found(path)), |dir| Self::at(dir))
    }

    /// The adapter folder `dir`.
    ///
    /// # Errors
    /// Kind `Model`: a file is missing.
    pub fn at(dir: &Path) -> Result<Self> {
        let has = |name: &str| dir.join(name).is_file();
        let missing =
            |name: &str, why: &str| Err(Error::model(format!("{}: {why}", dir.join(name).display())));
        if !has(ADAPTER_CONFIG) && has_controls(dir) {
            return Ok(AdapterFolder { path: dir.to_owned(), has_guard: false });
        }
        if !has(ADAPTER_CONFIG) {
            return missing(ADAPTER_CONFIG, "expected PEFT's configuration, found no such file");
        }
        if !has(ADAPTER_MODEL) && has(PICKLE) {
            return missing(
                PICKLE,
                "this is a pickle, which may run any code and is never read; save the adapter as safetensors: in \
                 Python, PeftModel.from_pretrained(base, folder).save_pretrained(other_folder)",
            );
        }
        if !has(ADAPTER_MODEL) {
            return missing(ADAPTER_MODEL, "expected the adapter's weights, found no such file");
        }
        for [there, other] in [[GUARD_CONFIG, GUARD_MODEL], [GUARD_MODEL, GUARD_CONFIG]] {
            if has(there) && !has(other) {
                let why = format!(
                    "expected the guard's other half beside {there}, found no such file; use a whole copy of the \
                     adapter, or remove {there} to have one without a guard"
                );
                return missing(other, &why);
            }
        }
        Ok(AdapterFolder { path: dir.to_owned(), has_guard: has(GUARD_CONFIG) })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folders of the controls of a prefix adapter that has both; none of any other.
    pub(super) fn controls(&self) -> Vec<PathBuf> {
        let both = !self.path.join(ADAPTER_CONFIG).is_file() && has_controls(&self.path);
        CONTROLS.iter().filter(|_| both).map(|name| self.path.join(name)).collect()
    }

    /// Whether there is a guard; if not, this is a plain PEFT adapter.
    pub fn has_guard(&self) -> bool {
        self.has_guard
    }

    /// Refuses a plain adapter where a guard is needed.
    ///
    /// # Errors
    /// Kind `Usage`.
    pub fn require_guard(&self) -> Result<()> {
        if self.has_guard {
            return Ok(());
        }
        Err(Error::usage(format!("{}: {NO_GUARD}, in {GUARD_CONFIG} and {GUARD_MODEL}", self.path.display())))
    }
}

/// Whether `dir` is an adapter folder.
fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file() || has_controls(dir)
}

/// Whether `dir` has a prefix for each control.
fn has_controls(dir: &Path) -> bool {
    CONTROLS.iter().all(|name| dir.join(name).join(ADAPTER_CONFIG).is_file())
}

/// Why `path` is no adapter.
fn not_found(path: &Path) -> Error {
    let place = path.display();
    if !path.is_dir() {
        let found = if path.exists() { "another file" } else { "nothing of this name" };
        return Error::model(format!(
            "{place}: expected the folder of an adapter or of a finished run, found {found}"
        ));
    }
    let inside = adapters_in(path);
    let hint = match inside.as_slice() {
        [] => String::new(),
        names => format!("; there is one in {}", names.join(", ")),
    };
    Error::model(format!(
        "{place}: expected an adapter or a finished run, found no {ADAPTER_CONFIG} in it, nor in its folder \
         {FINAL_ADAPTER}{hint}"
    ))
}

/// The first subfolders with an adapter, such as an unfinished run's checkpoints.
fn adapters_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|inner| is_adapter(inner));
    let mut names: Vec<String> = folders.map(|inner| inner.display().to_string()).collect();
    names.sort();
    names.truncate(MOST_NAMED);
    names
}
