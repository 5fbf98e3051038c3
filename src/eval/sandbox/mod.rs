//! Programs in a sandbox: bubblewrap's namespaces (no network, no processes or files of the host but
//! read-only system folders), a real user id of its own, and limits of time, memory, files, processes and
//! output. Where there is no bubblewrap, Landlock and seccomp stand in for the namespaces.

#[cfg(target_os = "linux")]
mod confined;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, ErrorKind, Result};

/// Folders of the system that programs need, where they exist.
const SYSTEM: [&str; 7] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"];

/// Where programs are looked for inside.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// First of the user ids that are no one's. The limit of processes counts those of a user, so that every slot
/// has one of its own; root's are not limited at all.
const FIRST_USER: u32 = 60_000;

/// Slots of a process that judges.
pub const MAX_SLOTS: u32 = 64;

/// Processes that judge at a time and don't share users.
const USER_GROUPS: u32 = 80;

/// What programs find in their environment.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", SEARCH_PATH),
    ("LANG", "C.UTF-8"),
    ("HOME", "/nonexistent"),
    // Thread pools as wide as the machine would run into the limit of processes.
    ("OPENBLAS_NUM_THREADS", "1"),
];

/// How often processes that were left behind are looked for, until there are none.
const ROUNDS: u32 = 400;

/// How long the pipes are waited for after the end of the program.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// How often it is asked whether the program has ended.
const TICK: Duration = Duration::from_millis(5);

/// How often memory is looked at.
const MEMORY_TICK: Duration = Duration::from_millis(50);

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
        Ok(Outcome { ending, stdout, stderr })
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

/// Kills processes until none is found, some rounds long: each may have started others meanwhile.
fn kill_all(find: impl Fn() -> Vec<u32>) {
    for _ in 0..ROUNDS {
        let left = find();
        if left.is_empty() {
            return;
        }
        for process in left {
            let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
            // One that is gone need not be ended.
            let _ =
                process.map(|process| rustix::process::kill_process(process, rustix::process::Signal::KILL));
        }
        std::thread::sleep(TICK);
    }
}

/// bubblewrap's words up to the program.
fn namespaces(job: &Job) -> Vec<OsString> {
    let mut words = words(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]);
    for (name, value) in ENVIRONMENT {
        words.extend(["--setenv".into(), name.into(), value.into()]);
    }
    for folder in system_folders() {
        words.extend(["--ro-bind".into(), folder.into(), folder.into()]);
    }
    words.extend(self::words(["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]));
    for folder in ["/tmp", "/w"] {
        let size = job.limits.scratch.to_string();
        words.extend(["--size".into(), size.into(), "--tmpfs".into(), folder.into()]);
    }
    for (outside, inside) in &job.read_only {
        words.extend(["--ro-bind".into(), outside.into(), inside.into()]);
    }
    words.extend(self::words(["--remount-ro", "/", "--chdir", "/w", "--"]));
    words
}

/// Processes of a user.
fn processes_of(user: u32) -> Vec<u32> {
    let is_theirs = |process: &std::fs::DirEntry| {
        process.metadata().is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == user)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_theirs);
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// Processes below one.
fn below(process: u32) -> Vec<u32> {
    let mut found = children(process);
    let mut at = 0;
    while let Some(next) = found.get(at) {
        found.extend(children(*next));
        at += 1;
    }
    found
}

fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Folders of the system that this machine has.
pub fn system_folders() -> impl Iterator<Item = &'static str> {
    SYSTEM.into_iter().filter(|folder| Path::new(folder).exists())
}

/// Words of a command.
pub fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}

/// Finds a program in PATH.
fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::device(format!(
            "there is no `{name}` in PATH; generated code is only run in a sandbox, which needs it: install the package \
             {package}"
        ))
    })
}

