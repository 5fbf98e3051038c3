//! `dg-run train` as processes that `mpiexec` starts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deepguard::adapter::FINAL_ADAPTER;

use super::mpi::{Kind, Mpi, finished};
use super::tiny::{self, Tiny, folder};

/// Until ranks have ended of whom one is gone, and until a run has.
const NOTICED: Duration = Duration::from_secs(10);
const DONE: Duration = Duration::from_secs(60);

/// Options that every run here has in common: four steps an epoch, of four micro-batches.
pub const TRAIN: &str = "--model model --max-seq-len 160 --lora-r 4 --lr 1e-3 --batch-size 1 \
                     --gradient-accumulation-steps 4 --save-steps 2";

/// `mpiexec` kills all ranks as soon as one of them ends badly, before they notice it themselves. A shell
/// stands for the rank then: timeout makes a process group of its own.
const SURVIVE: &str = "timeout -s KILL 60 sh -c \"$TELL\" sh \"$@\"";

/// Each rank leaves its process, its last words and its exit code in files.
const TELL: &str = "sh -c 'echo $$ > pid-$PMI_RANK; exec \"$@\"' sh \"$@\" 2> said-$PMI_RANK
                    echo $? > code-$PMI_RANK";

/// A run of some ranks in a temporary folder.
pub struct Ranks {
    root: PathBuf,
    mpiexec: Child,
}

