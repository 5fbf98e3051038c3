//! `dg-run dist check` as real processes: started by flags, by `--nproc`, by `mpiexec`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::mpi::{Kind, Mpi, finished};

/// Until something that has no reason to wait has to be done.
pub const SOON: Duration = Duration::from_secs(20);

/// `dg-run` with nothing of a launcher in its environment.
fn dg_run(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace()).env_clear().stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    out + &err
}

#[track_caller]
pub fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in {text}"));
}

#[test]
fn one_rank_is_connected_with_itself() {
    let parts = ["1 rank, started by nothing", "sum of 64 MiB: ", "processor"];
    assert_ends(&finished(dg_run("dist check"), SOON), 0, &parts);
    let mut alone = dg_run("dist check --dist none");
    alone.env("RANK", "1").env("WORLD_SIZE", "2");
    assert_ends(&finished(alone, SOON), 0, &parts);
}

#[test]
fn ranks_of_nproc_meet() {
    let output = finished(dg_run("dist check --nproc 3"), SOON);
    assert_ends(&output, 0, &["3 ranks, started by RANK and WORLD_SIZE", "collectives: none"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for rank in 0..3 {
        let is_row =
            |line: &&str| line.trim_start().starts_with(&format!("{rank}  ")) && line.contains("processor");
        assert_eq!(table.lines().filter(is_row).count(), 1, "{table}");
    }
}

#[test]
fn mpi_is_measured() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    for ranks in [2, 3] {
        let mut command = mpich.exec("libmpi.so.12", ranks);
        command.arg(env!("CARGO_BIN_EXE_dg-run")).args(["dist", "check", "--seconds", "1"]);
        let output = finished(command, Duration::from_secs(60));
        let started = format!("{ranks} ranks, started by PMI");
        let parts = [
            &*started,
            "64 MiB from it",
            "MPICH Version",
            "sum of 8 bytes: ",
            "sums of 64 MiB in 1 s, the slowest",
        ];
        assert_ends(&output, 0, &parts);
        // Rank 0 alone writes.
        assert_eq!(text(&output).matches("started by PMI").count(), 1);
    }
}

#[test]
fn another_mpi_than_that_of_mpiexec_is_told() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    // As with mpiexec of another MPI: variables, but nobody to connect to.
    let mut command = dg_run("dist check");
    command.envs([("PMI_RANK", "1"), ("PMI_SIZE", "2")]).env("DG_MPI", mpich.library("libmpi.so.12"));
    assert_ends(&finished(command, SOON), 6, &["says rank 0 of 1, and PMI rank 1 of 2", "set DG_MPI"]);
    let mut command = dg_run("dist check");
    let of_open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
    command.envs(of_open_mpi).env("DG_MPI", mpich.library("libmpi.so.12"));
    let parts = ["is MPICH Version: ", "the ranks were started by Open MPI", "set DG_MPI"];
    assert_ends(&finished(command, SOON), 6, &parts);
    let mut command = dg_run("dist check");
    command.envs([("PMI_RANK", "1"), ("PMI_SIZE", "2")]).env("DG_MPI", "/there/is/none.so");
    assert_ends(&finished(command, SOON), 6, &["no MPI library can be loaded", "/there/is/none.so"]);
}

#[test]
fn wrong_flags_and_variables_end_at_once() {
    for (arguments, environment, code, part) in [
        ("--rank 1", "", 2, "--world-size"),
        ("--nproc 0", "", 2, "expected auto or 1 to"),
        ("--nproc two", "", 2, "expected auto or 1 to"),
        ("--nproc 2 --rank 1", "", 2, "cannot be used with"),
        ("--nproc 2 --dist none", "", 2, "--dist none"),
        ("--nproc 2", "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1", 2, "is rank 0 of 2 already"),
        ("--nproc auto", "", 2, "one rank for each GPU"),
        ("", "RANK=0", 2, "WORLD_SIZE"),
        ("--stall-timeout 2", "", 2, "--stall-timeout"),
        ("--dist-timeout 0", "", 2, "--dist-timeout"),
        (
            "--dist mpi",
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1",
            6,
            "MPI reaches only ranks that it has started",
        ),
        (
            "--dist-timeout 1",
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1",
            6,
            "cannot be reached",
        ),
        (
            "--dist-timeout 1",
            "RANK=0 WORLD_SIZE=2 MASTER_ADDR=no-such.invalid MASTER_PORT=9",
            6,
            "leads to no address",
        ),
    ] {
        let mut command = dg_run(&format!("dist check {arguments}"));
        command.envs(environment.split_whitespace().map(|pair| pair.split_once('=').unwrap()));
        command.env("DG_EMULATOR", "/there/is/none.so");
        let began = Instant::now();
        assert_ends(&finished(command, SOON), code, &[part]);
        assert!(began.elapsed() < Duration::from_secs(5), "{arguments} {environment}");
    }
}

