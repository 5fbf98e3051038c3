//! Files that commands are asked to write.

use std::path::Path;

use super::{note, print};
use crate::error::{Context, ErrorKind, Result};
use crate::files;

/// Writes a text to `path`, or to standard output for `-`. A file is replaced when the new one is complete; a
/// pipe or a device is written to.
pub(super) fn write_file(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    let complain = || format!("cannot write {}", path.display());
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        std::fs::write(path, text).kind(ErrorKind::Device, complain)?;
    } else {
        files::create_dirs(files::parent(path)).kind(ErrorKind::Device, complain)?;
        files::write_file(path, text.as_bytes())?;
    }
    note(&format!("written: {}", path.display()));
    Ok(())
}
