//! Finds the model directory that a user means: a path, or a hub id in the local Hugging Face cache, into
//! which [`download`] brings what is missing.

#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
pub mod download;
#[cfg(feature = "hub")]
mod file;
#[cfg(feature = "hub")]
mod progress;
#[cfg(feature = "hub")]
mod retry;
mod settings;

use std::path::{Component, Path, PathBuf};

pub use settings::Settings;

use crate::error::{Error, Result};

/// The revision that the hub serves where none is given.
const DEFAULT_REVISION: &str = "main";

/// What names of models' folders in the cache start with.
const REPO_PREFIX: &str = "models--";

/// The directory of the model `spec`: a directory, or a hub id such as `Qwen/Qwen2.5-Coder-3B` in the local
/// cache (see [`Settings::cache`]). Nothing is downloaded: [`download::obtain`] does that. `revision` is a
/// branch, tag or full commit hash of a hub id; `main` if not given.
///
/// # Errors
/// Kind `Usage`: a revision given for a directory, or one that cannot be. Kind `Model`: neither a directory
/// nor in the cache; the message says where was looked and what to do.
pub fn resolve_model(spec: &str, revision: Option<&str>) -> Result<PathBuf> {
    resolve(spec, revision, Settings::from_env().cache.as_deref())
}

fn resolve(spec: &str, revision: Option<&str>, cache: Option<&Path>) -> Result<PathBuf> {
    let path = Path::new(spec);
    if path.is_dir() {
        return match revision {
            None => Ok(path.to_owned()),
            Some(_) => Err(Error::usage(format!("{spec} is a directory: a revision needs a hub id"))),
        };
    }
    if path.exists() {
        let advice = match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            true => "make a model directory of it with `dg-run import`",
            false => "give the model directory that contains it",
        };
        return Err(Error::model(format!("{spec} is a file: {advice}")));
    }
    if !is_hub_id(spec) {
        return Err(not_found(
            spec,
            "there is no such directory, and it is not a hub id of the form org/name",
        ));
    }
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    if !is_plain_path(revision) {
        return Err(Error::usage(format!("revision {revision:?}: expected a branch, tag or commit hash")));
    }
    match cache {
        Some(cache) => in_cache(spec, revision, &repo_dir(cache, spec)),
        None => {
            Err(not_found(spec, "there is no such directory, and no home directory to look for a cache in"))
        }
    }
}

/// What the cache keeps of a model.
fn repo_dir(cache: &Path, id: &str) -> PathBuf {
    cache.join(repo_name(id))
}

fn repo_name(id: &str) -> String {
    format!("{REPO_PREFIX}{}", id.replace('/', "--"))
}

/// `refs/<revision>` holds the hash that names a folder of `snapshots`; a full hash names it itself.
fn in_cache(spec: &str, revision: &str, repo: &Path) -> Result<PathBuf> {
    if !repo.is_dir() {
        return Err(not_found(spec, &format!("looked for the directory {spec} and for {}", repo.display())));
    }
    let reference = repo.join("refs").join(revision);
    let hash = match std::fs::read_to_string(&reference) {
        Ok(hash) => hash.trim().to_owned(),
        Err(_) => revision.to_owned(),
    };
    let snapshot = repo.join("snapshots").join(&hash);
    if is_commit_hash(&hash) && snapshot.is_dir() {
        return Ok(snapshot);
    }
    let looked = format!("{} has neither {} nor {}", repo.display(), reference.display(), snapshot.display());
    let there = match snapshots(repo).as_slice() {
        [] => "there is no snapshot at all".to_owned(),
        hashes => format!("`revision` takes one of the snapshots there are: {}", hashes.join(", ")),
    };
    Err(not_found(spec, &format!("{looked} for revision {revision:?}; {there}")))
}

/// The commits of which the cache has a snapshot, in their order.
fn snapshots(repo: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(repo.join("snapshots")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut hashes: Vec<String> = names.filter(|name| is_commit_hash(name)).collect();
    hashes.sort();
    hashes
}

/// The commit of a model directory that is a snapshot in a hub cache.
pub fn commit_of(dir: &Path) -> Option<&str> {
    let hash = dir.file_name()?.to_str().filter(|name| is_commit_hash(name))?;
    let (snapshots, repo) = (dir.parent()?, dir.parent()?.parent()?);
    let is_repo = snapshots.ends_with("snapshots") && repo.file_name()?.to_str()?.starts_with(REPO_PREFIX);
    is_repo.then_some(hash)
}

fn not_found(spec: &str, looked: &str) -> Error {
    let hint = "pass the path of a model directory, make one with `dg-run import`, or let a command download the model \
                (not offline, and without HF_HUB_OFFLINE)";
    Error::model(format!("model {spec:?} not found: {looked}; {hint}"))
}

/// `org/name`, or the bare `name` of the hub's first models, by the hub's own rules.
fn is_hub_id(spec: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.chars().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
    };
    spec.split('/').count() <= 2 && spec.split('/').all(part) && !spec.contains("--") && !spec.contains("..")
}

/// Whether joining `path` to a directory stays inside it. (A branch may be called `refs/pr/1`.)
fn is_plain_path(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_commit_hash(hash: &str) -> bool {
    hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