#[test]
fn a_port_that_is_taken_and_a_wrong_token_are_told() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let rank = |rank: usize, token: &str| {
        let mut command = dg_run(&format!(
            "dist check --world-size 2 --rank {rank} --rendezvous 127.0.0.1:{port} --dist-timeout 20"
        ));
        command.env("DG_DIST_TOKEN", token);
        command
    };
    let parts = [&*port.to_string(), "the port is taken", "--rendezvous HOST:PORT"];
    assert_ends(&finished(rank(0, "a"), SOON), 6, &parts);
    drop(listener);
    // Two jobs on one machine: the rank of the other one ends, and this one goes on.
    let root = rank(0, "a").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_ends(&finished(rank(1, "b"), SOON), 6, &["DG_DIST_TOKEN"]);
    assert_ends(&finished(rank(1, "a"), SOON), 0, &[]);
    let output = root.wait_with_output().unwrap();
    assert_ends(&output, 0, &["2 ranks, started by --world-size and --rank", "its token is another"]);
}

/// Processes whose standard error goes to a file.
pub struct Running {
    pub child: Child,
    errors: PathBuf,
}

impl Running {
    pub fn start(mut command: Command, errors: PathBuf) -> Self {
        let file = std::fs::File::create(&errors).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Running { child, errors }
    }

    /// Waits until rank 0 of `ranks` says that all are there.
    pub fn wait_for(&self, ranks: usize) {
        let until = Instant::now() + SOON;
        let line = format!("{ranks} ranks are there\n");
        while !std::fs::read_to_string(&self.errors).unwrap().contains(&line) {
            assert!(Instant::now() < until, "the ranks do not meet");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end; `stdout` of the output is empty.
    pub fn end(mut self) -> Output {
        let status = self.child.wait().unwrap();
        Output { status, stdout: Vec::new(), stderr: std::fs::read(self.errors).unwrap() }
    }
}

/// Three ranks that stay for long; a rank without a sign of life is lost after two seconds.
fn long(dir: &Path) -> Vec<Running> {
    let start = |rank: usize| {
        let rendezvous = format!("file:{}", dir.display());
        let flags = format!("--world-size 3 --rank {rank} --rendezvous {rendezvous}");
        let command = dg_run(&format!("dist check {flags} --seconds 60 --stall-timeout 6"));
        Running::start(command, dir.join(format!("errors-{rank}")))
    };
    let ranks: Vec<Running> = (0..3).map(start).collect();
    ranks[0].wait_for(3);
    ranks
}

fn signal(child: &Child, number: i32) {
    // SAFETY: a signal to a child that has not been waited for; no memory is passed.
    assert_eq!(unsafe { libc::kill(child.id() as i32, number) }, 0);
}

#[test]
fn ranks_of_a_check_that_is_broken_off_end() {
    for (victim, number, reason) in [
        (1, libc::SIGKILL, "its connection closed"),
        (0, libc::SIGKILL, "its connection closed"),
        (2, libc::SIGTERM, "its connection closed"),
        (1, libc::SIGSTOP, "nothing was heard of it for 2 s"),
        (0, libc::SIGSTOP, "nothing was heard of it for 2 s"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut ranks = long(dir.path());
        let mut gone = ranks.remove(victim).child;
        signal(&gone, number);
        let began = Instant::now();
        for rank in ranks {
            let output = rank.end();
            let named = format!("dg-run: rank {victim} (");
            assert_ends(&output, 6, &[&named, "was lost", reason, "start all ranks again"]);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{victim} {number}: {:?}", began.elapsed());
        let _ = gone.kill();
        gone.wait().unwrap();
    }
}

/// The processes that a process has started.
pub fn children(parent: &Child) -> Vec<i32> {
    let id = parent.id();
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_there(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // What has ended and nobody has asked for is a zombie.
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[cfg(target_os = "linux")]
#[test]
fn nproc_passes_signals_and_exit_codes_on() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let command = dg_run("dist check --nproc 3 --seconds 60 --stall-timeout 6");
        let parent = Running::start(command, dir.path().join("errors"));
        parent.wait_for(3);
        parent
    };
    let gone = |ranks: &[i32]| {
        let until = Instant::now() + SOON;
        while ranks.iter().any(|pid| is_there(*pid)) {
            assert!(Instant::now() < until, "ranks are left behind");
            thread::sleep(Duration::from_millis(5));
        }
    };
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let parent = start();
        let ranks = children(&parent.child);
        signal(&parent.child, number);
        assert_ends(&parent.end(), code, &[]);
        gone(&ranks);
    }
    // One of the ranks is killed: the others say so.
    let parent = start();
    let ranks = children(&parent.child);
    // SAFETY: a child of a child that is waiting for it; no memory is passed.
    assert_eq!(unsafe { libc::kill(ranks[1], libc::SIGKILL) }, 0);
    assert_ends(&parent.end(), 137, &["was lost", "its connection closed"]);
    gone(&ranks);
    // The parent is killed: nobody is left.
    let mut parent = start().child;
    let ranks = children(&parent);
    parent.kill().unwrap();
    parent.wait().unwrap();
    gone(&ranks);
}
