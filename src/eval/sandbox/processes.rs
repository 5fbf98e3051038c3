//! Processes below a sandbox: their end, their memory, their output.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::Ending;
use crate::error::{Context, ErrorKind, Result};

/// How often processes that were left behind are looked for, until there are none.
const ROUNDS: u32 = 400;

/// How often it is asked whether the program has ended.
const TICK: Duration = Duration::from_millis(5);

/// How often memory is looked at.
const MEMORY_TICK: Duration = Duration::from_millis(50);

/// Kills processes until none is found, some rounds long: each may have started others meanwhile.
pub(super) fn kill_all(find: impl Fn() -> Vec<u32>) {
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

/// Processes of a user.
pub(super) fn processes_of(user: u32) -> Vec<u32> {
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

/// Reads a pipe on a thread of its own, up to one byte more than the limit. Whoever writes more gets SIGPIPE.
pub(super) fn kept(mut pipe: impl Read + Send + 'static, limit: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has ended, and nobody may be waiting any more.
        let _ = pipe.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Processes and threads of the user who runs this.
pub(super) fn tasks_of_this_user() -> u32 {
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
pub(super) fn wait(child: &mut Child, deadline: Instant, memory: u64) -> Result<Ending> {
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
