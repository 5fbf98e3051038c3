//! Judging completions: the harness of a suite, in a sandbox, with the candidate in a second sandbox inside.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::{Environment, PYTHON, Python};
use super::sandbox::{Ending, Job, Limits, Outcome, Sandbox, words};
use super::suite::{Content, Scenario, Suite, harness_hash};
use super::verdict::{Verdict, from_records};
use crate::error::{Context, ErrorKind, Result};

/// The judge's own limit of time, as a multiple of that of a check and of how many there are. It is for a
/// harness that hangs, on a busy machine; the harness minds the limits of the checks.
const PATIENCE: f64 = 60.0;

/// Checks for which compiling and starting may take as long.
const CHECKS_TO_START: usize = 8;

/// Checks of a scenario that doesn't say how many it has.
const UNKNOWN_CHECKS: usize = 24;

/// Judges completions of one suite.
pub struct Judge<'a> {
    suite: &'a Suite,
    sandbox: Sandbox,
    python: Python,
    environment: Environment,
    environment_hash: String,
    /// BLAKE3 of the harness's files.
    harness_hash: String,
    /// How often each program is judged; verdicts that differ are unknown.
    repeat: u32,
    /// Folders that the suite's checks need, with their paths inside.
    mounts: Vec<(PathBuf, PathBuf)>,
    /// Harness and programs, readable by the sandbox's user.
    scratch: tempfile::TempDir,
}

/// What a judge is asked to do beyond its suite.
#[derive(Clone, Debug)]
pub struct JudgeOptions {
    /// Interpreter that runs the checks and Python candidates, for example that of a virtual environment.
    pub python: PathBuf,
    /// How often each program is judged; verdicts that differ are unknown, as flaky.
    pub repeat: u32,
    /// Whether programs run without a sandbox, which is for machines that are one themselves.
    pub without_sandbox: bool,
}

impl Default for JudgeOptions {
    fn default() -> Self {
        JudgeOptions { python: PYTHON.into(), repeat: 1, without_sandbox: false }
    }
}

impl<'a> Judge<'a> {
    /// A judge of a suite.
    ///
    /// # Errors
    /// Kind `Device`: there is no sandbox, no Python in it, or no room for temporary files. Kind `Data`: the
    /// harness cannot be read.
    pub fn new(suite: &'a Suite, options: &JudgeOptions) -> Result<Self> {
        let sandbox = if options.without_sandbox { Sandbox::none()? } else { Sandbox::find()? };
        let python = Python::find(&options.python)?;
        let mut environment = Environment::of(&sandbox, &python)?;
        let mounts = suite.mounts()?;
        mounts.iter().for_each(|(folder, _)| environment.add_node_packages(folder));
        let complain = || "cannot copy the suite's harness".to_owned();
        let scratch =
            tempfile::Builder::new().permissions(readable()).tempdir().kind(ErrorKind::Device, complain)?;
        let harness = suite.harness()?;
        write_files(&scratch.path().join("harness"), &harness).map_err(|error| error.context(complain()))?;
        let confine = Content::Text(include_str!("harness/confine.py").to_owned());
        write_files(&scratch.path().join("walls"), &[("confine.py".to_owned(), confine)])
            .map_err(|error| error.context(complain()))?;
        Ok(Judge {
            suite,
            sandbox,
            python,
            environment_hash: environment.hash()?,
            environment,
            harness_hash: harness_hash(&harness)?,
            repeat: options.repeat.max(1),
            mounts,
            scratch,
        })
    }

