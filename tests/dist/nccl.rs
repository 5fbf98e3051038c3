//! Collectives by NCCL, for which a library of the tests stands in, between processes on emulated GPUs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::adapter::FINAL_ADAPTER;
use deepguard::dist::control::{Member, Timing};
use deepguard::dist::launch::{Flags, Launch, Variables};
use deepguard::dist::{Engine, World};
use deepguard::{Error, Result};

use super::check::{SOON, assert_ends};
use super::mpi::{Kind, Mpi, check, finished, member};
use super::train::{Ranks, TRAIN, alone, assert_same_folders, tiny_with_pairs};

/// A library of those that are built beside this program.
fn library(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().with_file_name(name)
}

/// A program that has emulated GPUs and the stand-in, and nothing else in its environment.
fn on_gpus(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).envs(gpus());
    command
}

fn gpus() -> [(&'static str, PathBuf); 4] {
    [
        ("DG_EMULATOR", library("libcuda_emulator.so")),
        ("DG_EMULATOR_DEVICES", "3".into()),
        ("DG_NCCL", library("libnccl_stand_in.so")),
        ("RAYON_NUM_THREADS", "1".into()),
    ]
}

pub fn dg_run(arguments: &str) -> Command {
    let mut command = on_gpus(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace());
    command
}

/// Two ranks that are started one by one, so that each has its own exit code.
pub fn two(arguments: &str, environment: &[(&str, &str)]) -> [Output; 2] {
    let folder = tempfile::tempdir().unwrap();
    let rank = |rank: usize| {
        let place = format!("--world-size 2 --rank {rank} --rendezvous file:{}", folder.path().display());
        let mut command = dg_run(&format!("{arguments} {place}"));
        command.env("LOCAL_RANK", rank.to_string()).envs(environment.iter().copied());
        command
    };
    let ranks = [0, 1].map(|number| {
        let command = rank(number);
        thread::spawn(move || finished(command, Duration::from_secs(60)))
    });
    ranks.map(|rank| rank.join().unwrap())
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Gradients leave the GPUs, are added up, and go back to them: by NCCL and by MPI.
#[test]
fn gpus_train_what_one_of_them_trains_alone() {
    let tiny = tiny_with_pairs();
    let more = "--device cuda --max-steps 1 --data many/train --kl-weight 0";
    alone(&tiny, "alone", more);
    let assert_same = |run: &str| {
        let [one, other] = ["alone", run].map(|run| tiny.path(run));
        assert_same_folders(&one, &other, &[FINAL_ADAPTER, "checkpoint-1"]);
        assert_eq!(metrics(&one), metrics(&other), "{run}");
    };
    for (ranks, seed) in [(2, "1"), (3, "2")] {
        let run = format!("nccl-{ranks}");
        let mut command = dg_run(&format!("train --nproc {ranks} {TRAIN} --output-dir {run} {more}"));
        command.current_dir(tiny.path("")).env("DG_NCCL_SEED", seed);
        let output = finished(command, Duration::from_secs(60));
        assert_ends(&output, 0, &[&format!("{ranks} ranks, of which this is the first")]);
        assert_same(&run);
    }
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    Ranks::start(&mpich, &tiny, 2, "mpi", more).succeed(2);
    assert_same("mpi");
}

/// The metrics of a run but its times.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let without_times = |mut line: serde_json::Value| {
        let values = line.as_object_mut().unwrap();
        values.retain(|name, _| {
            !["seconds", "tokens_per_second", "time", "wall"].iter().any(|t| name.contains(t))
        });
        line
    };
    assert!(!lines.is_empty());
    lines.into_iter().map(without_times).collect()
}

