//! Libraries that are looked for when the program runs.

use std::error::Error as _;
use std::ffi::c_int;
use std::path::Path;

use libloading::os::unix::Library;
use serde::Serialize;

use crate::error::{Error, Result};

/// A library that is installed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The path, as far as it is known.
    pub path: String,
    /// What it says of itself.
    pub version: String,
}

impl Found {
    /// The library that was loaded by this name.
    pub(super) fn of(name: &str, version: String) -> Self {
        Found { path: path_of(name).unwrap_or_else(|| name.to_owned()), version }
    }
}

/// The names to try: what `variable` says, else `known`.
pub(super) fn names(variable: &str, known: &[&str]) -> Vec<String> {
    match std::env::var_os(variable).filter(|given| !given.is_empty()) {
        Some(given) => vec![given.to_string_lossy().into_owned()],
        None => known.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// What `of` makes of the first of these libraries of `what` that is there and has all it looks for.
///
/// # Errors
/// Of kind `Cluster`, with everything that was tried.
pub(super) fn load<T>(
    what: &str,
    variable: &str,
    names: &[String],
    flags: c_int,
    of: impl Fn(Library, &str) -> std::result::Result<T, libloading::Error>,
) -> Result<T> {
    let mut tried = Vec::new();
    for name in names {
        // SAFETY: such a library, as its name says or the user does; its initialisers may run here.
        let loaded = unsafe { Library::open(Some(name), flags) };
        match loaded.and_then(|library| of(library, name)) {
            Ok(found) => return Ok(found),
            Err(error) => {
                // Of a missing function, only the source has the name.
                let reason = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
                tried.push(format!("{name}: {}", reason.trim_start_matches(&format!("{name}: "))));
            }
        }
    }
    Err(Error::cluster(format!(
        "no {what} library can be loaded; install one, or set {variable} to its library; tried {}",
        tried.join("; ")
    )))
}

/// The file behind a library that is loaded.
fn path_of(name: &str) -> Option<String> {
    let file = Path::new(name).file_name()?.to_str()?.to_owned();
    let stem = file.split(".so").next()?.to_owned() + ".so";
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| line[at..].to_owned()));
    paths.into_iter().find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(&stem)))
}