    /// The suite.
    pub fn suite(&self) -> &'a Suite {
        self.suite
    }

    /// Whether programs run in namespaces of their own.
    pub fn is_walled(&self) -> bool {
        self.sandbox.has_own_root()
    }

    /// What the verdicts were found with.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// BLAKE3 of the harness's files.
    pub fn harness_hash(&self) -> &str {
        &self.harness_hash
    }

    /// BLAKE3 of all that a verdict depends on: program, checks, harness and environment.
    ///
    /// # Errors
    /// Kind `Data`: a file of the scenario cannot be read.
    pub fn key(&self, scenario: &Scenario, program: &str) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let parts = [
            program.to_owned(),
            scenario.checks_hash()?,
            self.harness_hash.clone(),
            self.environment_hash.clone(),
            self.repeat.to_string(),
        ];
        for part in parts {
            hasher.update(blake3::hash(part.as_bytes()).as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The verdict on one program, prompt and completion, and how long it was in the sandbox; of several
    /// runs, the longest. Programs that are judged at the same time need different `slot`s, below
    /// [`super::sandbox::MAX_SLOTS`].
    ///
    /// # Errors
    /// Kind `Device`: the sandbox cannot be started any more, or there is no room for the program. Kind
    /// `Data`: a file of the scenario cannot be read.
    pub fn judge(&self, slot: u32, scenario: &Scenario, program: &str) -> Result<(Verdict, Duration)> {
        let (first, mut longest) = self.judge_once(slot, scenario, program)?;
        for _ in 1..self.repeat {
            let (again, wall) = self.judge_once(slot, scenario, program)?;
            longest = longest.max(wall);
            if (again.functional, again.secure) != (first.functional, first.secure) {
                return Ok((Verdict::flaky(&first, &again), longest));
            }
        }
        Ok((first, longest))
    }

    fn judge_once(&self, slot: u32, scenario: &Scenario, program: &str) -> Result<(Verdict, Duration)> {
        let folder = self.write_job(scenario, program)?;
        let work = folder.path().join("w");
        let given = std::fs::create_dir(&work).and_then(|()| self.sandbox.give(slot, &work));
        given.kind(ErrorKind::Device, || "cannot make a folder for the checks".to_owned())?;
        let outcome = self.sandbox.run(slot, &self.job(scenario, folder.path()))?;
        Ok((verdict_of(scenario, &outcome), outcome.wall))
    }

    /// A folder with the scenario's files and the program.
    fn write_job(&self, scenario: &Scenario, program: &str) -> Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().permissions(readable()).tempdir_in(self.scratch.path());
        let folder = folder.kind(ErrorKind::Device, || "cannot make a folder for a program".to_owned())?;
        let mut files = scenario.files.clone();
        if !files.iter().any(|(name, _)| name == "meta.toml") {
            let meta = crate::files::json_text(&scenario.meta)?;
            files.push(("meta.json".to_owned(), Content::Text(meta)));
        }
        let program = Content::Text(program.to_owned());
        write_files(&folder.path().join("scenario"), &files)?;
        write_files(&folder.path().join("program"), &[(program_name(scenario), program)])?;
        Ok(folder)
    }

    /// Where a path of the host is inside.
    fn inside(&self, outside: PathBuf, inside: &str) -> PathBuf {
        if self.sandbox.has_own_root() { inside.into() } else { outside }
    }

    fn job(&self, scenario: &Scenario, folder: &Path) -> Job {
        let outside = |name: &str| folder.join(name);
        let harness = self.scratch.path().join("harness");
        let work = self.inside(outside("w"), "/w");
        let program = self.inside(outside("program"), "/program").join(program_name(scenario));
        let scenario_folder = self.inside(outside("scenario"), "/scenario");
        let inside = self.inside(harness.clone(), "/harness");
        let mut command = vec![self.python.program.clone().into_os_string(), "-I".into()];
        command.push(inside.join("harness.py").into());
        command.extend(["--scenario".into(), scenario_folder.into(), "--work".into(), work.into()]);
        command.extend(["--program".into(), program.into_os_string()]);
        for word in self.candidate_walls(&inside) {
            let mut option = OsString::from("--wrap=");
            option.push(word);
            command.push(option);
        }
        let checks = match scenario.meta.functional.len() + scenario.meta.security.len() {
            0 => UNKNOWN_CHECKS,
            n => n,
        };
        let seconds = PATIENCE * scenario.meta.time_limit * (checks + CHECKS_TO_START) as f64;
        let wall = Duration::from_secs_f64(seconds);
        let mut read_only = vec![
            (harness, "/harness".into()),
            (self.scratch.path().join("walls"), "/walls".into()),
            (outside("scenario"), "/scenario".into()),
            (outside("program"), "/program".into()),
        ];
        read_only.extend(self.mounts.iter().cloned());
        read_only.extend(self.python.folders.iter().map(|folder| (folder.clone(), folder.clone())));
        let limits = Limits { wall, cpu: wall, ..Limits::default() };
        Job { command, read_only, work: outside("w"), limits }
    }

    /// Words before every command of the candidate, into which the harness puts the paths: it sees neither
    /// the checks nor what else the harness has, and writes to its case's folder only.
    fn candidate_walls(&self, harness: &Path) -> Vec<OsString> {
        let system = super::sandbox::system_folders().map(PathBuf::from);
        let readable: Vec<PathBuf> = system.chain(self.python.folders.iter().cloned()).collect();
        if self.sandbox.is_none() {
            return Vec::new();
        }
        if self.sandbox.has_own_root() {
            return bubblewrap_words(&readable);
        }
        let confine = self.scratch.path().join("walls/confine.py");
        let mut all = vec![self.python.program.clone().into_os_string(), "-I".into(), confine.into()];
        all.extend(words(["{folder}", "{program}"]));
        all.push((readable.len() + 1).to_string().into());
        all.push(harness.into());
        all.extend(readable.into_iter().map(Into::into));
        all
    }
}

