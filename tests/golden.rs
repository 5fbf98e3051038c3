//! The CPU backend against numbers computed by the published PyTorch code.
//!
//! Runs every case found in `cases/` of the folder `DG_GOLDEN_DIR` (default: `tests/golden`). A case on SmolLM2-135M
//! needs that model in `DG_SMOLLM2_DIR` (default: `models/smollm2-135m`). One line per case: the worst
//! error / tolerance of every quantity, and how many numbers were compared.

mod golden_cases;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use golden_cases::case::Case;
use golden_cases::checks::Checks;

fn folder() -> PathBuf {
    match std::env::var_os("DG_GOLDEN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// The `.json` files in `cases/`, sorted.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let dir = folder.join("cases");
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    found.sort();
    found
}

/// Runs one case; returns whether it passed, and what to print.
fn run(folder: &Path, path: &Path) -> (bool, String) {
    let mut checks = Checks::default();
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        golden_cases::run(&Case::open(folder, path)?, &mut checks)
    }));
    let report = checks.report(&name);
    match outcome {
        Ok(Ok(())) => (checks.passed(), report),
        Ok(Err(error)) => (false, format!("FAIL {name}: {error}\n{report}")),
        Err(_) => (false, format!("FAIL {name}: panicked in [{}]\n{report}", checks.variant)),
    }
}

#[test]
fn every_golden_case() {
    let folder = folder();
    let cases = cases(&folder);
    assert!(!cases.is_empty(), "no cases in {}/cases", folder.display());
    let mut failed = Vec::new();
    for path in &cases {
        let (passed, report) = run(&folder, path);
        // Not `println!`, which the test harness swallows when all is well.
        writeln!(std::io::stderr(), "{report}").expect("stderr");
        if !passed {
            failed.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} golden cases failed: {}",
        failed.len(),
        cases.len(),
        failed.join(", ")
    );
}
