//! Discovery of the golden cases, and runs of them.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use deepguard::ops::Backend;

use crate::golden_cases::Precision;
use crate::golden_cases::case::{Case, Result};
use crate::golden_cases::checks::Checks;
use crate::golden_cases::sven;
use crate::places::root;

fn own_folder() -> PathBuf {
    root().join("tests/golden")
}

/// The `.json` files of a folder, sorted.
fn cases(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    found.sort();
    assert!(!found.is_empty(), "no cases in {}", dir.display());
    found
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs one case; returns whether it passed, and what to print.
fn run(folder: &Path, path: &Path, check: impl FnOnce(&Case, &mut Checks) -> Result<()>) -> (bool, String) {
    let mut checks = Checks::default();
    let name = name(path);
    let outcome =
        std::panic::catch_unwind(AssertUnwindSafe(|| check(&Case::open(folder, path)?, &mut checks)));
    let report = checks.report(&name);
    match outcome {
        Ok(Ok(())) => (checks.passed(), report),
        Ok(Err(error)) => (false, format!("FAIL {name}: {error}\n{report}")),
        Err(_) => (false, format!("FAIL {name}: panicked in [{}]\n{report}", checks.variant)),
    }
}

/// Runs the cases of `tests/golden/cases` or `DG_GOLDEN_DIR` whose names are `wanted`, each on a backend of
/// its own. Fails after the last, with all that failed.
pub fn run_all<B: Backend>(backend: impl Fn() -> B, precision: Precision, wanted: impl Fn(&str) -> bool) {
    let folder = std::env::var_os("DG_GOLDEN_DIR").map_or_else(own_folder, PathBuf::from);
    run_each(&folder, "cases", wanted, |case, checks| super::run(backend(), precision, case, checks));
}

/// The same of the cases of SVEN.
pub fn run_sven<B: Backend>(backend: impl Fn() -> B, precision: Precision, wanted: impl Fn(&str) -> bool) {
    run_each(&own_folder(), "sven", wanted, |case, checks| sven::run(backend(), precision, case, checks));
}

fn run_each(
    folder: &Path,
    inner: &str,
    wanted: impl Fn(&str) -> bool,
    check: impl Fn(&Case, &mut Checks) -> Result<()>,
) {
    let cases: Vec<PathBuf> =
        cases(&folder.join(inner)).into_iter().filter(|path| wanted(&name(path))).collect();
    let mut failed = Vec::new();
    for path in &cases {
        let (passed, report) = run(folder, path, &check);
        // Not `println!`, which the test harness swallows when all is well.
        writeln!(std::io::stderr(), "{report}").expect("stderr");
        if !passed {
            failed.push(name(path));
        }
    }
    let (failures, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{failures} of {all} golden cases failed: {}", failed.join(", "));
}
