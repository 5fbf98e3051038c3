//! Files that are written whole or not at all.

mod unfinished;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde::Serialize;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::platform::{exchange, free_bytes, is_mount_point, may_add_to, sync};
pub use unfinished::abandon;
use unfinished::{TEMPORARY, UnfinishedDir, ordinary};

/// Beginning of the name of a folder that is being replaced; its own name follows.
const REPLACED: &str = ".deepguard-old-";

/// Writes a folder through `write`, which gets a temporary one beside it: `dir` holds all of it or is left as
/// it was, also when the power fails. An existing `dir` is replaced.
pub fn write_dir(dir: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let complain = || format!("cannot write {}", dir.display());
    let parent = parent(dir);
    create_dirs(parent).kind(ErrorKind::Device, complain)?;
    let temporary = UnfinishedDir::create_in(parent).kind(ErrorKind::Device, complain)?;
    write(temporary.path())?;
    sync_files(temporary.path()).kind(ErrorKind::Device, complain)?;
    let renamed = temporary.finish(|new| match dir.symlink_metadata() {
        Ok(_) => replace(new, dir),
        Err(_) => std::fs::rename(new, dir),
    });
    // What is left under the temporary name, if anything, is what was replaced: it goes when `temporary`
    // does.
    renamed.and_then(|()| sync(parent)).kind(ErrorKind::Device, complain)
}

/// As [`write_dir`], into a folder that is new or empty. One that cannot be replaced, as something is mounted
/// there or it is the working folder, is filled: what is written is moved into it at the end, the file `last`
/// after all others.
///
/// # Errors
/// Kind `Usage` if there is something in `dir`, or in its place.
pub fn write_vacant_dir(dir: &Path, last: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    require_vacant(dir)?;
    let complain = || format!("cannot write {}", dir.display());
    let Ok(there) = dir.metadata() else { return write_dir(dir, write) };
    if can_be_replaced(dir) {
        return write_dir(dir, |new| {
            write(new)?;
            std::fs::set_permissions(new, there.permissions()).kind(ErrorKind::Device, complain)
        });
    }
    let temporary = UnfinishedDir::create_in(dir).kind(ErrorKind::Device, complain)?;
    write(temporary.path())?;
    sync_files(temporary.path()).kind(ErrorKind::Device, complain)?;
    let moved = temporary.finish(|new| move_files(new, dir, last));
    moved.and_then(|()| sync(dir)).kind(ErrorKind::Device, complain)
}

/// Refuses to write a folder where something is.
///
/// # Errors
/// Kind `Usage`.
pub fn require_vacant(dir: &Path) -> Result<()> {
    let found = match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            Some(Ok(entry)) => format!("`{}` in it", entry.file_name().display()),
            Some(Err(error)) => error.to_string(),
            None => return Ok(()),
        },
        Err(_) if dir.symlink_metadata().is_err() => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(Error::usage(format!(
        "{}: expected a folder that is new or empty, found {found}; choose another folder, or empty this one",
        dir.display()
    )))
}

/// Whether another folder beside `dir`, which is there, can take its name. The working folder, whatever it is
/// called, would be gone for the shell that stands in it.
fn can_be_replaced(dir: &Path) -> bool {
    let is_working = || Some(std::env::current_dir().ok()?.canonicalize().ok()? == dir.canonicalize().ok()?);
    let can_move = dir.file_name().is_some() && is_working() != Some(true);
    can_move && !dir.is_symlink() && !is_mount_point(dir) && may_add_to(parent(dir))
}

/// Moves all files of `from` to `to`, that of the name `last` after the others.
fn move_files(from: &Path, to: &Path, last: &str) -> std::io::Result<()> {
    let names = std::fs::read_dir(from)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| name == last);
    names.iter().try_for_each(|name| std::fs::rename(from.join(name), to.join(name)))
}

