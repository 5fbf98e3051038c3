//! `manifest.json`: which files a folder was committed with, their sizes and BLAKE3 hashes, so that a changed
//! bit, a cut, a missing or an additional file is noticed before anything of it is used.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{json_text, write_dir, write_json};

/// The manifest's name in the folder that it describes.
pub const MANIFEST: &str = "manifest.json";

const FORMAT_VERSION: u32 = 1;
/// Largest manifest that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What a file was committed as.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

type Entries = BTreeMap<String, Entry>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    files: Entries,
    /// Hash of the entries, so that a damaged manifest is not taken for a damaged file.
    blake3: String,
}

/// What may lie in a folder beside the files of its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    Refused,
    /// Anything, such as the model card of a published adapter: it is not read.
    Ignored,
}

/// [`write_dir`] of a folder with a manifest.
pub fn commit_dir(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    write_dir(dir, |dir| {
        fill(dir)?;
        write(dir)
    })
}

/// Writes the manifest of a folder of files, and of folders of files.
pub fn write(dir: &Path) -> Result<()> {
    let complain = || format!("cannot list {}", dir.display());
    let mut files = Entries::new();
    for name in names(dir, ErrorKind::Device)? {
        let found = measure(&dir.join(&name)).map_err(|e| Error::device(complain()).with_source(e))?;
        files.insert(name, found);
    }
    let blake3 = digest(&files)?;
    write_json(&dir.join(MANIFEST), &Manifest { format_version: FORMAT_VERSION, files, blake3 })
}

/// BLAKE3 of what a folder has: of the files of its manifest, or of all if it has none.
///
/// # Errors
/// Kind `Model`: a file cannot be read, or the manifest is damaged.
pub fn fingerprint(dir: &Path) -> Result<String> {
    if dir.join(MANIFEST).exists() {
        return digest(&read(&dir.join(MANIFEST))?);
    }
    let mut files = Entries::new();
    for name in names(dir, ErrorKind::Model)? {
        let path = dir.join(&name);
        let found = measure(&path).kind(ErrorKind::Model, || format!("cannot read {}", path.display()))?;
        files.insert(name, found);
    }
    digest(&files)
}

/// Checks a folder against its manifest.
///
/// # Errors
/// Kind `Model`, naming the first file that is not as it was committed.
pub fn verify(dir: &Path, others: Others) -> Result<()> {
    let files = read(&dir.join(MANIFEST))?;
    if others == Others::Refused {
        refuse_others(dir, &files)?;
    }
    files.iter().try_for_each(|(name, entry)| verify_file(dir, name, entry))
}

fn read(path: &Path) -> Result<Entries> {
    let complain = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).kind(ErrorKind::Model, complain)?.len();
    if size > MAX_BYTES {
        return Err(Error::model(format!(
            "{}: expected at most {MAX_BYTES} bytes, found {size}",
            path.display()
        )));
    }
    let text = std::fs::read(path).kind(ErrorKind::Model, complain)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).kind(ErrorKind::Model, || format!("{} is damaged", path.display()))?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(Error::model(format!(
            "{}: expected format version {FORMAT_VERSION}, found {}",
            path.display(),
            manifest.format_version
        )));
    }
    // The second catches what no parser minds, such as a lost end of line.
    if digest(&manifest.files)? != manifest.blake3 || json_text(&manifest)?.as_bytes() != text {
        return Err(Error::model(format!("{} is damaged: it is not as it was written", path.display())));
    }
    Ok(manifest.files)
}

fn refuse_others(dir: &Path, files: &Entries) -> Result<()> {
    for name in names(dir, ErrorKind::Model)? {
        // A folder under the name of a file is told as such.
        if name != MANIFEST && !files.contains_key(&name) {
            return Err(Error::model(format!(
                "{}: expected no such file, as {MANIFEST} does not have it",
                dir.join(name).display()
            )));
        }
    }
    Ok(())
}

/// Names of the files of a folder, and those of its folders' files behind the folder's.
fn names(dir: &Path, kind: ErrorKind) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, is_folder) in entries(dir, kind)? {
        let inner = if is_folder { entries(&dir.join(&name), kind)? } else { Vec::new() };
        found.extend(inner.iter().map(|(file, _)| format!("{name}/{file}")));
        // An empty folder is an entry of its own, which is no file.
        found.extend(inner.is_empty().then_some(name));
    }
    Ok(found)
}

/// Names in a folder, and whether they are of folders.
fn entries(dir: &Path, kind: ErrorKind) -> Result<Vec<(String, bool)>> {
    let complain = || format!("cannot list {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).kind(kind, complain)? {
        let entry = entry.kind(kind, complain)?;
        let is_folder = entry.file_type().kind(kind, complain)?.is_dir();
        found.push((entry.file_name().to_string_lossy().into_owned(), is_folder));
    }
    Ok(found)
}

