//! The folder of a run, held by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

pub use crate::adapter::FINAL_ADAPTER;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::{files, platform};

const LOCK: &str = "run.lock";

/// A run folder that this process holds until the value is dropped. The operating system lets go of it when
/// the process ends, however it ends.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Open, and so locked.
    _lock: File,
    created: bool,
}

impl RunFolder {
    /// Takes a folder, which is made if there is none, and removes what a killed run has left half written in
    /// it.
    ///
    /// # Errors
    /// Kind `Usage` if another process, or another value, holds it.
    pub fn open(path: &Path) -> Result<Self> {
        let complain = || format!("cannot use {} as a run folder", path.display());
        let created = !path.exists();
        let lock = loop {
            files::create_dirs(path).kind(ErrorKind::Device, complain)?;
            if let Some(lock) = lock(path)? {
                break lock;
            }
        };
        let folder = RunFolder { path: path.to_owned(), _lock: lock, created };
        files::clean(path)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    /// The name goes while the lock is still held. Whoever has opened the file by then will see that it has
    /// no name.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path.join(LOCK));
        if self.created {
            let _ = std::fs::remove_dir(&self.path); // only if nothing is in it
        }
    }
}

/// The locked file; `None` if it is not the file of that name any more, because its holder has just finished.
fn lock(run: &Path) -> Result<Option<File>> {
    let path = run.join(LOCK);
    let complain = || format!("cannot lock {}", path.display());
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = match opened {
        // The folder has just gone with its holder.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.kind(ErrorKind::Device, complain)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(run, &mut file)),
        Err(TryLockError::Error(e)) => {
            let advice = "choose an `output_dir` on a file system with locks";
            return Err(Error::device(complain()).with_source(e).advice(advice));
        }
    }
    if !platform::is_name_of(&path, &file).kind(ErrorKind::Device, complain)? {
        return Ok(None);
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", holder())).kind(ErrorKind::Device, complain)?;
    Ok(Some(file))
}

/// This process, for whoever finds the folder taken.
fn holder() -> String {
    format!("process {} on {}", std::process::id(), platform::host_name())
}

fn held(run: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let read = file.take(200).read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process",
        holder if read.is_ok() => holder,
        _ => "another process",
    };
    Error::usage(format!(
        "{}: expected a run folder of its own, found {holder} at work in it; wait for it, or choose another `output_dir`",
        run.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let first = RunFolder::open(&path).unwrap();
        let error = RunFolder::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let process = format!("process {} on ", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        drop(first);
        assert!(!path.exists(), "an empty folder is not left");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(".deepguard-tmp-x"), "").unwrap();
        drop(RunFolder::open(&path).unwrap());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        assert!(path.exists(), "a folder that was there is left");
    }

    #[test]
    fn holders_that_come_and_go_never_meet() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let (inside, held) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(folder) = RunFolder::open(&path) else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        held.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(folder);
                    }
                });
            }
        });
        assert!(held.into_inner() > 0);
    }
}