/// Makes a folder, and those above it, which are then there after a power failure as well.
pub fn create_dirs(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent(dir);
    create_dirs(parent)?;
    match std::fs::create_dir(dir) {
        Err(_) if dir.is_dir() => {} // somebody else has made it
        created => created?,
    }
    sync(parent)
}

/// Removes a folder, which is there with all that is in it or not at all.
pub fn remove_dir(dir: &Path) -> Result<()> {
    let complain = || format!("cannot remove {}", dir.display());
    let aside = ordinary(0o777).tempdir_in(parent(dir)).kind(ErrorKind::Device, complain)?;
    std::fs::rename(dir, aside.path().join("removed")).kind(ErrorKind::Device, complain)?;
    aside.close().kind(ErrorKind::Device, complain)
}

/// Writes a file, which holds all of `bytes` or is left as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let complain = || format!("cannot write {}", path.display());
    let mut temporary = ordinary(0o666).tempfile_in(parent(path)).kind(ErrorKind::Device, complain)?;
    temporary.write_all(bytes).kind(ErrorKind::Device, complain)?;
    temporary.as_file().sync_all().kind(ErrorKind::Device, complain)?;
    temporary.persist(path).kind(ErrorKind::Device, complain)?;
    Ok(())
}

/// Removes from `dir` what a process that was killed has left of the above. None may be at work there.
pub fn clean(dir: &Path) -> Result<()> {
    let complain = || format!("cannot clean up {}", dir.display());
    for entry in std::fs::read_dir(dir).kind(ErrorKind::Device, complain)? {
        let entry = entry.kind(ErrorKind::Device, complain)?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let whole = name.strip_prefix(REPLACED).map(|name| dir.join(name));
        let cleaned = match whole {
            // The old folder was moved aside, and the new one has not come.
            Some(whole) if whole.symlink_metadata().is_err() => std::fs::rename(&path, whole),
            Some(_) => std::fs::remove_dir_all(&path),
            None if !name.starts_with(TEMPORARY) => Ok(()),
            None if path.is_dir() => std::fs::remove_dir_all(&path),
            None => std::fs::remove_file(&path),
        };
        cleaned.kind(ErrorKind::Device, complain)?;
    }
    Ok(())
}

/// Refuses to begin what will not fit: `path` is about to be written and will take about `needed` bytes.
pub fn require_space(path: &Path, needed: u64) -> Result<()> {
    // Folders that are not there yet will be made on the disk of the one above.
    let there = path.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    match free_bytes(there) {
        Some(free) if free < needed => Err(Error::device(format!(
            "cannot write {}: expected {:.2} MiB of free disk space, found {:.2}",
            path.display(),
            mib(needed),
            mib(free)
        ))),
        _ => Ok(()),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The folder that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts the folder `new` in the place of `dir`. Both are beside each other.
fn replace(new: &Path, dir: &Path) -> std::io::Result<()> {
    if exchange(new, dir)? { Ok(()) } else { replace_in_two(new, dir) }
}

/// [`replace`] for file systems that cannot exchange names, such as NFS: between the two renames there is no
/// `dir`, which [`clean`] makes good.
fn replace_in_two(new: &Path, dir: &Path) -> std::io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let old = dir.with_file_name(format!("{REPLACED}{name}"));
    if old.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&old)?;
    }
    std::fs::rename(dir, &old)?;
    std::fs::rename(new, dir)?;
    sync(parent(dir))?;
    std::fs::remove_dir_all(old)
}

/// Flushes the files of a flat folder, and the folder, to the disk.
fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        sync(&entry?.path())?;
    }
    sync(dir)
}

/// Writes a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = json_text(value).map_err(|e| e.context(path.display()))?;
    write_file(path, text.as_bytes())
}

/// A value as indented JSON, with an end of line.
pub fn json_text(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.kind(ErrorKind::Internal, || "cannot write JSON".into())? + "\n")
}

/// A tensor to be written.
pub struct OwnedTensor {
    /// Element type of the tensor.
    pub dtype: Dtype,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Elements of the tensor, little-endian.
    pub bytes: Vec<u8>,
}