/// Reads a pipe on a thread of its own, up to one byte more than the limit. Whoever writes more gets SIGPIPE.
fn kept(mut pipe: impl Read + Send + 'static, limit: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has ended, and nobody may be waiting any more.
        let _ = pipe.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// What a program says of its version, in one line.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Processes and threads of the user who runs this.
fn tasks_of_this_user() -> u32 {
    let user = rustix::process::getuid().as_raw();
    let count = |process: std::fs::DirEntry| {
        let is_ours =
            process.metadata().is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == user);
        let tasks = is_ours.then(|| std::fs::read_dir(process.path().join("task")).ok()).flatten();
        tasks.map_or(0, |tasks| tasks.count() as u32)
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().map(count).sum()
}

/// Bytes in memory of a process and all below it. The sandbox's own processes are among them.
fn resident(process: u32) -> u64 {
    let kilobytes = |process: u32| {
        let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        // Pages of files don't count; the kernel takes them back.
        let of_kind = |line: &str| {
            let (_, value) =
                line.split_once(':').filter(|(name, _)| ["RssAnon", "RssShmem"].contains(name))?;
            value.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        Some(text.lines().filter_map(of_kind).sum::<u64>())
    };
    let all = std::iter::once(process).chain(below(process));
    all.filter_map(kilobytes).sum::<u64>() << 10
}

/// Waits for the end of the program, of its time or of its memory. The kill ends bubblewrap, with which the
/// kernel ends the whole process namespace.
fn wait(child: &mut Child, deadline: Instant, memory: u64) -> Result<Ending> {
    let complain = || "cannot wait for the sandbox".to_owned();
    let mut next_look = Instant::now() + MEMORY_TICK;
    loop {
        if let Some(status) = child.try_wait().kind(ErrorKind::Device, complain)? {
            return Ok(match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, signal) => Ending::Signalled(signal.unwrap_or_default()),
            });
        }
        let now = Instant::now();
        let mut too_much = None;
        if now >= deadline {
            too_much = Some(Ending::TimedOut);
        } else if now >= next_look {
            next_look = now + MEMORY_TICK;
            too_much = (resident(child.id()) > memory).then_some(Ending::TooMuchMemory);
        }
        if let Some(ending) = too_much {
            // While the program lives, it is the parent of all that its processes leave behind.
            kill_all(|| below(child.id()));
            child.kill().kind(ErrorKind::Device, complain)?;
            child.wait().kind(ErrorKind::Device, complain)?;
            return Ok(ending);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    fn sandbox() -> Option<Sandbox> {
        match Sandbox::bubblewrap() {
            Ok(sandbox) => Some(sandbox),
            Err(error) if std::env::var_os("DG_REQUIRE_ALL").is_none() => {
                eprintln!("NOT RUN: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Every test has the users of the same slots, so they wait for each other.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(script: &str, limits: Limits) -> Option<Outcome> {
        let _alone = alone();
        let job = Job { command: words(["/bin/sh", "-c", script]), limits, ..Job::default() };
        Some(sandbox()?.run(1, &job).unwrap())
    }

    fn text(outcome: &Outcome) -> String {
        String::from_utf8_lossy(&outcome.stdout).into_owned()
    }

    #[test]
    fn the_host_is_out_of_reach() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let script = format!(
            "cat {0} /etc/passwd /root/.profile; echo > {0}; echo x > /usr/x; echo x > /x; ls /proc | grep -c '^[0-9]'; \
             ls /sys/class/net; id -u",
            secret.display()
        );
        let Some(outcome) = run(&script, Limits::default()) else { return };
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        let lines = text(&outcome);
        let lines: Vec<&str> = lines.lines().collect();
        assert!(lines.len() == 2 && lines[0].parse::<u32>().unwrap() < 8 && lines[1] != "0", "{outcome:?}");
        assert!(!Path::new("/usr/x").exists() && !Path::new("/x").exists());
    }

    #[test]
    fn time_ends_the_program_and_what_it_left_behind() {
        let mark = format!("{}.25", 7_000 + std::process::id() % 1000);
        let script = format!("setsid sleep {mark} & trap '' TERM; while :; do :; done");
        let started = Instant::now();
        let Some(outcome) = run(&script, Limits { wall: Duration::from_secs(1), ..Limits::default() }) else {
            return;
        };
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(outcome.ending, Ending::TimedOut);
        assert!(seconds < 2.5, "{seconds}");
        std::thread::sleep(Duration::from_millis(200));
        let alive = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output().unwrap();
        assert!(alive.stdout.is_empty(), "the sleeper outlived its sandbox");
    }

    #[test]
    fn every_resource_has_its_limit() {
        let limits = Limits { file: 1 << 20, scratch: 4 << 20, processes: 24, ..Limits::default() };
        let forks = run("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all", limits);
        let Some(forks) = forks else { return };
        assert!(!text(&forks).contains("all"), "{forks:?}");
        let file = run("head -c 9000000 /dev/zero > /w/x; stat -c %s /w/x", limits).unwrap();
        assert_eq!(text(&file), "1048576\n", "{file:?}");
        let disk = run(
            "for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero > /w/$i; done; du -sm /w | cut -f1",
            limits,
        );
        assert!(text(&disk.unwrap()).trim().parse::<u32>().unwrap() <= 5);
        let hoard = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        let hoard = run(hoard, Limits { memory: 64 << 20, ..limits }).unwrap();
        assert_eq!(hoard.ending, Ending::TooMuchMemory);
        let flood = run("yes", Limits { output: 10_000, ..limits }).unwrap();
        assert_eq!((flood.ending, flood.stdout.len()), (Ending::TooMuchOutput, 10_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn landlock_closes_files_network_and_what_is_left_behind() {
        let _alone = alone();
        let sandbox = match Sandbox::landlock() {
            Ok(sandbox) => sandbox,
            Err(error) if std::env::var_os("DG_REQUIRE_ALL").is_none() => {
                return eprintln!("NOT RUN: {error}");
            }
            Err(error) => panic!("{error}"),
        };
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let root = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let work = root.path().join("work");
        std::fs::create_dir(&work).unwrap();
        sandbox.give(3, &work).unwrap();
        let mark = format!("{}.75", 8_000 + std::process::id() % 1000);
        let script = format!(
            "cat {0}; echo > {0}; cat /etc/passwd; echo x > /tmp/landlock-{mark}; echo kept > here; cat here; \
             setsid sleep {mark} & python3 -c 'import socket; socket.socket(socket.AF_INET)' || echo no socket",
            secret.display()
        );
        let command = words(["/bin/sh", "-c", &script]);
        let outcome = sandbox.run(3, &Job { command, work, ..Job::default() }).unwrap();
        assert_eq!(text(&outcome), "kept\nno socket\n", "{outcome:?}");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert!(!Path::new(&format!("/tmp/landlock-{mark}")).exists());
        if sandbox.users.is_some() {
            let alive = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output().unwrap();
            assert!(alive.stdout.is_empty(), "the sleeper outlived its sandbox");
        }
    }

    #[test]
    fn a_program_that_ends_is_told_apart() {
        let Some(exit) = run("exit 3", Limits::default()) else { return };
        assert_eq!(exit.ending, Ending::Exited(3));
        let job = Job { command: words(["/no/such"]), ..Job::default() };
        let _alone = alone();
        let missing = sandbox().unwrap().run(2, &job).unwrap();
        assert_ne!(missing.ending, Ending::Exited(0));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"), "{missing:?}");
    }
}
