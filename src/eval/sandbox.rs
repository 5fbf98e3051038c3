//! Programs in a sandbox: bubblewrap's namespaces (no network, no processes or files of the host but
//! read-only system folders), a real user id of its own, and limits of time, memory, files, processes and
//! output.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
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
    /// Files and folders of the host with the path that they have inside, read-only.
    pub read_only: Vec<(PathBuf, PathBuf)>,
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
    /// Seconds that it ran.
    pub seconds: f64,
}

/// A sandbox that works on this machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    bubblewrap: PathBuf,
    version: String,
    /// First user of this process's slots, for root, who may choose.
    users: Option<u32>,
}

impl Sandbox {
    /// The sandbox of this machine, after a program was run in it.
    ///
    /// # Errors
    /// Kind `Device`: bubblewrap, util-linux's `prlimit` and `setpriv`, or the kernel's user namespaces are
    /// missing.
    pub fn find() -> Result<Self> {
        let bubblewrap = program("bwrap", "bubblewrap")?;
        program("prlimit", "util-linux")?;
        let is_root = rustix::process::getuid().is_root();
        if is_root {
            program("setpriv", "util-linux")?;
        }
        let users = is_root.then(|| FIRST_USER + std::process::id() % USER_GROUPS * MAX_SLOTS);
        let sandbox = Sandbox { version: version(&bubblewrap), bubblewrap, users };
        let probe = Job { command: words(["/bin/sh", "-c", "echo inside"]), ..Job::default() };
        let outcome = sandbox.run(0, &probe)?;
        if outcome.ending != Ending::Exited(0) || outcome.stdout != b"inside\n" {
            return Err(Error::device(format!(
                "bubblewrap does not work here: {}; generated code is only run in a sandbox, which needs the kernel's \
                 user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)",
                String::from_utf8_lossy(&outcome.stderr).trim()
            )));
        }
        Ok(sandbox)
    }

    /// Its name and version.
    pub fn name(&self) -> &str {
        &self.version
    }

    /// Runs a job. Jobs that run at the same time need different `slot`s.
    ///
    /// # Errors
    /// Kind `Device`: the sandbox cannot be started. What the program does is its [`Outcome`].
    pub fn run(&self, slot: u32, job: &Job) -> Result<Outcome> {
        let started = Instant::now();
        let mut child =
            self.command(slot, job).spawn().kind(ErrorKind::Device, || "cannot start bubblewrap".into())?;
        let limit = job.limits.output;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::internal("the sandbox has no pipes"));
        };
        let readers = [kept(stdout, limit), kept(stderr, limit)];
        let ending = wait(&mut child, started + job.limits.wall, job.limits.memory)?;
        let mut outputs = readers.map(|reader| reader.join().unwrap_or_default());
        let too_much = outputs.iter().any(|output| output.len() > limit);
        outputs.iter_mut().for_each(|output| output.truncate(limit));
        let [stdout, stderr] = outputs;
        let ending = if too_much { Ending::TooMuchOutput } else { ending };
        Ok(Outcome { ending, stdout, stderr, seconds: started.elapsed().as_secs_f64() })
    }

    /// `setpriv … prlimit … bwrap … program`: the user id and the limits outlast the namespaces that come
    /// after them.
    fn command(&self, slot: u32, job: &Job) -> Command {
        let limits = &job.limits;
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
        if let Some(first) = self.users {
            let user = first + slot % MAX_SLOTS;
            add(&"setpriv");
            add(&format!("--reuid={user}"));
            add(&format!("--regid={user}"));
            add(&"--clear-groups");
        }
        add(&"prlimit");
        add(&"--core=0");
        // A user who is somebody has processes already, which count as well.
        let others = if self.users.is_some() { 0 } else { tasks_of_this_user() };
        add(&format!("--nproc={}", others + limits.processes));
        add(&format!("--nofile={}", limits.open_files));
        add(&format!("--fsize={}", limits.file));
        add(&format!("--cpu={}", limits.cpu.as_secs().max(1)));
        add(&self.bubblewrap);
        for word in ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"] {
            add(&word);
        }
        for (name, value) in [
            ("PATH", SEARCH_PATH),
            ("LANG", "C.UTF-8"),
            ("HOME", "/nonexistent"),
            // Thread pools as wide as the machine would run into the limit of processes.
            ("OPENBLAS_NUM_THREADS", "1"),
        ] {
            add(&"--setenv");
            add(&name);
            add(&value);
        }
        for folder in system_folders() {
            add(&"--ro-bind");
            add(&folder);
            add(&folder);
        }
        for word in ["--proc", "/proc", "--dev", "/dev"] {
            add(&word);
        }
        for folder in ["/tmp", "/w"] {
            add(&"--size");
            add(&limits.scratch.to_string());
            add(&"--tmpfs");
            add(&folder);
        }
        for (outside, inside) in &job.read_only {
            add(&"--ro-bind");
            add(outside);
            add(inside);
        }
        for word in ["--remount-ro", "/", "--chdir", "/w", "--"] {
            add(&word);
        }
        words.extend(job.command.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
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
fn kept(mut pipe: impl Read + Send + 'static, limit: usize) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has ended.
        let _ = pipe.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes);
        bytes
    })
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
    let folder = PathBuf::from(format!("/proc/{process}"));
    let pages = std::fs::read_to_string(folder.join("statm")).ok().and_then(|text| {
        // Pages of files that others share don't count.
        let mut fields = text.split(' ').skip(1).map_while(|field| field.trim().parse::<u64>().ok());
        Some(fields.next()?.saturating_sub(fields.next()?))
    });
    let tasks = std::fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let below: u64 = children
        .flat_map(|text| text.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .map(resident)
        .sum();
    pages.unwrap_or(0) * rustix::param::page_size() as u64 + below
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
            child.kill().kind(ErrorKind::Device, complain)?;
            child.wait().kind(ErrorKind::Device, complain)?;
            return Ok(ending);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Option<Sandbox> {
        match Sandbox::find() {
            Ok(sandbox) => Some(sandbox),
            Err(error) if std::env::var_os("DG_REQUIRE_ALL").is_none() => {
                eprintln!("NOT RUN: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn run(script: &str, limits: Limits) -> Option<Outcome> {
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
        let Some(outcome) = run(&script, Limits { wall: Duration::from_secs(1), ..Limits::default() }) else {
            return;
        };
        assert_eq!(outcome.ending, Ending::TimedOut);
        assert!(outcome.seconds < 2.0, "{}", outcome.seconds);
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
    fn a_program_that_ends_is_told_apart() {
        let Some(exit) = run("exit 3", Limits::default()) else { return };
        assert_eq!(exit.ending, Ending::Exited(3));
        let job = Job { command: words(["/no/such"]), ..Job::default() };
        let missing = sandbox().unwrap().run(2, &job).unwrap();
        assert_ne!(missing.ending, Ending::Exited(0));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"), "{missing:?}");
    }
}