impl OwnedTensor {
    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        OwnedTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes: bytemuck::cast_slice(values).to_vec() }
    }
}

/// A named f32 tensor of finite numbers.
///
/// # Errors
/// Kind `Data` for any other: nothing of the kind is ever saved.
pub fn finite_tensor(name: &str, shape: &[usize], values: &[f32]) -> Result<(String, OwnedTensor)> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok((name.to_owned(), OwnedTensor::f32(shape, values))),
        Some(at) => Err(Error::data(format!(
            "element {at} of {name} is {}, not a finite number, and is not saved; lower `learning_rate` or \
             `max_grad_norm`, or look for damaged weights. What was saved before is intact",
            values[at]
        ))),
    }
}

impl View for &OwnedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors in the layout of PyTorch's users (`format = pt`).
pub fn write_safetensors(path: &Path, tensors: &[(String, OwnedTensor)]) -> Result<()> {
    write_tensors(path, tensors.iter().map(|(name, tensor)| (name, tensor)))
}

/// As [`write_safetensors`], of tensors that are made when they are written.
pub fn write_tensors<V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (impl AsRef<str> + Ord + Display, V)>,
) -> Result<()> {
    let complain = || format!("cannot write {}", path.display());
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // The library's file is private; it gets the permissions of any other.
    let created = File::create(path).and_then(|file| file.metadata()).kind(ErrorKind::Device, complain)?;
    safetensors::serialize_to_file(tensors, Some(metadata), path).kind(ErrorKind::Device, complain)?;
    std::fs::set_permissions(path, created.permissions()).kind(ErrorKind::Device, complain)
}

/// Copies a file's content into a new file, whose permissions are those of any other.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let copied = File::open(from).and_then(|mut from| std::io::copy(&mut from, &mut File::create(to)?));
    let complain = || format!("cannot copy {} to {}", from.display(), to.display());
    copied.map(drop).kind(ErrorKind::Device, complain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(dir: &Path, content: &str) -> Result<()> {
        crate::manifest::commit_dir(dir, |dir| write_file(&dir.join("file"), content.as_bytes()))
    }

    #[test]
    fn a_folder_is_replaced_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("folder");
        let content = || std::fs::read_to_string(dir.join("file")).unwrap();
        for text in ["first", "second"] {
            write(&dir, text).unwrap();
            assert_eq!((content().as_str(), names(root.path())), (text, vec!["folder".to_owned()]));
        }
        let failed = write_dir(&dir, |new| {
            std::fs::write(new.join("other"), "half").unwrap();
            Err(Error::device("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!((content().as_str(), names(root.path())), ("second", vec!["folder".to_owned()]));
        assert_eq!(names(&dir), ["file", "manifest.json"]);
        remove_dir(&dir).unwrap();
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn a_folder_is_replaced_where_names_cannot_be_exchanged() {
        let root = tempfile::tempdir().unwrap();
        let (new, dir) = (root.path().join("new"), root.path().join("folder"));
        write(&dir, "first").unwrap();
        write(&new, "second").unwrap();
        // As left by a process that was killed at the last step.
        std::fs::create_dir(root.path().join(".deepguard-old-folder")).unwrap();
        replace_in_two(&new, &dir).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "second");
        assert_eq!(names(root.path()), ["folder"]);
    }

    #[test]
    fn what_killed_processes_leave_is_cleaned_up() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in [".deepguard-tmp-abc", ".deepguard-old-kept", ".deepguard-old-lost", "kept", ".other"] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("file"), name).unwrap();
        }
        std::fs::write(path(".deepguard-tmp-file"), "").unwrap();
        clean(root.path()).unwrap();
        assert_eq!(names(root.path()), [".other", "kept", "lost"]);
        assert_eq!(std::fs::read_to_string(path("kept/file")).unwrap(), "kept");
        assert_eq!(std::fs::read_to_string(path("lost/file")).unwrap(), ".deepguard-old-lost");
    }
}
