//! Folders that commands write: what they may be before, and whose they are after.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::tiny::Tiny;
use super::{hostile, run, trained};

const EXPORT: &str = "export --model model --adapter run --merge --out out";
const IMPORT: &str = "import model.gguf --out out";

fn with_both() -> Tiny {
    let tiny = trained();
    std::fs::write(tiny.path("model.gguf"), hostile::gguf()).unwrap();
    tiny
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Runs `dg-run` with a umask.
#[track_caller]
fn run_under(tiny: &Tiny, umask: &str, dir: &Path, arguments: &str) {
    let script = format!("umask {umask}; exec \"$0\" {arguments}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_dg-run")]).current_dir(dir);
    let output = command.env("HF_HOME", tiny.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_have_the_modes_that_the_umask_gives() {
    let tiny = with_both();
    // Whatever the modes of the files that are copied.
    set_mode(&tiny.path("model/tokenizer.json"), 0o400);
    for (umask, of_file, of_folder) in [("022", 0o644, 0o755), ("027", 0o640, 0o750), ("077", 0o600, 0o700)] {
        let train = "train --model model --data data/train --output-dir new --max-steps 1 --max-seq-len 160";
        for (command, folder) in [(EXPORT, "out"), (IMPORT, "out"), (train, "new")] {
            run_under(&tiny, umask, &tiny.path(""), command);
            check_modes(&tiny.path(folder), of_file, of_folder);
            std::fs::remove_dir_all(tiny.path(folder)).unwrap();
        }
    }
}

#[track_caller]
fn check_modes(folder: &Path, of_file: u32, of_folder: u32) {
    assert_eq!(mode(folder), of_folder, "{}", folder.display());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => check_modes(&path, of_file, of_folder),
            false => assert_eq!(mode(&path), of_file, "{}", path.display()),
        }
    }
}

#[test]
fn an_empty_folder_is_taken_and_keeps_its_mode() {
    let tiny = with_both();
    for command in [EXPORT, IMPORT] {
        std::fs::create_dir(tiny.path("out")).unwrap();
        set_mode(&tiny.path("out"), 0o711);
        run(&tiny, command).ok();
        assert_eq!(mode(&tiny.path("out")), 0o711);
        run(&tiny, "generate --model out --max-new-tokens 2 ab").ok();
        run(&tiny, command).fails(2, &["out: expected a folder that is new or empty, found `"]);
        std::fs::remove_dir_all(tiny.path("out")).unwrap();
        std::fs::write(tiny.path("out"), "a file").unwrap();
        run(&tiny, command).fails(2, &["out: expected a folder that is new or empty"]);
        assert_eq!(std::fs::read_to_string(tiny.path("out")).unwrap(), "a file");
        std::fs::remove_file(tiny.path("out")).unwrap();
    }
}

#[test]
fn the_working_folder_is_filled() {
    let tiny = with_both();
    for out in [".", "\"$PWD\"", "../here"] {
        let here = tiny.path("here");
        std::fs::create_dir(&here).unwrap();
        // The folder that a shell stands in is the one that is there before and after.
        let before = std::fs::File::open(&here).unwrap();
        let command = format!("export --model ../model --adapter ../run --merge --out {out}");
        run_under(&tiny, "022", &here, &command);
        let inode = |meta: std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(&meta);
        assert_eq!(inode(before.metadata().unwrap()), inode(std::fs::metadata(&here).unwrap()), "{out}");
        check_modes(&here, 0o644, 0o755);
        run(&tiny, "generate --model here --max-new-tokens 2 ab").ok();
        std::fs::remove_dir_all(&here).unwrap();
    }
}
