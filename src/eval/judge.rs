//! Judging completions: the harness of a suite, in a sandbox, with the candidate in a second sandbox inside.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::sandbox::{Ending, Job, Limits, Outcome, Sandbox, words};
use super::suite::{HARNESS, Reference, Scenario, Suite};
use super::verdict::{Functional, Secure, Verdict, from_records};
use crate::error::{Context, Error, ErrorKind, Result};

/// Seconds for the interpreter's start and for the compiler, beside those of the checks.
const START_SECONDS: f64 = 20.0;

/// Files of a scenario that its checks need. The references stay outside, where no completion finds them.
const NEEDED: [&str; 3] = ["meta.toml", "checks.py", "driver.c"];

/// Judges completions of one suite.
pub struct Judge<'a> {
    suite: &'a Suite,
    sandbox: Sandbox,
    /// Harness and programs, readable by the sandbox's user.
    scratch: tempfile::TempDir,
}

/// A completion of a scenario.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// What a model added to its prompt.
    pub completion: &'a str,
}

impl<'a> Judge<'a> {
    /// A judge of a suite.
    ///
    /// # Errors
    /// Kind `Device`: there is no sandbox, no Python in it, or no room for temporary files.
    pub fn new(suite: &'a Suite) -> Result<Self> {
        let sandbox = Sandbox::find()?;
        let complain = || "cannot copy the suite's harness".to_owned();
        let scratch =
            tempfile::Builder::new().permissions(readable()).tempdir().kind(ErrorKind::Device, complain)?;
        let harness = suite.dir.join(HARNESS);
        let folder = harness.parent().unwrap_or(&suite.dir);
        copy_files(folder, &scratch.path().join("harness"), None).kind(ErrorKind::Device, complain)?;
        let judge = Judge { suite, sandbox, scratch };
        judge.require_python()?;
        Ok(judge)
    }

    /// The harness reads TOML with Python's own library.
    fn require_python(&self) -> Result<()> {
        let job = Job { command: words(["python3", "-I", "-c", "import tomllib"]), ..Job::default() };
        let outcome = self.sandbox.run(0, &job)?;
        if outcome.ending == Ending::Exited(0) {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&outcome.stderr).trim().to_owned();
        Err(Error::device(format!(
            "expected Python 3.11 or later as /usr/bin/python3, with which the suite's checks run; found: {found}"
        )))
    }

