//! Commands whose work ranks lease, as processes: the bytes are those of one process, whatever their number
//! and whoever is killed.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use deepguard::adapter;
use deepguard::model::config::Config;

use super::check::{assert_ends, children};
use super::mpi::{Kind, Mpi, finished};
use super::tiny::{self, Tiny};

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/eval");

/// Until a command has to be done.
const DONE: Duration = Duration::from_secs(60);

/// A tiny model with an adapter that has a guard, and some files.
fn tiny_with_adapter() -> Tiny {
    let tiny = Tiny::new("llama");
    let config = Config::from_dir(&tiny.model()).unwrap();
    std::fs::create_dir(tiny.path("run")).unwrap();
    adapter::save(&tiny.path("run"), &tiny::attached(&config, 3), &config, "tiny").unwrap();
    for (name, text) in
        [("a.py", "x = 1\n"), ("b.py", "def f(a):\n    return a\n"), ("empty.py", ""), ("c.py", "y")]
    {
        std::fs::write(tiny.path(name), text).unwrap();
    }
    tiny
}

fn dg_run(tiny: &Tiny, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace()).current_dir(tiny.path("")).stdin(Stdio::null());
    command.env("RAYON_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1");
    command
}

fn run(tiny: &Tiny, arguments: &str) -> Output {
    finished(dg_run(tiny, arguments), DONE)
}

/// Units of two scenarios with sixteen samples each.
fn sample(more: &str) -> String {
    let sample =
        format!("eval sample --model model --suite {SUITE} --only python/cwe-089 -n 16 --temperature 1");
    format!("{sample} {more}")
}

fn samples(tiny: &Tiny, folder: &str) -> Vec<u8> {
    std::fs::read(tiny.path(folder).join("samples.jsonl")).unwrap_or_default()
}

/// Standard output and exit code are those of one process for any number of ranks.
#[track_caller]
fn assert_same_for_ranks(tiny: &Tiny, arguments: &str, code: i32) {
    let alone = run(tiny, &format!("{arguments} --dist none"));
    assert_ends(&alone, code, &[]);
    assert!(!alone.stdout.is_empty());
    for ranks in [1, 2, 5] {
        let among = run(tiny, &format!("{arguments} --nproc {ranks}"));
        assert_ends(&among, code, &[]);
        assert!(among.stdout == alone.stdout, "{arguments}, {ranks} ranks");
    }
}

#[test]
fn generate_prints_the_same_for_any_number_of_ranks() {
    let tiny = tiny_with_adapter();
    // Three units of at most 128 samples.
    let many = "generate --model model --adapter run --max-new-tokens 4 -n 300 --temperature 1 --json abc";
    assert_same_for_ranks(&tiny, many, 0);
    assert_same_for_ranks(&tiny, "generate --model model --max-new-tokens 5 abc", 0);
    // Rank 0 alone has the standard input.
    let mut command = dg_run(&tiny, "generate --model model --max-new-tokens 5 --nproc 2 -");
    std::fs::write(tiny.path("prompt"), "abc").unwrap();
    command.stdin(std::fs::File::open(tiny.path("prompt")).unwrap());
    let expected = run(&tiny, "generate --model model --max-new-tokens 5 abc").stdout;
    assert!(finished(command, DONE).stdout == expected);
}

#[test]
fn score_prints_the_same_for_any_number_of_ranks() {
    let tiny = tiny_with_adapter();
    let files = "a.py missing.py b.py empty.py c.py b.py";
    assert_same_for_ranks(&tiny, &format!("score --model model --adapter run --json {files}"), 3);
    assert_same_for_ranks(&tiny, "score --model model --adapter run --sarif a.py b.py", 0);
}

/// MPI tells where rank 0 is, and does nothing else.
#[test]
fn ranks_of_mpiexec_meet_through_it() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let tiny = tiny_with_adapter();
    let arguments = "score --model model --adapter run --json a.py b.py c.py";
    let mut command = mpich.exec("libmpi.so.12", 3);
    command.arg(env!("CARGO_BIN_EXE_dg-run")).args(arguments.split(' '));
    command.current_dir(tiny.path("")).env("RAYON_NUM_THREADS", "1");
    let among = finished(command, DONE);
    assert_ends(&among, 0, &["3 ranks, of which this is the first"]);
    assert!(among.stdout == run(&tiny, &format!("{arguments} --dist none")).stdout);
}

#[test]
fn probe_prints_the_same_for_any_number_of_ranks() {
    let tiny = tiny_with_adapter();
    tiny::write_pairs(&tiny.path("many/train/pairs.jsonl"), 0..20);
    assert_same_for_ranks(&tiny, "probe --model model --adapter run --data many --folds 3 --json", 0);
}

#[test]
fn eval_samples_the_same_for_any_number_of_ranks() {
    let tiny = tiny_with_adapter();
    let of = |folder: &str, more: &str| {
        sample(&format!("--adapter run --limit 5 --max-new-tokens 5 --output-dir {folder} {more}"))
    };
    assert_ends(&run(&tiny, &of("alone", "--dist none")), 0, &[]);
    let whole = samples(&tiny, "alone");
    for ranks in [1, 2, 5] {
        let folder = format!("of-{ranks}");
        assert_ends(&run(&tiny, &of(&folder, &format!("--nproc {ranks}"))), 0, &[]);
        for name in ["samples.jsonl", "sampling.json"] {
            let [one, other] =
                ["alone", &folder].map(|folder| std::fs::read(tiny.path(folder).join(name)).unwrap());
            assert!(one == other, "{name} of {ranks} ranks");
        }
    }
    // As a run leaves it that had to give some scenarios up, and was killed in the last.
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    lines.drain(16..32);
    lines.pop();
    std::fs::write(tiny.path("of-2/samples.jsonl"), lines.concat()).unwrap();
    assert_ends(&run(&tiny, &of("of-2", "--resume --nproc 3")), 0, &["3 ranks, of which this is the first"]);
    assert!(samples(&tiny, "of-2") == whole, "what was left out is put where it belongs");
}

