//! Folders that are being written under a temporary name. They go when their value is dropped, and also when
//! the process is told to end in the middle: a merged model would leave gigabytes behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::platform::permit;

/// Beginning of the names of folders and files that are being written.
pub(super) const TEMPORARY: &str = ".deepguard-tmp-";

/// Tries to remove a folder.
const TRIES: usize = 5;

/// Folders that are unfinished now.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary folder.
pub(super) struct UnfinishedDir {
    dir: TempDir,
    // Dropped after the folder, in the order of the fields: it is known until it has gone.
    _known: Known,
}

/// A folder's entry in [`UNFINISHED`], taken out when dropped.
struct Known(PathBuf);

impl UnfinishedDir {
    /// Makes a folder in `parent`, with the permissions that the user's umask gives.
    pub fn create_in(parent: &Path) -> io::Result<Self> {
        let mut there = unfinished();
        let dir = ordinary(0o777).tempdir_in(parent)?;
        there.push(dir.path().to_owned());
        Ok(UnfinishedDir { _known: Known(dir.path().to_owned()), dir })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Moves the finished folder to its place by `rename`. [`abandon`] comes before it or after it: what has
    /// been begun to be removed never gets a name.
    pub fn finish(&self, rename: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let _held = unfinished();
        rename(self.path())
    }
}

/// Temporary files and folders are private by default; what is kept gets the permissions that the user's
/// umask gives.
pub(super) fn ordinary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    permit(&mut builder, mode);
    builder
}

impl Drop for Known {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
}

/// Removes all that are there, as far as that is possible, before a process ends. From then on none can be
/// made, nor moved to its place.
pub fn abandon() {
    let there = unfinished();
    // A file that is made meanwhile is in the way of the first try.
    for path in there.iter() {
        let _ = (0..TRIES).find(|_| std::fs::remove_dir_all(path).is_ok());
    }
    std::mem::forget(there);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_as_long_as_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let dir = UnfinishedDir::create_in(root.path()).unwrap();
        let path = dir.path().to_owned();
        std::fs::write(path.join("file"), "half").unwrap();
        assert!(unfinished().contains(&path));
        drop(dir);
        assert!(!unfinished().contains(&path) && !path.exists());
    }
}
