//! Files of JSON lines that only grow. What was written is kept whatever ends the program; a line that was
//! cut off is taken away when the file is opened again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, ErrorKind, Result};

/// A file to which lines are added.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a file, or makes it, and reads the lines that it has.
    ///
    /// # Errors
    /// Kind `Device`: it cannot be opened. Kind `Data`, with the line: what is there is something else.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>)> {
        let complain = || format!("cannot open {}", path.display());
        crate::files::create_dirs(crate::files::parent(path)).kind(ErrorKind::Device, complain)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.kind(ErrorKind::Device, complain)?;
        if !file.metadata().kind(ErrorKind::Device, complain)?.is_file() {
            // A device may have no end.
            return Err(Error::device(format!(
                "{}: expected a file that can grow; it is none",
                path.display()
            )));
        }
        hold(&file, path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).kind(ErrorKind::Device, complain)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = parse(path, &text[..whole])?;
        file.set_len(whole as u64).kind(ErrorKind::Device, complain)?;
        file.seek(SeekFrom::End(0)).kind(ErrorKind::Device, complain)?;
        Ok((Lines { path: path.to_owned(), file }, lines))
    }

    /// Adds a line, which is on the disk when this returns.
    ///
    /// # Errors
    /// Kind `Verdict`: there is no room for it, and so the evaluation is incomplete.
    pub fn add(&mut self, line: &impl Serialize) -> Result<()> {
        self.add_all(std::slice::from_ref(line))
    }

    /// Adds lines, which are on the disk when this returns.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_all<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        let text = text_of(lines)?;
        self.file.write_all(&text).and_then(|()| self.file.sync_data()).kind(ErrorKind::Verdict, || {
            format!("{}: the lines before are kept, but another cannot be written", self.path.display())
        })
    }

    /// Puts lines in place of those that are there.
    ///
    /// # Errors
    /// Kind `Device`: they cannot be written.
    pub fn replace<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        let text = text_of(lines)?;
        let complain = || format!("cannot write {}", self.path.display());
        crate::files::write_file(&self.path, &text)?;
        self.file = OpenOptions::new().append(true).open(&self.path).kind(ErrorKind::Device, complain)?;
        hold(&self.file, &self.path)
    }
}

/// Keeps others from adding lines as long as the file is open.
fn hold(file: &File, path: &Path) -> Result<()> {
    // A child of this process has the lock too until it runs another program.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) if is_at(file, path) => return Ok(()),
            // Another process has put a new file in this one's place.
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            // Some file systems have no locks.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
    Err(Error::device(format!(
        "{}: another process is adding lines to it; wait for its end, or choose another folder",
        path.display()
    )))
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let [open, there] = [file.metadata(), std::fs::metadata(path)].map(|found| found.ok().map(identity));
    open == there
}

fn text_of<T: Serialize>(lines: &[T]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).kind(ErrorKind::Internal, || "cannot write JSON".into())?;
        text.push(b'\n');
    }
    Ok(text)
}

/// The bytes of a file, or of a pipe; a device may have no end.
///
/// # Errors
/// Kind `Data`: it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let complain = || format!("cannot read {}", path.display());
    let mut file = File::open(path).kind(ErrorKind::Data, complain)?;
    let found = file.metadata().kind(ErrorKind::Data, complain)?.file_type();
    if found.is_dir() || found.is_char_device() || found.is_block_device() {
        return Err(Error::data(format!("{}: expected a file", path.display())));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).kind(ErrorKind::Data, complain)?;
    Ok(bytes)
}

/// The lines of a text.
///
/// # Errors
/// Kind `Data`, with the line: it is no JSON, or has other fields.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<Vec<T>> {
    let complain = |line: usize, why: String| Error::data(format!("{}: line {line}: {why}", path.display()));
    let line = |(i, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| complain(i + 1, error.to_string()))
    };
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(|byte| *byte == b'\n').enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/lines.jsonl");
        let (mut lines, there) = Lines::open::<u32>(&path).unwrap();
        assert!(there.is_empty());
        lines.add(&1).unwrap();
        lines.add(&23).unwrap();
        drop(lines);
        std::fs::write(&path, "1\n23\n4").unwrap();
        let (mut lines, there) = Lines::open::<u32>(&path).unwrap();
        assert_eq!(there, [1, 23]);
        lines.add(&5).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n23\n5\n");
        drop(lines);
        std::fs::write(&path, "1\nx\n4\n").unwrap();
        let error = Lines::open::<u32>(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn one_process_adds_lines_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let (mut lines, _) = Lines::open::<u32>(&path).unwrap();
        let held = |path| Lines::open::<u32>(path).unwrap_err().to_string();
        assert!(held(&path).contains("another process"), "{}", held(&path));
        lines.replace(&[7]).unwrap();
        assert!(held(&path).contains("another process"));
        drop(lines);
        assert_eq!(Lines::open::<u32>(&path).unwrap().1, [7]);
        let file = File::open(&path).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(hold(&file, &path).unwrap_err().to_string().contains("another process"));
    }

    #[test]
    fn only_files_are_read() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("expected a file"));
    }
}
