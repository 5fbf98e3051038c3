//! Memory that several processes map: a nameless file, which the others find as a file descriptor of the one
//! that made it.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use bytemuck::{Pod, Zeroable};
use memmap2::{MmapOptions, MmapRaw};

/// Bytes that exist together.
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// Where other processes find such memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Place {
    /// The process that made it.
    pub process: u32,
    descriptor: i32,
    /// Tells the file from all others, and so from what has the descriptor, or the number of the process,
    /// afterwards.
    identity: Identity,
}

/// Device, inode and bytes of a file.
type Identity = [u64; 3];

/// Memory of this process that others may map as well.
///
/// What they have mapped outlives this value, as memory that is mapped does; nobody new finds it then.
#[derive(Debug)]
pub struct Exported {
    file: File,
    map: MmapRaw,
}

impl Exported {
    /// Memory with these contents, whose pages exist where there is more than zeros.
    pub fn copy_of(bytes: &[u8]) -> Result<Exported> {
        let file = nameless_file()?;
        file.set_len(bytes.len() as u64)?;
        for (i, page) in bytes.chunks(PAGE).enumerate() {
            if *page != ZEROS[..page.len()] {
                file.write_all_at(page, (i * PAGE) as u64)?;
            }
        }
        let map = map(&file)?;
        Ok(Exported { file, map })
    }

    /// The first byte.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Where others find it.
    pub fn place(&self) -> Result<Place> {
        let (process, descriptor) = (std::process::id(), self.file.as_raw_fd());
        Ok(Place { process, descriptor, identity: identity(&self.file)? })
    }
}

/// Maps what another process has exported, unless it is gone.
pub fn import(place: &Place) -> Result<MmapRaw> {
    let path = format!("/proc/{}/fd/{}", place.process, place.descriptor);
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if identity(&file)? != place.identity {
        return Err(Error::new(ErrorKind::NotFound, "something else is in its place"));
    }
    map(&file)
}

fn identity(file: &File) -> Result<Identity> {
    let metadata = file.metadata()?;
    Ok([metadata.dev(), metadata.ino(), metadata.len()])
}

/// Maps all of a file, to be changed for all who have it.
fn map(file: &File) -> Result<MmapRaw> {
    MmapOptions::new().map_raw(file)
}

#[cfg(target_os = "linux")]
fn nameless_file() -> Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    memfd_create("cuda-emulator", MemfdFlags::CLOEXEC).map(File::from).map_err(Error::from)
}

#[cfg(not(target_os = "linux"))]
fn nameless_file() -> Result<File> {
    Err(Error::from(ErrorKind::Unsupported))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_differ_from_zeros_exist() {
        let mut bytes = vec![0; 64 * PAGE + 5];
        (bytes[3 * PAGE], bytes[64 * PAGE + 4]) = (7, 8);
        let memory = Exported::copy_of(&bytes).unwrap();
        // SAFETY: as many bytes are mapped.
        let copy = unsafe { std::slice::from_raw_parts(memory.as_mut_ptr(), bytes.len()) };
        let blocks = memory.file.metadata().unwrap().blocks();
        assert!(copy == bytes && blocks * 512 == 2 * PAGE as u64, "{blocks} blocks");
    }

    #[test]
    fn another_file_in_its_place_is_not_mapped() {
        let memory = Exported::copy_of(&[1; PAGE]).unwrap();
        let place = memory.place().unwrap();
        assert_eq!(import(&place).unwrap().len(), PAGE);
        let [device, inode, len] = place.identity;
        for identity in [[device + 1, inode, len], [device, inode + 1, len], [device, inode, len - 1]] {
            let other = Place { identity, ..place };
            assert_eq!(import(&other).unwrap_err().kind(), ErrorKind::NotFound, "{other:?}");
        }
        drop(memory);
        assert!(import(&place).is_err());
    }
}
