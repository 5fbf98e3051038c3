//! Paths that are not UTF-8, which file systems allow and JSON does not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::tiny::Tiny;
use super::{SOURCE, dg_run, trained};

/// A name in Latin-1, and how it is shown.
const NAME: &[u8] = b"o\xffut.py";
const SHOWN: &str = "o\u{fffd}ut.py";
const ESCAPED: &str = "o\\xFFut.py";

fn name() -> &'static OsStr {
    OsStr::from_bytes(NAME)
}

#[test]
fn info_shows_a_cache() {
    let tiny = Tiny::new("llama");
    let mut command = dg_run(&tiny.path(""));
    let output =
        command.env("HF_HOME", tiny.path("").join(name())).args(["info", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cache = info["hub"]["cache"].as_str().unwrap();
    assert!(cache.ends_with(&format!("{SHOWN}/hub")), "{cache}");
}

#[test]
fn a_source_file_is_scored() {
    let tiny = trained();
    std::fs::write(tiny.path("").join(name()), SOURCE).unwrap();
    let mut command = dg_run(&tiny.path(""));
    command.args(["score", "--model", "model", "--adapter", "run", "--json"]).arg(name());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let scored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(scored["file"], ESCAPED);
}

#[test]
fn a_run_needs_paths_that_its_configuration_can_hold() {
    let tiny = Tiny::new("llama");
    for flag in ["--output-dir", "--data", "--val-data"] {
        let mut command = dg_run(&tiny.path(""));
        command.args(["train", "--model", "model", "--data", "data"]);
        if flag == "--data" {
            command = dg_run(&tiny.path(""));
            command.args(["train", "--model", "model"]);
        }
        let output = command.arg(flag).arg(name()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(flag) && told.contains("UTF-8") && told.contains(SHOWN), "{told}");
    }
}
