use std::fs;

use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with one model, `org/name`, with the branches `main` and `refs/pr/1`.
fn cache() -> (TempDir, PathBuf) {
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--org--name");
    let snapshot = repo.join("snapshots").join(HASH);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs/refs/pr")).unwrap();
    fs::write(repo.join("refs/main"), HASH).unwrap();
    fs::write(repo.join("refs/refs/pr/1"), format!("{HASH}\n")).unwrap();
    fs::write(repo.join("refs/dangling"), HASH.replace('0', "f")).unwrap();
    fs::write(repo.join("refs/hostile"), "../../..").unwrap();
    (cache, snapshot)
}

#[track_caller]
fn assert_error(result: Result<PathBuf>, kind: ErrorKind, named: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for name in named {
        assert!(error.to_string().contains(name), "{name:?} not in: {error}");
    }
}

#[test]
fn a_directory_is_itself() {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().to_str().unwrap();
    assert_eq!(resolve(spec, None, None).unwrap(), dir.path());
    assert_error(resolve(spec, Some("main"), None), ErrorKind::Usage, &["revision"]);
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    let file = dir.path().join("config.json");
    assert_error(resolve(file.to_str().unwrap(), None, None), ErrorKind::Model, &["is a file"]);
}

#[test]
fn a_hub_id_is_its_snapshot() {
    let (cache, snapshot) = cache();
    for revision in [None, Some("main"), Some("refs/pr/1"), Some(HASH)] {
        assert_eq!(resolve("org/name", revision, Some(cache.path())).unwrap(), snapshot);
    }
}

#[test]
fn a_cache_filled_by_commit_is_found_by_commit() {
    let (cache, snapshot) = cache();
    fs::remove_dir_all(cache.path().join("models--org--name/refs")).unwrap();
    assert_eq!(resolve("org/name", Some(HASH), Some(cache.path())).unwrap(), snapshot);
    for revision in [None, Some("v1")] {
        let found = resolve("org/name", revision, Some(cache.path()));
        assert_error(found, ErrorKind::Model, &["`revision`", HASH]);
    }
    fs::remove_dir_all(&snapshot).unwrap();
    assert_error(resolve("org/name", None, Some(cache.path())), ErrorKind::Model, &["no snapshot"]);
}

#[test]
fn the_commit_of_a_snapshot() {
    let (cache, snapshot) = cache();
    assert_eq!(commit_of(&snapshot), Some(HASH));
    for other in [cache.path().join(HASH), cache.path().join("snapshots").join(HASH), snapshot.join("a")] {
        assert_eq!(commit_of(&other), None, "{}", other.display());
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (cache, _) = cache();
    let lookup = |spec, revision| resolve(spec, revision, Some(cache.path()));
    assert_error(
        lookup("org/other", None),
        ErrorKind::Model,
        &["models--org--other", "dg-run import", "download"],
    );
    for revision in ["v2", "dangling", "hostile", "snapshots"] {
        assert_error(lookup("org/name", Some(revision)), ErrorKind::Model, &["refs", "snapshots", revision]);
    }
    for revision in ["", "..", "../main", "/main", "a/../../b"] {
        assert_error(lookup("org/name", Some(revision)), ErrorKind::Usage, &["revision"]);
    }
    for spec in [
        "./missing",
        "/missing/model",
        "a/b/c",
        "...",
        "",
        "org/",
        "/name",
        "org/na me",
        "a--b/c",
        "org/..",
        "~/m",
    ] {
        assert_error(lookup(spec, None), ErrorKind::Model, &["no such directory", "dg-run import"]);
    }
    assert_error(resolve("org/name", None, None), ErrorKind::Model, &["no home directory"]);
}
