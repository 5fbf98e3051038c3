//! Programs in a sandbox: bubblewrap's namespaces (no network, no processes or files of the host but
//! read-only system folders), a real user id of its own, and limits of time, memory, files, processes and
//! output. Where there is no bubblewrap, Landlock and seccomp stand in for the namespaces.

#[cfg(target_os = "linux")]
mod confined;
mod processes;
#[cfg(test)]
mod tests;
mod words;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, ErrorKind, Result};
use processes::{kept, kill_all, processes_of, tasks_of_this_user, wait};
use words::{ENVIRONMENT, SEARCH_PATH, namespaces, program, version};

pub use words::{system_folders, words};

/// First of the user ids that are no one's. The limit of processes counts those of a user, so that every slot
/// has one of its own; root's are not limited at all.
const FIRST_USER: u32 = 60_000;

/// Slots of a process that judges.
pub const MAX_SLOTS: u32 = 64;

/// Processes that judge at a time and don't share users.
const USER_GROUPS: u32 = 80;

/// How long the pipes are waited for after the end of the program.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// What a program and all that it starts may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until everything is killed.
    pub wall: Duration,
    /// Processor time of each process, in whole seconds.
    pub cpu: Duration,
    /// Bytes of the largest file.
    pub file: u64,
    /// Bytes of each of the two writable folders, `/w` and `/tmp`.
    pub scratch: u64,
    /// Bytes in memory of all processes together, looked at twenty times a second.
    pub memory: u64,
    /// Processes at a time.
    pub processes: u32,
    /// Open files of a process.
    pub open_files: u32,
    /// Bytes of standard output that are kept, and of standard error; a program that writes more gets
    /// SIGPIPE.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(20),
            file: 64 << 20,
            scratch: 128 << 20,
            memory: 3 << 30,
            processes: 64,
            open_files: 128,
            output: 1 << 20,
        }
    }
}

/// A program to be run.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Program and arguments, as they are called inside.
    pub command: Vec<OsString>,
    /// Files and folders of the host with the path that they have inside, read-only. Without a root of its
    /// own, a sandbox shows them where they are: [`Sandbox::has_own_root`].
    pub read_only: Vec<(PathBuf, PathBuf)>,
    /// Where the program may write in a sandbox without a root of its own; otherwise that is `/w`.
    pub work: PathBuf,
    /// What it may use.
    pub limits: Limits,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// Killed at the end of [`Limits::wall`].
    TimedOut,
    /// After more output than [`Limits::output`].
    TooMuchOutput,
    /// Killed above [`Limits::memory`].
    TooMuchMemory,
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Its standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Its standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub wall: Duration,
}

/// A sandbox that works on this machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    walls: Walls,
    name: String,
    /// First user of this process's slots, for root, who may choose.
    users: Option<u32>,
}

/// What stands between a program and the machine, beside limits.
#[derive(Clone, Debug)]
enum Walls {
    Bubblewrap(PathBuf),
    #[cfg(target_os = "linux")]
    Landlock,
    Nothing,
}

impl Sandbox {
    /// The best sandbox of this machine, after a program was run in it.
    ///
    /// # Errors
    /// Kind `Device`, with what is missing: neither bubblewrap nor Landlock works here.
    pub fn find() -> Result<Self> {
        Self::bubblewrap().or_else(|why| {
            Self::landlock()
                .map_err(|second| why.advice(format!("the second choice does not work either: {second}")))
        })
    }

    /// bubblewrap with the kernel's user namespaces.
    fn bubblewrap() -> Result<Self> {
        let bubblewrap = program("bwrap", "bubblewrap")?;
        let name = version(&bubblewrap);
        Sandbox::with(Walls::Bubblewrap(bubblewrap), name)?.tried(
            "bubblewrap does not work here; it needs the kernel's user namespaces (sysctl \
             kernel.unprivileged_userns_clone, user.max_user_namespaces)",
        )
    }

    /// Landlock and seccomp, on the machine's own files.
    #[cfg(target_os = "linux")]
    fn landlock() -> Result<Self> {
        let name = "Landlock and seccomp, without namespaces".to_owned();
        Sandbox::with(Walls::Landlock, name)?
            .tried("Landlock does not work here; it needs Linux 6.7 or later")
    }

    #[cfg(not(target_os = "linux"))]
    fn landlock() -> Result<Self> {
        Err(Error::device("Landlock is a part of Linux"))
    }

    /// No sandbox, only limits.
    ///
    /// # Errors
    /// Kind `Device`: `setpriv` or `prlimit` is missing, or programs cannot be run.
    pub fn none() -> Result<Self> {
        Sandbox::with(Walls::Nothing, "none".to_owned())?.tried("programs cannot be run")
    }

    fn with(walls: Walls, name: String) -> Result<Self> {
        for tool in ["setpriv", "prlimit"] {
            program(tool, "util-linux")?;
        }
        let is_root = rustix::process::getuid().is_root();
        let users = is_root.then(|| FIRST_USER + std::process::id() % USER_GROUPS * MAX_SLOTS);
        Ok(Sandbox { walls, name, users })
    }

