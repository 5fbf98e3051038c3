//! Disks that are full.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::process::Running;
use super::required::not_tested;
use super::tiny::{Tiny, folder};
use super::{TRAIN, assert_same_folders, is_temporary, names, newest_step, whole_checkpoints};

/// Twelve steps and checkpoints, of which one is kept.
const RUN: &str = "--data data/train --max-steps 12 --num-epochs 3 --save-steps 1 --save-total-limit 1";

fn bytes(dir: &Path) -> u64 {
    folder(dir).iter().map(|(_, content)| content.len() as u64).sum()
}

fn spawn(tiny: &Tiny, program: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).env("DG_RUN", env!("CARGO_BIN_EXE_dg-run"));
    Running::spawn(tiny, command)
}

/// A run in the folder `whole` that nothing disturbs.
fn tiny_with_whole_run() -> Tiny {
    let tiny = Tiny::new("llama");
    Running::start(&tiny, &format!("{TRAIN} {RUN} --output-dir whole")).succeeds();
    tiny
}

#[test]
fn a_write_that_fails_leaves_the_previous_checkpoint() {
    let tiny = tiny_with_whole_run();
    let (run, whole) = (tiny.path("run"), tiny.path("whole"));
    let arguments = format!("{TRAIN} {RUN} --output-dir run --resume-from-checkpoint");
    let mut first = Running::start(&tiny, &arguments);
    first.wait_for("checkpoint: ");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), 75, "{}", first.stderr());
    let newest = newest_step(&run);
    let largest =
        folder(&whole.join("checkpoint-12")).iter().map(|(_, content)| content.len()).max().unwrap();
    // Blocks of 512 bytes that a file may have: from all but the end of the largest to hardly any.
    for blocks in [largest / 512 - 1, largest / 1024, 20, 1] {
        let limited = format!("ulimit -f {blocks}; exec \"$DG_RUN\" {arguments}");
        let mut limited = spawn(&tiny, "sh", &["-c", &limited]);
        assert_eq!(limited.exit_code(), 5, "{}", limited.stderr());
        assert!(limited.stderr().contains("dg-run: cannot write"), "{}", limited.stderr());
        assert_eq!(newest_step(&run), newest);
        assert!(!names(&run).iter().any(|name| is_temporary(name)), "{:?}", names(&run));
    }
    Running::start(&tiny, &arguments).succeeds();
    assert_same_folders(&run.join("checkpoint-12"), &whole.join("checkpoint-12"));
}

/// Runs on a disk of so many bytes, and then goes on on a larger one. `left/` is what the first part left.
fn run_on_a_disk_of(tiny: &Tiny, size: u64) -> (i32, String) {
    let arguments = format!("{TRAIN} {RUN} --output-dir run --resume-from-checkpoint");
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs run || exit 99
        \"$DG_RUN\" {arguments}
        code=$?
        cp -r run left
        mount -o remount,size=256m run
        \"$DG_RUN\" {arguments} || exit 98
        cp -r run/checkpoint-12 last
        exit $code"
    );
    for dir in ["run", "left", "last"] {
        let _ = std::fs::remove_dir_all(tiny.path(dir));
    }
    std::fs::create_dir(tiny.path("run")).unwrap();
    let mut running = spawn(tiny, "unshare", &["-rm", "sh", "-c", &script]);
    (running.exit_code(), running.stderr().to_owned())
}

#[test]
fn a_full_disk_leaves_the_previous_checkpoint() {
    let tiny = tiny_with_whole_run();
    let checkpoint = bytes(&tiny.path("whole/checkpoint-12"));
    let (mut full, mut kept, mut done) = (0, 0, 0);
    for quarters in 1..=10 {
        let (code, stderr) = run_on_a_disk_of(&tiny, checkpoint * quarters / 4 + 65_536);
        if code == 99 || stderr.contains("unshare: ") {
            not_tested(&format!("no file system can be mounted here: {stderr}"));
            return;
        }
        let left = tiny.path("left");
        assert!(!names(&left).iter().any(|name| is_temporary(name)), "{:?}", names(&left));
        kept += usize::from(!whole_checkpoints(&left).is_empty());
        match code {
            0 => done += 1,
            5 => {
                full += 1;
                assert_says_what_to_do(&stderr, checkpoint);
            }
            other => panic!("exit code {other}: {stderr}"),
        }
        assert_same_folders(&tiny.path("last"), &tiny.path("whole/checkpoint-12"));
    }
    assert!(full >= 4 && kept >= 4 && done >= 1, "{full} full, {kept} with a checkpoint, {done} done");
}