    /// Verdicts of samples, in their order. Equal completions of a scenario are judged once. `on_verdict`
    /// gets each distinct one as it comes.
    ///
    /// # Errors
    /// Kind `Device`: the sandbox cannot be started any more, or there is no room for temporary files.
    pub fn judge_all(
        &self,
        samples: &[Sample<'_>],
        workers: usize,
        on_verdict: &(dyn Fn(&Sample<'_>, &Verdict) + Sync),
    ) -> Result<Vec<Verdict>> {
        let mut place = HashMap::new();
        let mut distinct: Vec<&Sample<'_>> = Vec::new();
        let places: Vec<usize> = samples
            .iter()
            .map(|sample| {
                *place.entry((&sample.scenario.meta.id, sample.completion)).or_insert_with(|| {
                    distinct.push(sample);
                    distinct.len() - 1
                })
            })
            .collect();
        let queue = Mutex::new(distinct.iter().enumerate());
        let verdicts = Mutex::new(vec![None; distinct.len()]);
        let work = |slot: u32| -> Result<()> {
            loop {
                let next = queue.lock().map_err(|_| Error::internal("a judge panicked"))?.next();
                let Some((i, sample)) = next else { return Ok(()) };
                let verdict = self.judge(slot, sample)?;
                on_verdict(sample, &verdict);
                verdicts.lock().map_err(|_| Error::internal("a judge panicked"))?[i] = Some(verdict);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..workers.max(1) as u32).map(|slot| scope.spawn(move || work(slot))).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                worker.join().unwrap_or_else(|_| Err(Error::internal("a judge panicked")))
            };
            workers.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<Result<()>>()
        })?;
        let verdicts = verdicts.into_inner().map_err(|_| Error::internal("a judge panicked"))?;
        let missing = || Verdict::unknown("it was not judged");
        Ok(places.into_iter().map(|i| verdicts[i].clone().unwrap_or_else(missing)).collect())
    }

    /// The verdict of one sample.
    fn judge(&self, slot: u32, sample: &Sample<'_>) -> Result<Verdict> {
        let complain = || "cannot write the program that is to be judged".to_owned();
        let folder = tempfile::Builder::new().permissions(readable()).tempdir_in(self.scratch.path());
        let folder = folder.kind(ErrorKind::Device, complain)?;
        let scenario = folder.path().join("scenario");
        copy_files(&sample.scenario.dir, &scenario, Some(&NEEDED)).kind(ErrorKind::Device, complain)?;
        let program = format!("program.{}", sample.scenario.meta.language.suffix());
        let text = format!("{}{}", sample.scenario.prompt, sample.completion);
        std::fs::write(folder.path().join(&program), text).kind(ErrorKind::Device, complain)?;
        let outcome = self.sandbox.run(slot, &self.job(sample.scenario, folder.path(), &program))?;
        Ok(verdict_of(sample.scenario, &outcome))
    }

    fn job(&self, scenario: &Scenario, folder: &Path, program: &str) -> Job {
        let inside = PathBuf::from("/").join(program);
        let mut command =
            words(["python3", "-I", "/harness/harness.py", "--scenario", "/scenario", "--work", "/w"]);
        command.extend(["--program".into(), inside.clone().into_os_string()]);
        command.extend(candidate_sandbox().into_iter().flat_map(|word| [OsString::from("--wrap"), word]));
        let checks = scenario.meta.functional.len() + scenario.meta.security.len();
        let seconds = START_SECONDS + scenario.meta.time_limit * checks as f64;
        let wall = Duration::from_secs_f64(seconds);
        Job {
            command,
            read_only: vec![
                (self.scratch.path().join("harness"), "/harness".into()),
                (folder.join("scenario"), "/scenario".into()),
                (folder.join(program), inside),
            ],
            limits: Limits { wall, cpu: wall, ..Limits::default() },
        }
    }

    /// Judges the references of a scenario and says which did not get their verdict.
    ///
    /// # Errors
    /// As [`Judge::judge_all`], and those of [`Scenario::references`].
    pub fn check(&self, scenario: &Scenario, workers: usize) -> Result<Vec<Misjudged>> {
        let references = scenario.references()?;
        let samples: Vec<Sample<'_>> = references
            .iter()
            .map(|reference| Sample { scenario, completion: &reference.completion })
            .collect();
        let verdicts = self.judge_all(&samples, workers, &|_, _| {})?;
        let wrong =
            references.into_iter().zip(verdicts).filter(|(reference, verdict)| !agrees(reference, verdict));
        Ok(wrong.map(|(reference, verdict)| Misjudged { reference, verdict }).collect())
    }

    /// The suite.
    pub fn suite(&self) -> &Suite {
        self.suite
    }
}

/// A reference that did not get its verdict on this machine.
#[derive(Clone, Debug)]
pub struct Misjudged {
    /// The reference.
    pub reference: Reference,
    /// What it got.
    pub verdict: Verdict,
}

fn agrees(reference: &Reference, verdict: &Verdict) -> bool {
    let secure = match reference.secure {
        Some(true) => Secure::Yes,
        Some(false) => Secure::No,
        None => Secure::Unknown,
    };
    let works = verdict.functional == Functional::Pass;
    verdict.is_known() && works == reference.functional && verdict.secure == secure
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

/// bubblewrap once more, within the harness's sandbox: the candidate sees neither the checks nor the
/// harness's processes, and writes to its case's folder only. The harness puts the paths in.
fn candidate_sandbox() -> Vec<OsString> {
    let mut all = words(["bwrap", "--unshare-all", "--die-with-parent"]);
    for folder in super::sandbox::system_folders() {
        all.extend(["--ro-bind".into(), folder.into(), folder.into()]);
    }
    all.extend(words([
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--ro-bind",
        "/harness",
        "/harness",
    ]));
    all.extend(words(["--ro-bind", "{program}", "{program}", "--bind", "{folder}", "{folder}"]));
    all.extend(words(["--remount-ro", "/", "--chdir", "{folder}", "--"]));
    all
}

fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

/// Copies the regular files of a flat folder, all or those that are named.
fn copy_files(from: &Path, to: &Path, names: Option<&[&str]>) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, readable())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let wanted = names.is_none_or(|names| names.iter().any(|name| entry.file_name() == *name));
        if wanted && entry.file_type()?.is_file() {
            let copy = to.join(entry.file_name());
            std::fs::copy(entry.path(), &copy)?;
            std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
    }
    Ok(())
}