    /// Itself, if a program runs in it.
    fn tried(self, complaint: &str) -> Result<Self> {
        let cannot = || "cannot make a temporary folder".to_owned();
        let work = tempfile::tempdir().kind(ErrorKind::Device, cannot)?;
        self.give(0, work.path()).kind(ErrorKind::Device, cannot)?;
        let command = words(["/bin/sh", "-c", "echo inside"]);
        let outcome = self.run(0, &Job { command, work: work.path().into(), ..Job::default() })?;
        if outcome.ending != Ending::Exited(0) || outcome.stdout != b"inside\n" {
            let said = String::from_utf8_lossy(&outcome.stderr).trim().to_owned();
            return Err(Error::device(format!("{complaint}; found: {said}")));
        }
        Ok(self)
    }

    /// Its name and version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether programs see paths of their own rather than the machine's.
    pub fn has_own_root(&self) -> bool {
        matches!(self.walls, Walls::Bubblewrap(_))
    }

    /// Whether programs are held back by nothing but limits.
    pub fn is_none(&self) -> bool {
        matches!(self.walls, Walls::Nothing)
    }

    /// Gives a folder to the user of a slot.
    ///
    /// # Errors
    /// Its owner cannot be changed.
    pub fn give(&self, slot: u32, folder: &Path) -> std::io::Result<()> {
        let Some(user) = self.user(slot) else { return Ok(()) };
        std::os::unix::fs::chown(folder, Some(user), Some(user))
    }

    fn user(&self, slot: u32) -> Option<u32> {
        self.users.map(|first| first + slot % MAX_SLOTS)
    }

    /// Runs a job. Jobs that run at the same time need different `slot`s.
    ///
    /// # Errors
    /// Kind `Device`: the sandbox cannot be started. What the program does is its [`Outcome`].
    pub fn run(&self, slot: u32, job: &Job) -> Result<Outcome> {
        let started = Instant::now();
        let mut child =
            self.command(slot, job)?.spawn().kind(ErrorKind::Device, || "cannot start a sandbox".into())?;
        let limit = job.limits.output;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::internal("the sandbox has no pipes"));
        };
        let readers = [kept(stdout, limit), kept(stderr, limit)];
        let ending = wait(&mut child, started + job.limits.wall, job.limits.memory);
        let wall = started.elapsed();
        // Without a namespace of its own, what a program leaves behind is found by the slot's user, who is
        // nobody else. Only root has such users.
        if !self.has_own_root() {
            let user = self.user(slot);
            kill_all(|| user.map(processes_of).unwrap_or_default());
        }
        let ending = ending?;
        // What a program has left behind may hold a pipe open; its output is not waited for.
        let until = Instant::now() + LAST_OUTPUT;
        let rest = |reader: Receiver<Vec<u8>>| {
            reader.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_default()
        };
        let mut outputs = readers.map(rest);
        let too_much = outputs.iter().any(|output| output.len() > limit);
        outputs.iter_mut().for_each(|output| output.truncate(limit));
        let [stdout, stderr] = outputs;
        let ending = if too_much { Ending::TooMuchOutput } else { ending };
        Ok(Outcome { ending, stdout, stderr, wall })
    }

    /// `setpriv … prlimit … program`, the last within bubblewrap or after Landlock: the user id and the
    /// limits outlast what comes after them.
    fn command(&self, slot: u32, job: &Job) -> Result<Command> {
        let mut words = self.limited(slot, &job.limits);
        if let Walls::Bubblewrap(program) = &self.walls {
            words.push(program.into());
            words.extend(namespaces(job));
        }
        words.extend(job.command.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !self.has_own_root() {
            let tools = std::env::var_os("PATH").unwrap_or_default();
            command.env_clear().envs(ENVIRONMENT).env("TMPDIR", &job.work).current_dir(&job.work);
            // For the words before the program.
            command.env("PATH", [OsStr::new(SEARCH_PATH), &tools].join(OsStr::new(":")));
        }
        #[cfg(target_os = "linux")]
        if let Walls::Landlock = self.walls {
            let system = system_folders().map(PathBuf::from);
            let readable: Vec<PathBuf> =
                system.chain(job.read_only.iter().map(|(outside, _)| outside.clone())).collect();
            confined::confine(&mut command, &readable, &job.work)?;
        }
        Ok(command)
    }

    fn limited(&self, slot: u32, limits: &Limits) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["setpriv".into()];
        if let Some(user) = self.user(slot) {
            words.extend([format!("--reuid={user}").into(), format!("--regid={user}").into()]);
            words.push("--clear-groups".into());
        }
        // bubblewrap asks for this signal itself, once it has told the process in its namespaces to go on.
        // One that came earlier would leave that process waiting for ever.
        let signal = if self.has_own_root() { "keep" } else { "KILL" };
        words.push(format!("--pdeathsig={signal}").into());
        // A user who is somebody has processes already, which count as well.
        let others = if self.users.is_some() { 0 } else { tasks_of_this_user() };
        let limits = [
            ("core", 0),
            ("nproc", u64::from(others + limits.processes)),
            ("nofile", u64::from(limits.open_files)),
            ("fsize", limits.file),
            ("cpu", limits.cpu.as_secs().max(1)),
        ];
        words.push("prlimit".into());
        words.extend(limits.map(|(name, value)| format!("--{name}={value}").into()));
        words
    }
}