/// An evaluation of three ranks that has written something.
fn begun(tiny: &Tiny, arguments: &str) -> Child {
    let mut command = dg_run(tiny, &format!("{arguments} --nproc 3"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + DONE;
    while samples(tiny, "broken").is_empty() {
        assert!(Instant::now() < until, "nothing was sampled");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn signal(pid: i32, number: libc::c_int) {
    // SAFETY: a signal to a process of this test, whose parent has not waited for it; no memory is passed.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

/// Enough for the ranks to be in the middle of it when they have written something.
fn long(folder: &str) -> String {
    sample(&format!("--only python/cwe-0 --max-new-tokens 30 --output-dir {folder}"))
}

#[cfg(target_os = "linux")]
#[test]
fn an_evaluation_goes_on_without_a_rank_that_is_killed() {
    let tiny = Tiny::new("llama");
    assert_ends(&run(&tiny, &long("whole")), 0, &[]);
    for (number, text) in [(libc::SIGKILL, ") was lost in "), (libc::SIGTERM, ") ended with exit code 75: ")]
    {
        let _ = std::fs::remove_dir_all(tiny.path("broken"));
        let running = begun(&tiny, &long("broken"));
        signal(children(&running)[1], number);
        let done = running.wait_with_output().unwrap();
        assert_ends(&done, 0, &["warning: rank 1 (", text]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.matches("; its unit goes to another").count() <= 1, "{said}");
        assert!(samples(&tiny, "broken") == samples(&tiny, "whole"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_rank_0_an_evaluation_ends() {
    let tiny = Tiny::new("llama");
    let running = begun(&tiny, &long("broken"));
    signal(children(&running)[0], libc::SIGKILL);
    // What --nproc makes of 137, 6 and 6.
    let done = running.wait_with_output().unwrap();
    assert_ends(&done, 137, &["dg-run: rank 0 (", ") was lost in "]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_evaluation_that_is_stopped_goes_on_with_another_number_of_ranks() {
    let tiny = Tiny::new("llama");
    assert_ends(&run(&tiny, &long("whole")), 0, &[]);
    let whole = samples(&tiny, "whole");
    // All of them, as from a terminal; then rank 0 alone, as from its machine.
    for of_all in [true, false] {
        let _ = std::fs::remove_dir_all(tiny.path("broken"));
        let running = begun(&tiny, &long("broken"));
        let pid = if of_all { running.id() as i32 } else { children(&running)[0] };
        signal(pid, libc::SIGTERM);
        assert_ends(&running.wait_with_output().unwrap(), 75, &["--resume goes on from there"]);
        assert!(whole.starts_with(&samples(&tiny, "broken")) && samples(&tiny, "broken") != whole);
        let resumed = long("broken --resume");
        let ranks = if of_all { "--nproc 2" } else { "--dist none" };
        assert_ends(&run(&tiny, &format!("{resumed} {ranks}")), 0, &[]);
        assert!(samples(&tiny, "broken") == whole);
    }
}

#[test]
fn a_rank_with_another_model_ends_all_before_anything_is_computed() {
    let tiny = tiny_with_adapter();
    tiny::copy_folder(&tiny.model(), &tiny.path("other"));
    tiny::edit_tensors(&tiny.path("other/model.safetensors"), |tensors| tensors[0].2[0] += 1.0);
    let rank = |rank: usize, model: &str| {
        let meeting = format!("--world-size 2 --rank {rank} --rendezvous file:{}", tiny.path("").display());
        let mut command = dg_run(&tiny, &format!("score --model {model} --adapter run {meeting} a.py b.py"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks = [rank(0, "model"), rank(1, "other")];
    for rank in ranks {
        let output = rank.wait_with_output().unwrap();
        assert_ends(&output, 2, &["the ranks differ in weights of the model: "]);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_a_command_cannot_do_has_the_exit_code_that_it_has_alone() {
    let tiny = tiny_with_adapter();
    for (arguments, code, part) in [
        ("score --model nowhere --adapter run a.py", 4, "nowhere"),
        ("score --model model --adapter run missing.py", 3, "1 of 1 files could not be scored"),
        ("generate --model model abc -n 2", 2, "greedy samples would all be the same"),
        ("generate --model model --max-new-tokens 9000 abc", 3, "exceed the context"),
        ("probe --model model --data nowhere", 3, "nowhere"),
        ("generate --model model --dist nccl abc", 2, "--dist nccl: the ranks of this command need nothing"),
    ] {
        assert_ends(&run(&tiny, &format!("{arguments} --nproc 2")), code, &[part]);
    }
    let broken: PathBuf = tiny.path("model/tokenizer.json");
    std::fs::write(broken, "{}").unwrap();
    assert_ends(&run(&tiny, "score --model model --adapter run a.py --nproc 2"), 4, &["tokenizer.json"]);
}
