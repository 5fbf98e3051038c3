//! Memory that a control group limits.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Running;
use super::required::not_tested;
use super::tiny::Tiny;

/// Bytes of the group, and what a message says of them.
const LIMIT: u64 = 256 << 20;

/// A control group of this process's own, removed when dropped.
struct Group {
    dir: PathBuf,
}

impl Group {
    /// A group below the one that this process is in; `None` where none can be made.
    fn new() -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let of = |controller: &str| {
            groups.lines().find_map(|line| line.split_once(controller)).map(|(_, path)| path)
        };
        let candidates = [
            of(":memory:").map(|path| ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")),
            of("0::").map(|path| ("/sys/fs/cgroup", path, "memory.max")),
        ];
        candidates.into_iter().flatten().find_map(|(mount, path, limit)| {
            let mount = Path::new(mount);
            // In a container the path may be that of the host. A group of version 2 that has processes gives
            // its children no limit of memory, unless it is the outermost one.
            let parents = [mount.join(path.trim_start_matches('/')), mount.to_owned()];
            parents.iter().find_map(|parent| Self::limited(parent, limit))
        })
    }

    /// A group in `parent` whose memory is limited.
    fn limited(parent: &Path, limit: &str) -> Option<Self> {
        let dir = parent.join(format!("deepguard-test-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let group = Group { dir };
        std::fs::write(group.dir.join(limit), LIMIT.to_string()).is_ok().then_some(group)
    }

    /// Runs `dg-run` in it, after other commands: its exit code, standard output and error.
    fn run(&self, tiny: &Tiny, before: &str, arguments: &str) -> (i32, String, String) {
        let enter = format!("echo $$ >{}/cgroup.procs && {before}", self.dir.display());
        let script = format!("{enter}; exec \"$DG_RUN\" {arguments} >out");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("DG_RUN", env!("CARGO_BIN_EXE_dg-run"));
        let mut running = Running::spawn(tiny, command);
        let code = running.exit_code();
        let stdout = std::fs::read_to_string(tiny.path("out")).unwrap();
        (code, stdout, running.stderr().to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be at work on the end of the last process.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn what_a_control_group_has_no_room_for_is_refused() {
    let tiny = Tiny::new("llama");
    let Some(group) = Group::new() else {
        not_tested("no control group can be made here");
        return;
    };
    let (code, info, stderr) = group.run(&tiny, ":", "info");
    assert_eq!(code, 0, "{stderr}");
    let limit = info.lines().find(|line| line.starts_with("memory limit: 0.25 GiB")).expect(&info);
    assert!(limit.contains("deepguard-test-"), "{limit}");
    let (_, info, _) = group.run(&tiny, ":", "info --json");
    let memory = &serde_json::from_str::<serde_json::Value>(&info).unwrap()["system"]["memory"];
    assert_eq!(memory["limit"]["bytes"], LIMIT);
    let left = LIMIT - memory["limit"]["used"].as_u64().unwrap();
    assert_eq!(memory["available"], left);

    // A cache of some gigabytes: the kernel would end the process in the middle.
    let large = "--ignore-eos --max-new-tokens 2000 --num-samples 4000 --temperature 1 ab";
    let (code, _, stderr) = group.run(&tiny, ":", &format!("generate --model model {large}"));
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("MiB of memory are needed") && stderr.contains("--num-samples"), "{stderr}");

    // The page cache fills a group, and is given up where something else needs the room.
    File::create(tiny.path("large")).unwrap().set_len(LIMIT).unwrap();
    let (code, info, stderr) = group.run(&tiny, "cat large >/dev/null", "info --json");
    assert_eq!(code, 0, "{stderr}");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(info["system"]["memory"]["available"].as_u64().unwrap() > LIMIT / 2, "{info}");
}
