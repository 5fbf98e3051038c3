//! The words of commands: what stands before a program, and where programs are found.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Job;
use crate::error::{Error, Result};

/// Folders of the system that programs need, where they exist.
const SYSTEM: [&str; 7] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"];

/// Where programs are looked for inside.
pub(super) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What programs find in their environment.
pub(super) const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", SEARCH_PATH),
    ("LANG", "C.UTF-8"),
    ("HOME", "/nonexistent"),
    // Thread pools as wide as the machine would run into the limit of processes.
    ("OPENBLAS_NUM_THREADS", "1"),
];

/// bubblewrap's words up to the program.
pub(super) fn namespaces(job: &Job) -> Vec<OsString> {
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

/// Folders of the system that this machine has.
pub fn system_folders() -> impl Iterator<Item = &'static str> {
    SYSTEM.into_iter().filter(|folder| Path::new(folder).exists())
}

/// Words of a command.
pub fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}

/// Finds a program in PATH.
pub(super) fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::device(format!(
            "there is no `{name}` in PATH; generated code is only run in a sandbox, which needs it: install the package \
             {package}"
        ))
    })
}

/// What a program says of its version, in one line.
pub(super) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