pub fn tiny_with_pairs() -> Tiny {
    let tiny = Tiny::new("llama");
    tiny::write_pairs(&tiny.path("many/train/pairs.jsonl"), 0..16);
    tiny::write_pairs(&tiny.path("many/val/pairs.jsonl"), 16..20);
    tiny
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Ranks {
    pub fn start(mpi: &Mpi, tiny: &Tiny, ranks: usize, run: &str, more: &str) -> Self {
        Self::start_with(mpi, tiny, ranks, &format!("--output-dir {run} {more}"), &gpus())
    }

    fn start_with(mpi: &Mpi, tiny: &Tiny, ranks: usize, more: &str, gpu: &[(&str, PathBuf)]) -> Self {
        let root = tiny.path("");
        for rank in 0..ranks {
            for name in ["pid", "said", "code"] {
                let _ = std::fs::remove_file(root.join(format!("{name}-{rank}")));
            }
        }
        let mut command = mpi.exec("libmpi.so.12", ranks);
        command.args(["sh", "-c", SURVIVE, "sh"]).env("TELL", TELL).arg(dg_run()).arg("train");
        command.args(TRAIN.split_whitespace()).args(more.split_whitespace());
        command.current_dir(&root).env("RAYON_NUM_THREADS", "1").envs(gpu.iter().cloned());
        let mpiexec = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Ranks { root, mpiexec }
    }

    /// Waits until rank 0 has said something.
    fn wait_for(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.said(0).contains(text) {
            assert!(Instant::now() < until, "{text:?} not in {}", self.said(0));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn said(&self, rank: usize) -> String {
        read(self.root.join(format!("said-{rank}")))
    }

    fn signal(&self, rank: usize, signal: libc::c_int) {
        let pid = read(self.root.join(format!("pid-{rank}"))).trim().parse().unwrap();
        // SAFETY: a signal to a process that this test has started; no memory is passed.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Runs to a good end.
    #[track_caller]
    pub fn succeed(&self, ranks: usize) {
        let until = Instant::now() + DONE;
        let codes: Vec<i32> = (0..ranks).map(|rank| self.exit_code(rank, until)).collect();
        assert_eq!(codes, vec![0; ranks], "{}{}", self.said(0), self.said(1));
    }

    fn exit_code(&self, rank: usize, until: Instant) -> i32 {
        let path = self.root.join(format!("code-{rank}"));
        while !read(path.clone()).ends_with('\n') {
            assert!(Instant::now() < until, "rank {rank} goes on: {}", self.said(rank));
            std::thread::sleep(Duration::from_millis(5));
        }
        read(path).trim().parse().unwrap()
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        let _ = self.mpiexec.kill();
        let _ = self.mpiexec.wait();
    }
}

fn dg_run() -> &'static str {
    env!("CARGO_BIN_EXE_dg-run")
}

/// A machine's emulated GPUs, of which every rank has its own.
fn gpus() -> [(&'static str, PathBuf); 2] {
    let programs = std::env::current_exe().unwrap();
    [("DG_EMULATOR", programs.with_file_name("libcuda_emulator.so")), ("DG_EMULATOR_DEVICES", "8".into())]
}

/// A process on its own, whatever has started the tests.
pub fn alone(tiny: &Tiny, run: &str, more: &str) {
    let mut command = Command::new(dg_run());
    command.arg("train").args(TRAIN.split_whitespace()).args(["--output-dir", run, "--dist", "none"]);
    command.args(more.split_whitespace()).current_dir(tiny.path("")).envs(gpus());
    let output = finished(command, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
pub fn assert_same_folders(one: &Path, other: &Path, names: &[&str]) {
    for name in names {
        let [one, other] = [one, other].map(|run| folder(&run.join(name)));
        assert!(one == other, "{name} differs");
    }
}

#[test]
fn ranks_of_mpi_train_what_a_process_trains_on_its_own() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many --num-epochs 2";
    alone(&tiny, "alone", more);
    let ranks = Ranks::start(&mpich, &tiny, 2, "two", more);
    ranks.succeed(2);
    assert!(ranks.said(0).contains("2 ranks, of which this is the first"), "{}", ranks.said(0));
    assert_eq!(ranks.said(1), "", "one rank is enough to say it");
    assert_same_folders(&tiny.path("alone"), &tiny.path("two"), &[FINAL_ADAPTER, "checkpoint-8"]);
}

/// Two processes would share its memory, and its time.
#[test]
fn a_rank_without_a_gpu_of_its_own_is_refused() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let tiny = tiny_with_pairs();
    // Nothing says that each sees another one.
    let ranks =
        Ranks::start_with(&mpich, &tiny, 2, "--output-dir run --device cuda --data many", &gpus()[..1]);
    let until = Instant::now() + DONE;
    assert_eq!([0, 1].map(|rank| ranks.exit_code(rank, until)), [6, 5], "{}{}", ranks.said(0), ranks.said(1));
    let text = "rank 1: expected a GPU of its own, found 1 for ranks up to number 1 of its machine";
    for rank in [0, 1] {
        assert!(ranks.said(rank).contains(text), "{}", ranks.said(rank));
    }
}

#[test]
fn a_signal_to_any_rank_ends_all_after_a_checkpoint() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many --num-epochs 8";
    alone(&tiny, "whole", more);
    let resumed = format!("{more} --resume-from-checkpoint");
    for (ranks, signalled) in [(2, 1), (3, 2), (2, 0)] {
        let running = Ranks::start(&mpich, &tiny, ranks, "parts", &resumed);
        running.wait_for("\nstep ");
        running.signal(signalled, libc::SIGTERM);
        let until = Instant::now() + NOTICED;
        for rank in 0..ranks {
            assert_eq!(running.exit_code(rank, until), 75, "{}", running.said(rank));
        }
    }
    alone(&tiny, "parts", &resumed);
    assert_same_folders(&tiny.path("whole"), &tiny.path("parts"), &[FINAL_ADAPTER, "checkpoint-32"]);
}

#[test]
fn a_rank_that_is_killed_ends_the_others_who_name_it_and_the_checkpoint() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let tiny = tiny_with_pairs();
    let running = Ranks::start(&mpich, &tiny, 3, "run", "--device cpu --data many --num-epochs 400");
    running.wait_for("checkpoint: ");
    running.signal(1, libc::SIGKILL);
    let until = Instant::now() + NOTICED;
    for rank in [0, 2] {
        assert_eq!(running.exit_code(rank, until), 6, "{}", running.said(rank));
    }
    let said = running.said(0);
    let last = said.lines().last().unwrap_or_default();
    for named in [
        "dg-run: rank 1 (",
        "was lost at step ",
        "checkpoint-",
        " is intact; start all ranks again with --resume-from-checkpoint",
    ] {
        assert!(last.contains(named), "{last}");
    }
}

/// Whoever comes from trainers that multiply by the number of devices would train with other steps than
/// meant.
#[test]
fn a_size_for_each_device_is_refused_where_there_are_several() {
    let tiny = tiny_with_pairs();
    std::fs::write(tiny.path("run.toml"), "per_device_train_batch_size = 1\n").unwrap();
    let text = "may mean 4 pairs a step in all, or 4 on each of them";
    for (given, name) in [
        ("--per-device-batch-size=1", "--per-device-batch-size"),
        ("--per_device_train_batch_size 1", "--per_device_train_batch_size"),
        ("--config run.toml", "per_device_train_batch_size"),
    ] {
        let run = |ranks: &str| {
            let mut command = Command::new(dg_run());
            command.arg("train").args("--model model --data many --output-dir run --max-steps 1".split(' '));
            command.args("--gradient-accumulation-steps 4 --max-seq-len 160".split(' '));
            command.args(given.split(' ')).args(ranks.split_whitespace()).current_dir(tiny.path(""));
            command.output().unwrap()
        };
        let refused = run("--nproc 2");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{given}: {said}");
        assert!(said.contains(&format!("{name}: ")) && said.contains(text), "{given}: {said}");
        let alone = run("--dry-run");
        assert!(alone.status.success(), "{given}: {}", String::from_utf8_lossy(&alone.stderr));
    }
}

#[test]
fn what_connects_no_ranks_is_refused_before_anything_is_loaded() {
    let tiny = tiny_with_pairs();
    let mut command = Command::new(dg_run());
    command
        .args(["train", "--nproc", "2", "--data", "many", "--output-dir", "run"])
        .args(TRAIN.split_whitespace());
    command.current_dir(tiny.path(""));
    let output = finished(command, Duration::from_secs(30));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("start them with mpiexec -n N"), "{text}");
    assert!(!tiny.path("run").exists());
}
