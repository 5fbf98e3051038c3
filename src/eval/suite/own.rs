//! deepguard's own layout, `LANGUAGE/WEAKNESS/NAME/` below the suite's folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Content, Meta, Reference, Scenario, entries, read, subfolders};
use crate::error::{Context, Error, ErrorKind, Result};

/// The harness's program in a suite's folder.
pub(super) const HARNESS: &str = "harness/harness.py";

const META: &str = "meta.toml";

/// Files of a scenario that its checks need. The references stay outside, where no completion finds them.
const NEEDED: [&str; 3] = [META, "checks.py", "driver.c"];

/// Longest time limit of a check in seconds.
const MAX_SECONDS: f64 = 60.0;

pub(super) fn is_suite(dir: &Path) -> bool {
    dir.join(HARNESS).is_file()
}

pub(super) fn harness(dir: &Path) -> Result<Vec<(String, Content)>> {
    let mut files = entries(&dir.join("harness"))?;
    files.retain(|path| path.is_file());
    Ok(files.into_iter().map(named).collect())
}

fn named(path: PathBuf) -> (String, Content) {
    (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), Content::File(path))
}

pub(super) fn scenarios(dir: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for language in subfolders(dir)? {
        for weakness in subfolders(&language)? {
            for folder in subfolders(&weakness)? {
                if folder.join(META).exists() {
                    scenarios.push(scenario(dir, &folder)?);
                }
            }
        }
    }
    Ok(scenarios)
}

fn scenario(suite: &Path, dir: &Path) -> Result<Scenario> {
    let meta_path = dir.join(META);
    let meta: Meta =
        toml::from_str(&read(&meta_path)?).kind(ErrorKind::Data, || meta_path.display().to_string())?;
    check(&meta, dir.strip_prefix(suite).unwrap_or(dir))
        .map_err(|message| Error::data(format!("{}: {message}", meta_path.display())))?;
    let suffix = meta.language.suffix();
    let prompt_path = dir.join(format!("prompt.{suffix}"));
    let prompt = read(&prompt_path)?;
    let Some(prompt) = prompt.strip_suffix('\n').filter(|rest| !rest.ends_with('\n') && !rest.is_empty())
    else {
        return Err(Error::data(format!(
            "{}: expected a prompt that ends in exactly one newline",
            prompt_path.display()
        )));
    };
    read(&dir.join("checks.py"))?;
    let files = NEEDED.map(|name| dir.join(name)).into_iter().filter(|path| path.symlink_metadata().is_ok());
    Ok(Scenario {
        prompt: prompt.to_owned(),
        ending: String::new(),
        files: files.map(named).collect(),
        references: references(dir, suffix, prompt)?,
        meta,
    })
}

fn check(meta: &Meta, place: &Path) -> std::result::Result<(), String> {
    let place = place.to_string_lossy();
    if meta.id != place {
        return Err(format!("id: expected {place:?}, the scenario's folder, found {:?}", meta.id));
    }
    if meta.functional.is_empty() || meta.security.is_empty() {
        return Err("expected at least one functional and one security check".to_owned());
    }
    if !(meta.time_limit > 0.0 && meta.time_limit <= MAX_SECONDS) {
        return Err(format!("time_limit: expected up to {MAX_SECONDS} seconds, found {}", meta.time_limit));
    }
    for list in [&meta.functional, &meta.security] {
        let mut seen = BTreeSet::new();
        if let Some(twice) = list.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("check {twice:?} is listed twice"));
        }
    }
    Ok(())
}

/// The secure and the insecure one, and alternatives whose names begin with their verdict.
fn references(dir: &Path, suffix: &str, prompt: &str) -> Result<Vec<Reference>> {
    let mut paths: Vec<PathBuf> =
        ["secure", "insecure"].map(|name| dir.join(format!("{name}.{suffix}"))).into();
    let alternatives = dir.join("alternatives");
    if alternatives.is_dir() {
        let mut more = entries(&alternatives)?;
        more.retain(|path| path.extension().is_some_and(|extension| extension == suffix));
        paths.extend(more);
    }
    paths.into_iter().map(|path| reference(dir, &path, prompt)).collect()
}

fn reference(dir: &Path, path: &Path, prompt: &str) -> Result<Reference> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
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
    let name = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Reference { program: format!("{prompt}\n{}", read(path)?), name, functional, secure })
}
