//! Where the repository and dg-run are: where they were built, or where they were carried to.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// The repository. Cargo sets the variable for the tests that it runs, `scripts/gpu-check.sh` for its own.
pub fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The program, in the folder above that of this one.
pub fn dg_run() -> PathBuf {
    let test = std::env::current_exe().expect("a running program");
    let above = test.parent().and_then(Path::parent).expect("a target folder");
    above.join("dg-run")
}