/// Whether a name leads to a file of this folder, or of a folder in it, and nowhere else.
fn stays_inside(name: &str) -> bool {
    let mut parts = name.split('/');
    let plain = |part: &str| Path::new(part).file_name().is_some_and(|file| file == part);
    parts.clone().count() <= 2 && parts.all(plain)
}

fn verify_file(dir: &Path, name: &str, expected: &Entry) -> Result<()> {
    let path = dir.join(name);
    if !stays_inside(name) {
        return Err(Error::model(format!("{}: {name:?} is no file name", dir.join(MANIFEST).display())));
    }
    let complain = || format!("cannot read {}, which {MANIFEST} has", path.display());
    let metadata = std::fs::metadata(&path).kind(ErrorKind::Model, complain)?;
    if !metadata.is_file() || metadata.len() != expected.bytes {
        return Err(Error::model(format!(
            "{}: expected a file of {} bytes, found {}",
            path.display(),
            expected.bytes,
            if metadata.is_file() { metadata.len().to_string() } else { "something else".into() }
        )));
    }
    let found = measure(&path).kind(ErrorKind::Model, complain)?;
    if found != *expected {
        return Err(Error::model(format!(
            "{} is damaged: expected BLAKE3 {}, found {}",
            path.display(),
            expected.blake3,
            found.blake3
        )));
    }
    Ok(())
}

fn measure(path: &Path) -> std::io::Result<Entry> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Entry { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}

fn digest(files: &Entries) -> Result<String> {
    let text = serde_json::to_vec(files).kind(ErrorKind::Internal, || "cannot hash a manifest".into())?;
    Ok(blake3::hash(&text).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn committed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("weights"), (0..5000u32).map(|i| i as u8).collect::<Vec<_>>())
            .unwrap();
        std::fs::write(dir.path().join("state"), "{}\n").unwrap();
        write(dir.path()).unwrap();
        dir
    }

    #[track_caller]
    fn refused(dir: &Path, named: &str) {
        let error = verify(dir, Others::Refused).expect_err(named);
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains(named), "{named} not in: {error}");
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_its_file_named() {
        let dir = committed();
        verify(dir.path(), Others::Refused).unwrap();
        for name in ["weights", "state", MANIFEST] {
            let path = dir.path().join(name);
            let file = File::options().write(true).open(&path).unwrap();
            for (at, byte) in std::fs::read(&path).unwrap().into_iter().enumerate() {
                for bit in 0..8 {
                    file.write_all_at(&[byte ^ (1 << bit)], at as u64).unwrap();
                    refused(dir.path(), name);
                }
                file.write_all_at(&[byte], at as u64).unwrap();
            }
        }
        verify(dir.path(), Others::Refused).unwrap();
    }

    #[test]
    fn cut_missing_and_additional_files_are_named() {
        let dir = committed();
        for name in ["weights", "state", MANIFEST] {
            let path = dir.path().join(name);
            let content = std::fs::read(&path).unwrap();
            for length in [0, content.len() / 2, content.len() - 1] {
                std::fs::write(&path, &content[..length]).unwrap();
                refused(dir.path(), name);
            }
            std::fs::remove_file(&path).unwrap();
            refused(dir.path(), name);
            std::fs::create_dir(&path).unwrap();
            refused(dir.path(), name);
            std::fs::remove_dir(&path).unwrap();
            std::fs::write(&path, content).unwrap();
        }
        std::fs::write(dir.path().join("README.md"), "").unwrap();
        refused(dir.path(), "README.md");
        verify(dir.path(), Others::Ignored).unwrap();
    }

    #[test]
    fn names_lead_nowhere_else() {
        let dir = committed();
        for name in ["../weights", "/dev/zero", "..", "", "a/../b", "a/b/c", "a/"] {
            let entry = Entry { bytes: 0, blake3: String::new() };
            let files = Entries::from([(name.to_owned(), entry)]);
            let blake3 = digest(&files).unwrap();
            let manifest = Manifest { format_version: FORMAT_VERSION, files, blake3 };
            write_json(&dir.path().join(MANIFEST), &manifest).unwrap();
            let error = verify(dir.path(), Others::Ignored).unwrap_err().to_string();
            assert!(error.contains("no file name"), "{error}");
        }
    }

    #[test]
    fn a_fingerprint_is_that_of_all_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/weights"), "1").unwrap();
        let before = fingerprint(dir.path()).unwrap();
        std::fs::write(dir.path().join("inner/weights"), "2").unwrap();
        let changed = fingerprint(dir.path()).unwrap();
        assert_ne!(before, changed);
        write(dir.path()).unwrap();
        let committed = fingerprint(dir.path()).unwrap();
        // A model card beside the files of the manifest changes nothing.
        std::fs::write(dir.path().join("README.md"), "card").unwrap();
        assert_eq!(fingerprint(dir.path()).unwrap(), committed);
    }
}
