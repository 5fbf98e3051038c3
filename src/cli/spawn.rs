//! `--nproc`: this program again, once for each rank, on this machine.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::ranks::Nproc;
use super::signals::{Signal, Signals};
use crate::cuda::devices;
use crate::dist::launch::{Launch, Launcher, RENDEZVOUS_VARIABLE};
use crate::error::{Context, Error, ErrorKind};

/// Between two looks at the ranks.
const LOOK: Duration = Duration::from_millis(10);

/// Whose success is that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// That of every rank.
    OfEach,
    /// That of rank 0, which may have gone on without others.
    OfFirst,
}

/// Starts the ranks, waits for all of them, and ends with their exit code unless that is 0.
pub(super) fn run(nproc: Nproc, launch: &Launch, signals: &Signals, success: Success) -> Result<()> {
    match exit_code(nproc, launch, signals, success)? {
        0 => Ok(()),
        // The ranks have said why.
        code => std::process::exit(code.into()),
    }
}

/// Signals are passed on to the ranks, and their exit code is the result: the first that is neither 0 nor
/// that of a rank which has only lost another one, if there is one.
fn exit_code(nproc: Nproc, launch: &Launch, signals: &Signals, success: Success) -> Result<u8> {
    if launch.launcher != Launcher::Single {
        return Err(Error::usage(format!(
            "--nproc: this process is rank {} of {} already, by {}; leave --nproc out, or give --dist none to whatever \
             starts it",
            launch.rank, launch.world, launch.launcher
        ))
        .into());
    }
    let ranks = match nproc {
        Nproc::Number(ranks) => ranks,
        Nproc::Auto => one_for_each_gpu()?,
    };
    // A signal from here on is passed on.
    signals.request();
    let folder = tempfile::tempdir().kind(ErrorKind::Device, || "--nproc: a folder to meet in".into())?;
    let rendezvous = format!("file:{}", folder.path().display());
    let mut children = Children(Vec::new());
    for rank in 0..ranks {
        let child = start(rank, ranks, &rendezvous);
        children.0.push(child.kind(ErrorKind::Device, || format!("--nproc: cannot start rank {rank}"))?);
    }
    Ok(of_all(&children.wait(signals), success))
}

fn one_for_each_gpu() -> Result<usize> {
    let advice = "; give the number of ranks";
    match devices() {
        Ok(devices) if !devices.is_empty() => Ok(devices.len()),
        Ok(_) => {
            Err(Error::usage(format!("--nproc auto: one rank for each GPU, and there is none{advice}"))
                .into())
        }
        Err(error) => {
            Err(Error::usage(format!("--nproc auto: one rank for each GPU: {error}{advice}")).into())
        }
    }
}

fn start(rank: usize, ranks: usize, rendezvous: &str) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    // A terminal belongs to the processes in front, of whom a rank is none.
    let is_first = rank == 0;
    let [rank, ranks] = [rank, ranks].map(|number| number.to_string());
    command
        .args(without_nproc(std::env::args_os().skip(1)))
        .envs([("RANK", &rank), ("LOCAL_RANK", &rank), ("WORLD_SIZE", &ranks), ("LOCAL_WORLD_SIZE", &ranks)])
        .env(RENDEZVOUS_VARIABLE, rendezvous)
        .stdin(if is_first && !std::io::stdin().is_terminal() { Stdio::inherit() } else { Stdio::null() });
    #[cfg(unix)]
    tie(&mut command);
    command.spawn()
}

/// A rank gets signals from this process alone, and one when this process is gone.
#[cfg(unix)]
fn tie(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // What a terminal sends to all processes of a command, each rank would otherwise get twice.
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe {
        use rustix::process::{Signal as Number, set_parent_process_death_signal};
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Number::TERM))?));
    }
}

/// The arguments of a rank.
fn without_nproc(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut skips, mut flags_end) = (Vec::new(), false, false);
    for argument in arguments {
        flags_end |= argument == "--";
        if std::mem::take(&mut skips) {
            continue;
        }
        match argument.to_str().filter(|_| !flags_end) {
            Some("--nproc") => skips = true,
            Some(text) if text.starts_with("--nproc=") => {}
            _ => kept.push(argument),
        }
    }
    kept
}

/// The ranks.
struct Children(Vec<Child>);

impl Children {
    /// The exit codes of all.
    fn wait(&mut self, signals: &Signals) -> Vec<u8> {
        let mut ended: Vec<Option<ExitStatus>> = vec![None; self.0.len()];
        while ended.iter().any(Option::is_none) {
            for (child, ended) in self.0.iter_mut().zip(&mut ended) {
                if ended.is_none() {
                    *ended = child.try_wait().ok().flatten();
                }
            }
            if let Some(signal) = signals.take() {
                self.signal(signal);
                signals.request();
            }
            std::thread::sleep(LOOK);
        }
        ended.into_iter().flatten().map(code).collect()
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) {
        use rustix::process::{Pid, Signal as Number, kill_process};
        let number = if signal.name() == "SIGINT" { Number::INT } else { Number::TERM };
        for child in &self.0 {
            if let Some(pid) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process(pid, number);
            }
        }
    }

    #[cfg(not(unix))]
    fn signal(&self, _: Signal) {}
}

/// Ranks that were started before one could not be.
impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The exit code of a process, as shells tell it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal as u8;
    }
    status.code().map_or(1, |code| code as u8)
}

/// The exit code of all: a rank's own failure, else the loss of another rank, else 0.
fn of_all(codes: &[u8], success: Success) -> u8 {
    let lost = ErrorKind::Cluster.exit_code();
    if success == Success::OfFirst && codes.first() == Some(&0) {
        return 0;
    }
    let own = codes.iter().find(|code| **code != 0 && **code != lost);
    own.or_else(|| codes.iter().find(|code| **code != 0)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_do_not_start_ranks() {
        for (given, kept) in [
            ("dist check --nproc 2 --seconds 3", "dist check --seconds 3"),
            ("dist --nproc=auto check", "dist check"),
            ("a -- --nproc 2", "a -- --nproc 2"),
        ] {
            let words = given.split(' ').map(OsString::from);
            assert_eq!(without_nproc(words).join(std::ffi::OsStr::new(" ")), kept);
        }
    }

    #[test]
    fn the_cause_is_the_exit_code() {
        for (codes, expected) in
            [(&[0, 0][..], 0), (&[6, 5, 6], 5), (&[6, 6], 6), (&[0, 6, 137], 137), (&[75, 75], 75), (&[], 0)]
        {
            assert_eq!(of_all(codes, Success::OfEach), expected, "{codes:?}");
        }
        for (codes, expected) in [(&[0, 6, 137][..], 0), (&[6, 5, 0], 5), (&[7, 137, 137], 7), (&[75, 0], 75)]
        {
            assert_eq!(of_all(codes, Success::OfFirst), expected, "{codes:?}");
        }
    }
}