/// A fault of rank 1, and what both say: the exit codes, and a part of the message of each.
struct Fault {
    fault: &'static str,
    more: &'static str,
    codes: [i32; 2],
    said: [&'static str; 2],
}

/// A result of NCCL at the third collective of rank 1.
fn result(fault: &'static str, text: &'static str) -> Fault {
    Fault { fault, more: "", codes: [6, 6], said: [text, text] }
}

#[test]
fn whatever_fails_in_nccl_ends_all_ranks_and_is_named() {
    let cases = [
        result("call=3,remote", "ncclAllReduce failed with code 6, ncclRemoteError"),
        result("call=3,system", "ncclAllReduce failed with code 2, ncclSystemError"),
        result("call=3,cuda", "ncclAllReduce failed with code 1, ncclUnhandledCudaError"),
        result("call=3,timeout", "ncclAllReduce failed with code 8, ncclTimeout"),
        result(
            "call=3,unknown",
            "ncclAllReduce failed with code 17, a result that this program does not know",
        ),
        result("init-fail", "ncclCommInitRankConfig failed with code 2, ncclSystemError"),
        Fault {
            fault: "init-hang",
            more: "--dist-timeout 4",
            codes: [6, 6],
            said: ["ncclCommInitRankConfig is not done in time, after", "NCCL_SOCKET_IFNAME chooses"],
        },
        Fault { fault: "call=3,hang", more: "--stall-timeout 3", codes: [6, 6], said: ["in a sum"; 2] },
        // By SIGABRT.
        Fault { fault: "call=3,die", more: "", codes: [6, -1], said: ["rank 1 (", ""] },
        result("call=3,flip-bit", "value 0 of 1 of a sum over 2 ranks is"),
        Fault {
            fault: "call=3,abort-hang",
            more: "",
            codes: [6, 6],
            said: ["ncclRemoteError", "NCCL does not give it up, so this process ends"],
        },
    ];
    thread::scope(|scope| {
        for case in &cases {
            scope.spawn(move || assert_fault(case));
        }
    });
}

fn assert_fault(case: &Fault) {
    let Fault { fault, more, codes, said: parts } = case;
    let value = format!("rank=1,{fault}");
    let began = Instant::now();
    let ranks = two(&format!("dist check --dist nccl {more}"), &[("DG_NCCL_FAULT", &value)]);
    for ((rank, code), part) in ranks.iter().zip(codes).zip(parts) {
        let text = said(rank);
        assert_eq!(rank.status.code().unwrap_or(-1), *code, "{fault}: {text}");
        assert!(text.contains(part), "{fault}: no {part:?} in {text}");
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{fault}: {:?}", began.elapsed());
}

/// What is shown of sums that never leave the GPUs.
const ON_GPUS: &str = "sum of 64 MiB in memory of GPUs: ";

/// What a machine with a single GPU can see of NCCL.
#[test]
fn a_rank_on_its_own_can_look_at_nccl() {
    let output = finished(dg_run("dist check --dist nccl"), Duration::from_secs(60));
    assert_ends(&output, 0, &["1 rank, started by", "GPU 0", "collectives: NCCL 2.27.3", ON_GPUS]);
    let mut remote = dg_run("dist check --dist nccl");
    remote.env("DG_NCCL_FAULT", "rank=0,call=2,remote");
    assert_ends(&finished(remote, SOON), 6, &["ncclAllReduce failed with code 6, ncclRemoteError"]);
}

/// The other one has ended meanwhile: nobody waits for anybody there.
#[test]
fn a_rank_that_cannot_end_is_told() {
    let [root, other] = two("dist check --dist nccl", &[("DG_NCCL_FAULT", "rank=1,finalize-hang")]);
    let parts =
        ["2 ranks, started by --world-size", "GPU 1", "collectives: NCCL 2.27.3", "sum of 64 MiB: ", ON_GPUS];
    assert_ends(&root, 0, &parts);
    assert_ends(&other, 6, &["ncclCommFinalize is not done in time, after"]);
}

#[test]
fn a_library_that_is_not_there_is_too_old_or_another_one_is_told() {
    let stand_in = library("libnccl_stand_in.so");
    let stand_in = stand_in.to_str().unwrap();
    for (library, release, parts) in [
        (
            "/there/is/none.so",
            "22703",
            ["no NCCL library can be loaded; install one, or set DG_NCCL", "none.so: "],
        ),
        ("libc.so.6", "22703", ["tried libc.so.6: ", "ncclGetVersion"]),
        (stand_in, "21403", ["expected NCCL 2.18.0 or later, found 2.14.3", "start the ranks with mpiexec"]),
    ] {
        let mut command = dg_run("dist check --nproc 2 --dist nccl");
        command.envs([("DG_NCCL", library), ("DG_NCCL_RELEASE", release)]);
        assert_ends(&finished(command, SOON), 6, &parts);
        let mut info = dg_run("info");
        info.envs([("DG_NCCL", library), ("DG_NCCL_RELEASE", release)]);
        assert_ends(&finished(info, SOON), 0, &["NCCL: none: ", parts[0].split(';').next().unwrap()]);
    }
    let place = Path::new(stand_in).canonicalize().unwrap();
    let line = format!("NCCL: 2.27.3, {}\n", place.display());
    assert_ends(&finished(dg_run("info"), SOON), 0, &[&line]);
}

#[test]
fn ranks_that_do_not_go_together_are_told() {
    // Releases, of which each rank has another one.
    let folder = tempfile::tempdir().unwrap();
    let rank = |rank: usize, release: &str| {
        let place = format!("--world-size 2 --rank {rank} --rendezvous file:{}", folder.path().display());
        let mut command = dg_run(&format!("dist check --dist nccl {place}"));
        command.env("LOCAL_RANK", rank.to_string()).env("DG_NCCL_RELEASE", release);
        command
    };
    let other = rank(1, "22802").stderr(Stdio::piped()).spawn().unwrap();
    let text = "the ranks differ in collectives: NCCL 2.27.3 on rank 0 (";
    assert_ends(&finished(rank(0, "22703"), SOON), 2, &[text, "NCCL 2.28.2 on rank 1 ("]);
    assert_ends(&other.wait_with_output().unwrap(), 2, &[text]);
    // More ranks than GPUs, and none.
    let few = finished(dg_run("dist check --dist nccl --nproc 4"), SOON);
    assert_ends(&few, 2, &["rank 3: expected a GPU of its own", "on rank 3 (", "no device"]);
    let tiny = tiny_with_pairs();
    let train = |more: &str| {
        let mut command = dg_run(&format!("train {TRAIN} --data many --output-dir run {more}"));
        command.current_dir(tiny.path(""));
        finished(command, SOON)
    };
    let text = "rank 3: expected a GPU of its own, found 3 for ranks up to number 3";
    assert_ends(&train("--nproc 4 --device cuda"), 2, &[text, "on rank 3 ("]);
    let text = "--dist nccl: expected ranks that compute on GPUs, found one that does not";
    assert_ends(&train("--nproc 2 --device cpu --dist nccl"), 2, &[text]);
    assert!(!tiny.path("run").exists());
}

#[test]
fn ranks_on_the_same_gpu_are_told() {
    for rank in two("dist check --dist nccl", &[("LOCAL_RANK", "1")]) {
        let parts =
            ["rank 0 (", "rank 1 (", "have the same device, GPU-656d756c-", "at most one rank for each GPU"];
        assert_ends(&rank, 5, &parts);
    }
    // Nor do they share it where they need no collectives.
    let tiny = tiny_with_pairs();
    let generate = format!("generate --model {} --device cuda abc", tiny.path("model").display());
    for rank in two(&generate, &[("LOCAL_RANK", "1")]) {
        assert_ends(&rank, 5, &["have the same device, GPU-656d756c-"]);
    }
}

/// MPI says where rank 0 is, and computes nothing.
#[test]
fn ranks_of_mpiexec_can_compute_by_nccl() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    let mut command = mpich.exec("libmpi.so.12", 2);
    command.arg(env!("CARGO_BIN_EXE_dg-run")).args("dist check --dist nccl".split(' ')).envs(gpus());
    command.env("DG_NCCL_FAULT", "rank=1,call=2,system");
    let output = finished(command, Duration::from_secs(60));
    assert!(!output.status.success());
    assert!(said(&output).contains("ncclAllReduce failed with code 2, ncclSystemError"), "{}", said(&output));
}

/// What a rank of the test below does: this function in a process of its own.
#[test]
#[ignore = "a process of the test below"]
fn a_rank() {
    let launch = Launch::of(&Flags::default(), &Variables::of_process()).unwrap();
    if let Err(error) = collectives(launch) {
        panic!("{error}");
    }
}

fn collectives(launch: Launch) -> Result<()> {
    let rank = launch.rank;
    let member = |fabric: &str| Member {
        device: format!("GPU {rank}"),
        facts: vec![("collectives".to_owned(), fabric.to_owned())],
        ..member(rank)
    };
    let end = |error: Error| panic!("{error}");
    let timing = Timing { start: Duration::from_secs(20), ..Timing::default() };
    let engine = Engine::Auto { gpu: Some(rank) };
    let mut world = World::join(launch, engine, timing, member, &|_| (), Box::new(end))?;
    world.collective("check", check)?;
    // Of lengths on both sides of what goes at a time, and of none.
    let own = vec![rank as u8; rank * (12 << 20)];
    let all = world.all_gather("check", &own)?;
    assert!(all.iter().enumerate().all(|(rank, bytes)| *bytes == vec![rank as u8; rank * (12 << 20)]));
    assert_eq!(world.all_gather("check", &[])?, vec![Vec::<u8>::new(); 3]);
    println!("right, by {}", world.fabric().unwrap().name());
    world.finish()
}

#[test]
fn sums_and_bytes_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let ranks = [0, 1, 2].map(|rank| {
        let mut command = on_gpus(std::env::current_exe().unwrap());
        command
            .args(["nccl::a_rank", "--exact", "--ignored", "--nocapture"])
            .env("DG_NCCL_FAULT", "rank=1,call=2,slow=300")
            .env("DG_RENDEZVOUS", format!("file:{}", folder.path().display()))
            .envs([("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 3)].map(|(n, v)| (n, v.to_string())));
        thread::spawn(move || finished(command, Duration::from_secs(60)))
    });
    for rank in ranks {
        assert_ends(&rank.join().unwrap(), 0, &["right, by NCCL 2.27.3"]);
    }
}
