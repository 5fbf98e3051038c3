//! What reaches the disk before what, so that a power failure leaves whole checkpoints: what kill -9 cannot
//! show.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Running;
use super::required::not_tested;
use super::tiny::{Tiny, folder};
use super::{TRAIN, names};

/// Makes the library that writes down flushes and renames; `None` without a C compiler.
fn recorder(tiny: &Tiny) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runs/syncs.c");
    let library = tiny.path("syncs.so");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

/// Flushes and renames, in order.
struct Log(Vec<(String, PathBuf)>);

impl Log {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let event = |line: &str| line.split_once(' ').map(|(what, path)| (what.to_owned(), path.into()));
        Log(text.lines().map(|line| event(line).unwrap()).collect())
    }

    /// Where `what` happens to `path` for the first time after `from`.
    #[track_caller]
    fn next(&self, from: usize, what: &str, path: &Path) -> usize {
        let found = self.0[from..].iter().position(|(w, p)| w == what && p.ends_with(path));
        from + found.unwrap_or_else(|| panic!("no {what} of {} in {:#?}", path.display(), &self.0[from..]))
    }

    /// Where `what` happens to `path`, after `from` and before `to`.
    #[track_caller]
    fn between(&self, from: usize, to: usize, what: &str, path: &Path) -> usize {
        let at = self.next(from, what, path);
        assert!(at < to, "{what} of {} is too late: {:#?}", path.display(), &self.0[from..=at]);
        at
    }
}

#[test]
fn everything_is_on_the_disk_before_the_name_is_and_the_name_before_the_previous_one_goes() {
    let tiny = Tiny::new("llama");
    let Some(library) = recorder(&tiny) else {
        not_tested("there is no C compiler `cc` to watch flushes with");
        return;
    };
    let arguments =
        "--data data/train --output-dir new/run --max-steps 2 --save-steps 1 --save-total-limit 1";
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(TRAIN.split_whitespace().chain(arguments.split_whitespace()));
    command.env("LD_PRELOAD", library).env("DG_SYNCS", tiny.path("log"));
    Running::spawn(&tiny, command).succeeds();
    let log = Log::read(&tiny.path("log"));
    let (run, last) = (tiny.path("new/run"), tiny.path("new/run/checkpoint-2"));
    let flushed = log.next(0, "flush", &tiny.path(""));
    let flushed = log.next(flushed, "flush", &tiny.path("new"));
    for (checkpoint, replaced) in [("checkpoint-1", None), ("checkpoint-2", Some("checkpoint-1"))] {
        let named = log.next(flushed, "to", &Path::new("new/run").join(checkpoint));
        let temporary = log.0[named - 1].1.clone();
        let written = folder(&last).iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert!(written.contains(&"manifest.json".to_owned()) && written.len() == 7);
        let begun = log.next(flushed, "flush", &temporary.join(&written[0]));
        let files = written.iter().map(|name| log.between(flushed, named, "flush", &temporary.join(name)));
        let all = files.max().unwrap().max(begun);
        log.between(all, named, "flush", &temporary);
        log.between(flushed, named, "flush", &run.join("metrics.jsonl"));
        let removed =
            replaced.map_or(log.0.len(), |name| log.next(named, "from", &Path::new("new/run").join(name)));
        log.between(named, removed, "flush", &run);
    }
    let best = log.next(0, "to", Path::new("new/run/adapter"));
    log.between(best, log.0.len(), "flush", &run);
    assert_eq!(names(&run).iter().filter(|name| name.starts_with("checkpoint-")).count(), 1);
}
