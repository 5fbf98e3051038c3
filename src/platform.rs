//! Where operating systems differ: file systems, names of files, pipes, the machine's name.

use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes that may still be written to the file system of `dir`; `None` where it does not say.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(dir).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Cores of the machine, this process's or not; `None` where the system does not say.
#[cfg(feature = "cli")]
pub(crate) fn cores() -> Option<usize> {
    counted(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// How many numbers a list of ranges has, such as `0-3,8`.
#[cfg(feature = "cli")]
fn counted(ranges: &str) -> Option<usize> {
    let len = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (last.parse::<usize>().ok()? + 1).checked_sub(first.parse().ok()?)
    };
    ranges.trim().split(',').map(len).sum()
}

/// Whether something is mounted at `dir`.
pub(crate) fn is_mount_point(dir: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let found = statx(CWD, dir, AtFlags::empty(), StatxFlags::BASIC_STATS);
        found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |dir: &Path| dir.metadata().map(|metadata| metadata.dev()).ok();
        device(dir) != device(&dir.join(".."))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        false
    }
}

/// Whether this process may make files and folders in `dir`.
pub(crate) fn may_add_to(dir: &Path) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};
        access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }
    #[cfg(not(unix))]
    {
        dir.metadata().is_ok_and(|metadata| !metadata.permissions().readonly())
    }
}

/// Whether somebody may still read what is written to standard output: a pipe without a reader is in error.
/// Windows tells when something is written.
#[cfg(feature = "cli")]
pub(crate) fn has_reader() -> bool {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::ERR | PollFlags::HUP;
        poll(&mut polled, Some(&at_once)).is_err() || !polled[0].revents().intersects(gone)
    }
    #[cfg(not(unix))]
    {
        true
    }
}

/// Exchanges the names of two folders in one step. Returns whether the file system can: NFS cannot, nor can
/// Windows.
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
            exchanged => exchanged.map(|()| true).map_err(io::Error::from),
        }
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    {
        let _ = (a, b);
        Ok(false)
    }
}

/// Flushes a file, or the names in a folder, to the disk. Windows has no such thing for folders.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match cfg!(windows) {
        true if path.is_dir() => Ok(()),
        // Windows flushes for those alone who may write.
        windows => File::options().read(true).write(windows).open(path)?.sync_all(),
    }
}

/// Has temporary files or folders get the permissions `mode` less the user's umask, rather than private ones.
pub(crate) fn permit(builder: &mut tempfile::Builder<'_, '_>, mode: u32) {
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = (builder, mode);
}

/// Whether `path` is the name of an open file. On Windows the name of a file stays its own while it is open.
pub(crate) fn is_name_of(path: &Path, file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let opened = id(file.metadata()?);
        Ok(std::fs::metadata(path).is_ok_and(|named| id(named) == opened))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(path.exists())
    }
}

/// Makes `link` a symbolic link to the file `target`. Kind `Unsupported` where the user may not.
#[cfg(feature = "hub")]
pub(crate) fn link_file(target: &Path, link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(target, link)
    }
    #[cfg(windows)]
    {
        const PRIVILEGE_NOT_HELD: i32 = 1314;
        std::os::windows::fs::symlink_file(target, link).map_err(|error| match error.raw_os_error() {
            Some(PRIVILEGE_NOT_HELD) => io::Error::new(io::ErrorKind::Unsupported, error),
            _ => error,
        })
    }
}

/// Fills `bytes` from the position `offset` of a file.
pub(crate) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, bytes, offset);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset);
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at the position `offset` of a file.
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_at(file, bytes, offset);
        #[cfg(windows)]
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset);
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The machine's name; empty where it has none.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    {
        std::env::var("COMPUTERNAME").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_a_file_are_read_and_written() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"hello", 3).unwrap();
        let mut bytes = [9; 6];
        read_exact_at(&file, &mut bytes, 1).unwrap();
        assert_eq!(&bytes, b"\0\0hell");
        let beyond = read_exact_at(&file, &mut bytes, 3).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_name_is_that_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let file = File::create(&one).unwrap();
        File::create(&other).unwrap();
        assert!(is_name_of(&one, &file).unwrap());
        assert!(cfg!(windows) || !is_name_of(&other, &file).unwrap());
        std::fs::remove_file(&one).unwrap();
        assert!(!is_name_of(&one, &file).unwrap());
    }
}
