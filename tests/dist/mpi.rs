//! Collectives by a real MPI, between processes that its `mpiexec` starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::dist::control::{Member, Timing};
use deepguard::dist::fabric::Fabric;
use deepguard::dist::launch::{Flags, Launch, Variables};
use deepguard::dist::mpi::find;
use deepguard::dist::{Engine, World};
use deepguard::{Error, Result};

use super::required::not_tested;

/// What a process of these tests does.
const CASE: &str = "DG_TEST_MPI";

/// Where it leaves its last words.
const FOLDER: &str = "DG_TEST_FOLDER";

/// An MPI that `make mpi` has installed.
#[derive(Clone, Copy)]
pub enum Kind {
    Mpich,
    OpenMpi,
}

/// A folder with `bin/mpiexec` and `lib`.
pub struct Mpi(Kind, PathBuf);

impl Mpi {
    /// `None`, after saying so, where it is not installed.
    pub fn find(kind: Kind) -> Option<Self> {
        let target = Path::new(env!("CARGO_BIN_EXE_dg-run")).ancestors().nth(2).unwrap();
        let found = target.join("mpi").join(match kind {
            Kind::Mpich => "mpich",
            Kind::OpenMpi => "openmpi",
        });
        if found.exists() {
            return Some(Mpi(kind, found));
        }
        not_tested("no MPI: `make mpi` gets it");
        None
    }

    pub fn library(&self, name: &str) -> PathBuf {
        self.1.join("lib").join(name)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.1.join("bin").join(name)
    }

    /// What tells Open MPI where it was put.
    pub fn prefixes(&self) -> Vec<(&'static str, &Path)> {
        match self.0 {
            Kind::Mpich => vec![],
            Kind::OpenMpi => {
                ["OPAL_PREFIX", "PRTE_PREFIX", "PMIX_PREFIX"].map(|name| (name, &*self.1)).to_vec()
            }
        }
    }

    /// `mpiexec` for `ranks` ranks with this library.
    pub fn exec(&self, library: &str, ranks: usize) -> Command {
        let mut command = Command::new(self.program("mpiexec"));
        match self.0 {
            // The machine's name need not lead anywhere.
            Kind::Mpich => command.args(["-iface", "lo"]),
            Kind::OpenMpi => command.args(["--allow-run-as-root", "--oversubscribe"]),
        };
        command.args(["-n", &ranks.to_string()]).envs(self.prefixes());
        command.env("DG_MPI", self.library(library)).stdin(Stdio::null());
        command
    }
}

/// The function `a_rank`, as `ranks` processes.
fn ranks(mpi: &Mpi, library: &str, ranks: usize, case: &str, folder: &Path) -> Output {
    // `mpiexec` kills all others because of one, before they see it themselves. A shell stands for the rank
    // then: timeout makes a process group of its own.
    const SURVIVE: &str = "timeout -s KILL 60 sh -c \"$TELL\" sh \"$@\" || exit $?";
    const TELL: &str = "\"$@\"; code=$?; echo $code > \"$DG_TEST_FOLDER/code-$PMI_RANK\"; exit $code";
    let mut command = mpi.exec(library, ranks);
    command.args(["sh", "-c", SURVIVE, "sh"]).arg(std::env::current_exe().unwrap());
    command
        .args(["mpi::a_rank", "--exact", "--ignored", "--nocapture"])
        .env(CASE, case)
        .env(FOLDER, folder)
        .env("TELL", TELL);
    finished(command, Duration::from_secs(60))
}

