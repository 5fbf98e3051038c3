//! Training runs as processes that are stopped, killed, or run out of disk: nothing that was saved is ever
//! lost.

#![cfg(target_os = "linux")]

#[path = "common/places.rs"]
mod places;
#[path = "common/required.rs"]
mod required;
#[path = "common/tiny.rs"]
mod tiny;

#[path = "runs/disk.rs"]
mod disk;
#[path = "runs/kill.rs"]
mod kill;
#[path = "runs/memory.rs"]
mod memory;
#[path = "runs/order.rs"]
mod order;
#[path = "runs/process.rs"]
mod process;
#[path = "runs/signals.rs"]
mod signals;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deepguard::manifest::{self, Others};
use process::Running;
use rustix::process::Signal;
use tiny::{Tiny, folder};

/// Options that every run here has in common.
const TRAIN: &str = "train --device cpu --model model --max-seq-len 160 --lora-r 4 --lr 1e-3 --batch-size 1";

/// Names in a folder, sorted; none if there is no folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(".deepguard-")
}

/// The checkpoints of a run, oldest first, each of which must be whole.
fn whole_checkpoints(run: &Path) -> Vec<(usize, PathBuf)> {
    let step = |name: &String| name.strip_prefix("checkpoint-").map(|step| step.parse().unwrap());
    let mut found: Vec<(usize, PathBuf)> =
        names(run).iter().filter_map(|name| Some((step(name)?, run.join(name)))).collect();
    found.sort();
    found.iter().for_each(|(_, dir)| manifest::verify(dir, Others::Refused).unwrap());
    found
}

fn newest_step(run: &Path) -> usize {
    whole_checkpoints(run).last().map_or(0, |(step, _)| *step)
}

/// Whether a folder of this run is being written or removed.
fn is_saving(run: &Path) -> bool {
    names(run).iter().any(|name| is_temporary(name) && run.join(name).is_dir())
}

/// Waits until a checkpoint or an adapter is being saved by a run that goes on.
fn wait_for_a_save(running: &mut Running, run: &Path) {
    while running.is_running() && !is_saving(run) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[track_caller]
fn assert_same_folders(found: &Path, expected: &Path) {
    let [found, expected] = [found, expected].map(folder);
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name}");
    }
}

#[test]
fn a_second_run_in_a_folder_ends_at_once() {
    let tiny = Tiny::new("llama");
    let arguments = format!("{TRAIN} --data data --output-dir run --num-epochs 100000");
    let mut first = Running::start(&tiny, &arguments);
    first.wait_for("step 1/");
    let mut fastest = Duration::MAX;
    for resume in ["", " --resume-from-checkpoint", ""] {
        let started = Instant::now();
        let mut second = Running::start(&tiny, &format!("{arguments}{resume}"));
        assert_eq!(second.exit_code(), 2);
        fastest = fastest.min(started.elapsed());
        let holder = format!("process {} on ", first.id());
        for named in ["run", &holder, "--output-dir"] {
            assert!(second.stderr().contains(named), "{named:?} not in: {}", second.stderr());
        }
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    first.signal(Signal::KILL);
    assert_eq!(first.exit_code(), 137);
    // A lock does not outlive its process.
    let mut third = Running::start(&tiny, &format!("{arguments} --resume-from-checkpoint"));
    third.wait_for("trainable values");
}
