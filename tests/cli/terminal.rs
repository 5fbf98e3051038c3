//! What a terminal shows, and a reader that goes away.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::tiny::Tiny;
use super::trained;

/// Variables that decide about colours.
const DECIDING: [&str; 5] = ["TERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"];

/// Both ends of a terminal of 120 columns.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).unwrap();
    (File::from(ours), theirs)
}

/// Everything that `dg-run` shows on a terminal that is both of its outputs.
pub(super) fn shown(dir: &Path, arguments: &str, variables: &[(&str, &str)]) -> String {
    let (mut ours, theirs) = terminal();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    for name in DECIDING {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    drop(command); // and with it the other end
    let mut text = Vec::new();
    // The end of a terminal that nobody has open any more is an error.
    let _ = ours.read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap()
}

#[test]
fn one_rule_decides_about_colours_and_bars() {
    let tiny = trained();
    let train = "train --model model --data data/train --max-seq-len 160 --max-steps 2";
    let cases: [(&[(&str, &str)], bool); 6] = [
        (&[("TERM", "xterm-256color")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "xterm"), ("CLICOLOR", "0")], false),
        (&[("TERM", "dumb")], false),
        (&[], false),
    ];
    for (number, (variables, styled)) in cases.into_iter().enumerate() {
        let escapes = |arguments: &str| shown(&tiny.path(""), arguments, variables).contains('\x1b');
        assert_eq!(escapes("score --model model --adapter run source.py"), styled, "{variables:?}");
        assert_eq!(escapes("score --help"), styled, "{variables:?}");
        let run = shown(&tiny.path(""), &format!("{train} --output-dir run-{number}"), variables);
        assert_eq!(run.contains('\x1b'), styled, "{variables:?}: {run}");
        // Where there is no bar there are lines.
        assert_eq!(run.contains("step 2/2 |"), !styled, "{variables:?}: {run}");
    }
}

/// Standard error of a `dg-run` whose output nobody reads.
fn unread(tiny: &Tiny, arguments: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace()).current_dir(tiny.path("")).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !stderr.contains("panicked"), "{arguments}: {stderr}");
    stderr
}

#[test]
fn nothing_is_made_that_nobody_reads() {
    let tiny = trained();
    let generate = "generate --model model --ignore-eos --max-new-tokens 1000";
    for more in ["", "--json", "--num-samples 2 --temperature 1"] {
        let stderr = unread(&tiny, &format!("{generate} {more} ab"));
        // The number of tokens is told at the end of a generation.
        assert!(!stderr.contains("tokens/s"), "{more}: {stderr}");
    }
    for more in ["", "--sarif"] {
        let stderr = unread(&tiny, &format!("score --model model --adapter run {more} source.py source.py"));
        assert!(!stderr.contains("mean score"), "{more}: {stderr}");
    }
    // With --json, only files that cannot be scored are told of on standard error.
    let stderr = unread(&tiny, "score --model model --adapter run --json source.py source.py nowhere.py");
    assert!(!stderr.contains("nowhere.py"), "{stderr}");
    let probe = "probe --model model --data data/train --max-seq-len 160 --folds 3";
    let stderr = unread(&tiny, probe);
    assert!(!stderr.contains("fitting"), "{stderr}");
}

#[test]
fn a_page_is_written_whoever_reads() {
    let tiny = trained();
    for more in ["--json", "--sarif"] {
        let stderr =
            unread(&tiny, &format!("score --model model --adapter run {more} --html page.html source.py"));
        assert!(stderr.contains("written: page.html"), "{stderr}");
        std::fs::remove_file(tiny.path("page.html")).unwrap();
    }
}