/// What a command has written, which has to end within `limit`.
pub fn finished(mut command: Command, limit: Duration) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
            let [out, err] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            panic!("did not end within {limit:?}: {out}{err}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// A rank of this machine, without anything to compare.
pub fn member(rank: usize) -> Member {
    Member {
        rank,
        host: "here".into(),
        pid: std::process::id(),
        device: "processor".into(),
        sole: None,
        invitation: None,
        facts: vec![],
    }
}

/// What a rank of these tests does: this function in a process of its own.
#[test]
#[ignore = "a process of the tests below"]
fn a_rank() {
    let launch = Launch::of(&Flags::default(), &Variables::of_process()).unwrap();
    let rank = launch.rank;
    if let Err(error) = run(launch) {
        end(rank, error);
    }
}

/// The end of a rank; its last words go to a file, as `mpiexec` may be gone before.
fn end(rank: usize, error: Error) {
    let file = Path::new(&std::env::var(FOLDER).unwrap()).join(rank.to_string());
    std::fs::write(file, error.to_string()).unwrap();
    std::process::exit(error.kind().exit_code().into());
}

fn run(launch: Launch) -> Result<()> {
    let case = std::env::var(CASE).expect("a case");
    let timing = Timing { start: Duration::from_secs(20), ..Timing::default() };
    let own = member(launch.rank);
    let rank = launch.rank;
    let is_idle = case == "idle";
    let on_failure = Box::new(move |error| {
        if !is_idle {
            end(rank, error)
        }
    });
    let mut world = World::join(launch, Engine::Auto { gpu: None }, timing, |_| own, &|_| (), on_failure)?;
    match case.as_str() {
        "collectives" => {
            world.collective("check", check)?;
            println!("rank {rank} of {}: right, by {}", world.launch().world, world.fabric().unwrap().name());
            return world.finish();
        }
        "killed" | "idle" if rank == 1 => {
            // SAFETY: a signal to this very process; no memory is passed.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        "error" if rank == 1 => {
            let error = Error::device("out of memory");
            world.leave(&error);
            return Err(error);
        }
        _ => {}
    }
    // Nobody else comes: what is on its way has to be given up.
    let mut values = vec![1; 1 << 20];
    world.control().enter(3, "step");
    world.collective("all-reduce", |fabric| fabric.all_reduce(&mut values))
}

/// Sums and bytes of known values, at lengths on both sides of every limit.
pub fn check(fabric: &mut dyn Fabric) -> Result<()> {
    let (rank, world) = (fabric.rank(), fabric.world());
    for length in [0, 1, 7, 8192, 8193, 1 << 20] {
        let value = |rank: usize, i: usize| (i as i64 - 5).wrapping_mul(rank as i64 + 0x7fff_ffff_ffff);
        let mut values: Vec<i64> = (0..length).map(|i| value(rank, i)).collect();
        fabric.all_reduce(&mut values)?;
        for (i, found) in values.into_iter().enumerate() {
            let sum = (0..world).fold(0_i64, |sum, rank| sum.wrapping_add(value(rank, i)));
            assert_eq!(found, sum, "{i} of {length}");
        }
    }
    // Sums wrap around.
    let mut most = [i64::MAX];
    fabric.all_reduce(&mut most)?;
    assert_eq!(most[0], i64::MAX.wrapping_mul(world as i64));
    for root in 0..world {
        for length in [0, 1, 1000, 3 << 20] {
            let sent: Vec<u8> = (0..length).map(|i| (i + root) as u8).collect();
            // What was there before does not matter.
            let mut bytes = if rank == root { sent.clone() } else { vec![9; rank] };
            fabric.broadcast(root, &mut bytes)?;
            assert_eq!(bytes, sent);
        }
    }
    let all = fabric.all_gather(&vec![rank as u8; rank])?;
    assert_eq!(all, (0..world).map(|rank| vec![rank as u8; rank]).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn sums_and_bytes_are_right_by_all_abis() {
    for (kind, library, n, by) in [
        (Kind::Mpich, "libmpi.so.12", 3, "MPICH Version: "),
        (Kind::Mpich, "libmpi_abi.so.1", 2, "MPICH Version: "),
        (Kind::OpenMpi, "libmpi.so.40", 2, "Open MPI v"),
        (Kind::Mpich, "libmpi.so.12", 1, "one rank"),
    ] {
        let Some(mpi) = Mpi::find(kind) else { return };
        let folder = tempfile::tempdir().unwrap();
        let output = ranks(&mpi, library, n, "collectives", folder.path());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{library}: {text}{}", String::from_utf8_lossy(&output.stderr));
        for rank in 0..n {
            assert!(text.contains(&format!("rank {rank} of {n}: right, by {by}")), "{library}: {text}");
        }
    }
}

#[test]
fn a_collective_ends_when_a_rank_is_gone() {
    let Some(mpich) = Mpi::find(Kind::Mpich) else { return };
    for (case, message) in [
        ("killed", "was lost in start: its connection closed"),
        ("error", "ended with exit code 5: out of memory"),
        // Whoever is told does nothing about it: the collective itself ends the process.
        ("idle", ""),
    ] {
        let (began, folder) = (Instant::now(), tempfile::tempdir().unwrap());
        ranks(&mpich, "libmpi.so.12", 3, case, folder.path());
        for rank in [0, 2] {
            let read = |name: String| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
            let code = || read(format!("code-{rank}"));
            while !code().ends_with('\n') && began.elapsed() < Duration::from_secs(15) {
                thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(code(), "6\n", "{case}: rank {rank}");
            let words = read(rank.to_string());
            let named = words.starts_with("rank 1 (here, pid ") && words.contains(message);
            assert!(named || case == "idle", "{case}: rank {rank}: {words:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{case}: {:?}", began.elapsed());
    }
}

#[test]
fn ranks_that_mpi_has_not_started_are_refused() {
    let environment =
        [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let launch = Launch::of(&Flags::default(), &environment.into_iter().collect()).unwrap();
    let own = member(launch.rank);
    let joined = World::join(launch, Engine::Mpi, Timing::default(), |_| own, &|_| (), Box::new(|_| ()));
    let error = joined.err().unwrap();
    let text = "MPI reaches only ranks that it has started, and these were started by RANK and WORLD_SIZE; start them \
                with mpiexec, or with srun --mpi=pmi2 or --mpi=pmix";
    assert_eq!((error.kind().exit_code(), error.to_string().as_str()), (6, text));
}

/// In processes of their own, as a library stays loaded.
#[test]
fn libraries_are_found_or_told_what_was_tried() {
    let found = |library: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["mpi::find_one", "--exact", "--ignored", "--nocapture"]).env("DG_MPI", library);
        String::from_utf8(finished(command, Duration::from_secs(20)).stdout).unwrap()
    };
    let text = found("/there/is/none.so");
    assert!(text.contains("code 6: no MPI library can be loaded; install one, or set DG_MPI"), "{text}");
    assert!(text.contains("tried /there/is/none.so: "), "{text}");
    // A library, but not of MPI.
    let text = found("libc.so.6");
    assert!(text.contains("tried libc.so.6: ") && text.contains("MPI_Init_thread"), "{text}");
    if let Some(mpich) = Mpi::find(Kind::Mpich) {
        let library = mpich.library("libmpi.so.12");
        let text = found(library.to_str().unwrap());
        let path = library.canonicalize().unwrap();
        assert!(text.contains(&format!("found {}: MPICH Version: ", path.display())), "{text}");
    }
}

#[test]
#[ignore = "a process of the test above"]
fn find_one() {
    match find() {
        Ok(found) => println!("found {}: {}", found.path, found.version),
        Err(error) => println!("code {}: {error}", error.kind().exit_code()),
    }
}