/// A folder `small` on a disk of 64 KiB; `None` where no file system can be mounted.
fn with_a_small_disk(tiny: &Tiny, arguments: &str) -> Option<(i32, String)> {
    let script = format!(
        "mount -t tmpfs -o size=65536 tmpfs small || exit 99
        TMPDIR=small exec \"$DG_RUN\" {arguments}"
    );
    let _ = std::fs::create_dir(tiny.path("small"));
    let mut running = spawn(tiny, "unshare", &["-rm", "sh", "-c", &script]);
    let code = running.exit_code();
    let mounted = code != 99 && !running.stderr().contains("unshare: ");
    mounted.then(|| (code, running.stderr().to_owned()))
}

#[test]
fn what_will_not_fit_is_not_begun() {
    let tiny = tiny_with_whole_run();
    let export = "export --model model --adapter whole --merge --out small/new/merged".to_owned();
    let spill = format!("{TRAIN} {RUN} --output-dir run --base-cache-mib 0");
    for (arguments, named) in [(export, "small/new/merged"), (spill.clone(), "--base-cache-mib")] {
        let Some((code, stderr)) = with_a_small_disk(&tiny, &arguments) else {
            not_tested("no file system can be mounted here");
            return;
        };
        assert_eq!(code, 5, "{stderr}");
        for text in [named, "MiB of free disk space, found 0.06"] {
            assert!(stderr.contains(text), "{text:?} not in: {stderr}");
        }
        assert!(!stderr.contains("step 1/"), "{stderr}");
    }
    // What is not kept needs no space.
    let without = with_a_small_disk(&tiny, &format!("{spill} --kl-weight 0"));
    assert!(without.is_some_and(|(code, _)| code == 0));
}

#[test]
fn an_empty_volume_is_filled() {
    let tiny = tiny_with_whole_run();
    std::fs::create_dir(tiny.path("volume")).unwrap();
    let script = "mount -t tmpfs -o size=16m tmpfs volume || exit 99
        \"$DG_RUN\" export --model model --adapter whole --merge --out volume || exit 1
        cp -r volume left";
    let mut running = spawn(&tiny, "unshare", &["-rm", "sh", "-c", script]);
    let code = running.exit_code();
    if code == 99 || running.stderr().contains("unshare: ") {
        not_tested("no file system can be mounted here");
        return;
    }
    assert_eq!(code, 0, "{}", running.stderr());
    let filled = names(&tiny.path("left"));
    assert!(filled.contains(&"config.json".to_owned()) && filled.contains(&"model.safetensors".to_owned()));
    assert!(!filled.iter().any(|name| is_temporary(name)), "{filled:?}");
}

/// The message about too little space: how much is needed, within a twentieth, and which options help.
#[track_caller]
fn assert_says_what_to_do(stderr: &str, checkpoint: u64) {
    let message = stderr.lines().find(|line| line.contains("dg-run: cannot write")).unwrap_or_default();
    let number = |after: &str| -> f64 {
        let (_, rest) = message.split_once(after).unwrap_or_else(|| panic!("{after:?} not in: {stderr}"));
        rest.split_whitespace().next().unwrap().trim_end_matches([';', ',']).parse().unwrap()
    };
    let (needed, free) = (number("expected "), number("found "));
    let actual = checkpoint as f64 / f64::from(1 << 20);
    assert!((needed / actual - 1.0).abs() < 0.05, "{needed} MiB for {actual}");
    assert!(free < needed);
    ["--save-total-limit", "--output-dir"]
        .iter()
        .for_each(|flag| assert!(message.contains(flag), "{message}"));
}
