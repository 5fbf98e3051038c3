//! Files that commands are asked to write.

use std::io::Write;
use std::path::Path;

use super::{note, print};
use crate::error::{Context, ErrorKind, Result};
use crate::files::parent;

/// Writes a text to `path`, or to standard output for `-`. A file is replaced when the new one is complete; a pipe or a
/// device is written to.
pub(super) fn write_file(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    let complain = || format!("cannot write {}", path.display());
    let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let written = if special { std::fs::write(path, text) } else { replace(path, text) };
    written.kind(ErrorKind::Device, complain)?;
    note(&format!("written: {}", path.display()));
    Ok(())
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let parent = parent(path);
    std::fs::create_dir_all(parent)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    // Temporary files are private by default; what is kept gets the permissions that the user's umask gives.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(parent)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