/// bubblewrap once more, within the harness's sandbox. /proc stays that of the outer one, because not every
/// kernel lets an inner namespace mount its own; the harness has closed what it shows there.
fn bubblewrap_words(readable: &[PathBuf]) -> Vec<OsString> {
    let mut all = words(["bwrap", "--unshare-all", "--die-with-parent"]);
    for folder in readable {
        all.extend(["--ro-bind".into(), folder.into(), folder.into()]);
    }
    all.extend(words(["--ro-bind", "/proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]));
    all.extend(words(["--bind", "{tmp}", "/tmp"]));
    all.extend(words(["--ro-bind", "/harness", "/harness"]));
    all.extend(words(["--ro-bind", "{program}", "{program}", "--bind", "{folder}", "{folder}"]));
    all.extend(words(["--remount-ro", "/", "--chdir", "{folder}"]));
    all
}

fn program_name(scenario: &Scenario) -> String {
    format!("program.{}", scenario.meta.language.suffix())
}

/// Only a harness that ended by itself has a say.
fn verdict_of(scenario: &Scenario, outcome: &Outcome) -> Verdict {
    match outcome.ending {
        Ending::Exited(0) => from_records(&scenario.meta, &outcome.stdout),
        ending => {
            let said = String::from_utf8_lossy(&outcome.stderr);
            let last = said.lines().last().unwrap_or_default();
            Verdict::unknown(format!("the harness ended with {ending:?}: {last}"))
        }
    }
}

fn readable() -> std::fs::Permissions {
    std::fs::Permissions::from_mode(0o755)
}

/// Writes files to a new folder, where the sandbox's user can read them.
fn write_files(to: &Path, files: &[(String, Content)]) -> Result<()> {
    let complain = || format!("cannot write {}", to.display());
    std::fs::create_dir(to).kind(ErrorKind::Device, complain)?;
    for (name, content) in files {
        let (path, bytes) = (to.join(name), content.read()?);
        let written =
            std::fs::create_dir_all(crate::files::parent(&path)).and_then(|()| std::fs::write(&path, bytes));
        written.kind(ErrorKind::Device, complain)?;
    }
    open_to_all(to).kind(ErrorKind::Device, complain)
}

/// Lets everybody read a folder, whatever the umask is.
fn open_to_all(folder: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(folder, readable())?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_all(&entry.path())?;
        } else {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}
