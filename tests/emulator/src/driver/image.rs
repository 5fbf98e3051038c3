//! What `cuModuleLoadData` may be given: PTX, or a container of PTX and machine code.

use std::ffi::{CStr, c_void};

use super::status::Status;

/// Magic of a container, of the pointer to one that the runtime uses, and of machine code.
const FAT_MAGIC: u32 = 0xba55_ed50;
const WRAPPER_MAGIC: u32 = 0x4662_43b1;
const ELF_MAGIC: u32 = 0x464c_457f;
/// Kind of an entry that is PTX.
const ENTRY_PTX: u16 = 1;
/// Flags of compressed entries: LZ4 or Zstandard.
const COMPRESSED: u64 = 0x2000 | 0x8000;

/// Why an image cannot be used: the code, and words for the log.
pub type Refusal = (Status, String);

/// Header of a container.
#[repr(C)]
#[derive(Clone, Copy)]
struct FatHeader {
    magic: u32,
    version: u16,
    header_size: u16,
    size: u64,
}

/// Header of an entry in a container.
#[repr(C)]
#[derive(Clone, Copy)]
struct EntryHeader {
    kind: u16,
    version: u16,
    header_size: u32,
    size: u64,
    compressed_size: u32,
    options: u32,
    minor: u16,
    major: u16,
    arch: u32,
    name_offset: u32,
    name_len: u32,
    flags: u64,
}

/// Finds the PTX for a device of that compute capability (times ten), by a driver of that version, as in
/// 13000 for 13.0.
///
/// # Safety
/// `image` points to a C string, a container, or machine code.
pub unsafe fn find_ptx(image: *const c_void, capability: u32, driver: i32) -> Result<String, Refusal> {
    // SAFETY: by the caller.
    let text = unsafe { find_text(image, capability) }?;
    match version(&text) {
        Some(found) if found > newest_ptx(driver) => {
            let (major, minor) = newest_ptx(driver);
            let limit =
                format!("a driver of {}.{} reads up to {major}.{minor}", driver / 1000, driver % 1000 / 10);
            let message = format!("PTX of version {}.{}; {limit}", found.0, found.1);
            Err((Status::UNSUPPORTED_PTX_VERSION, message))
        }
        _ => Ok(text),
    }
}

/// The newest version of PTX that a driver reads, by the release notes of the PTX ISA.
fn newest_ptx(driver: i32) -> (u32, u32) {
    let (major, minor) = (driver / 1000, driver % 1000 / 10);
    match (major, minor) {
        (..=11, _) => (7, minor as u32),
        (12, ..=5) => (8, minor as u32),
        (12, 6) => (8, 5),
        (12, _) => (8, minor as u32 - 1),
        _ => (9, minor as u32),
    }
}

/// The version that `.version` names.
fn version(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().map(str::trim_start).find_map(|line| line.strip_prefix(".version"))?;
    let (major, minor) = line.split_whitespace().next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// # Safety
/// As of [`find_ptx`].
unsafe fn find_text(image: *const c_void, capability: u32) -> Result<String, Refusal> {
    if image.is_null() {
        return Err((Status::INVALID_VALUE, "no image".into()));
    }
    // SAFETY: containers and machine code are longer than four bytes; a C string may be shorter, so bytes are
    // read one by one up to its end.
    let magic = unsafe { first_bytes(image.cast()) };
    match magic {
        ELF_MAGIC => Err((Status::NO_BINARY_FOR_GPU, "machine code cannot be emulated, only PTX".into())),
        // SAFETY: the wrapper says where the container is, 8 bytes further on.
        WRAPPER_MAGIC => unsafe {
            from_container(image.byte_add(8).cast::<*const u8>().read_unaligned(), capability)
        },
        // SAFETY: it is a container.
        FAT_MAGIC => unsafe { from_container(image.cast(), capability) },
        _ => {
            // SAFETY: neither of the others, so it is a C string.
            let text = unsafe { CStr::from_ptr(image.cast()) };
            check_text(text.to_bytes(), capability)
        }
    }
}

/// Up to four bytes, little-endian, zero after the first zero.
///
/// # Safety
/// The bytes up to a zero, or four, are readable.
unsafe fn first_bytes(image: *const u8) -> u32 {
    let mut bytes = [0; 4];
    for (i, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: by the caller.
        *byte = unsafe { image.add(i).read() };
        if *byte == 0 {
            break;
        }
    }
    u32::from_le_bytes(bytes)
}

/// # Safety
/// `image` points to a container.
unsafe fn from_container(image: *const u8, capability: u32) -> Result<String, Refusal> {
    // SAFETY: a container begins with its header.
    let header = unsafe { image.cast::<FatHeader>().read_unaligned() };
    if header.magic != FAT_MAGIC || header.version != 1 {
        return Err((Status::INVALID_IMAGE, "a container of an unknown version".into()));
    }
    // SAFETY: the header says how long it is.
    let bytes =
        unsafe { std::slice::from_raw_parts(image.add(header.header_size.into()), header.size as usize) };
    best_entry(bytes, capability)
}

/// The PTX for the greatest architecture that the device supports.
fn best_entry(mut bytes: &[u8], capability: u32) -> Result<String, Refusal> {
    let mut best: Option<(u32, &[u8])> = None;
    let mut compressed = false;
    while bytes.len() >= size_of::<EntryHeader>() {
        // SAFETY: there are enough bytes, and any bits are valid.
        let header = unsafe { bytes.as_ptr().cast::<EntryHeader>().read_unaligned() };
        let start = header.header_size as usize;
        let end = start.saturating_add(header.size as usize);
        let broken = || (Status::INVALID_IMAGE, "a container whose entries overrun it".into());
        let payload = bytes.get(start..end).ok_or_else(broken)?;
        if header.kind == ENTRY_PTX && header.arch <= capability {
            if header.flags & COMPRESSED != 0 {
                compressed = true;
            } else if best.is_none_or(|(arch, _)| header.arch > arch) {
                best = Some((header.arch, payload));
            }
        }
        bytes = &bytes[end..];
    }
    match best {
        Some((_, payload)) => {
            let len = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
            check_text(&payload[..len], capability)
        }
        None if compressed => {
            Err((Status::NO_BINARY_FOR_GPU, "the PTX is compressed; build with --no-compress".into()))
        }
        None => Err((Status::NO_BINARY_FOR_GPU, "no PTX for this device".into())),
    }
}

fn check_text(bytes: &[u8], capability: u32) -> Result<String, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (Status::INVALID_IMAGE, format!("neither PTX nor a container: {error}")))?;
    if !text.contains(".version") {
        return Err((Status::INVALID_IMAGE, "neither PTX nor a container: no .version".into()));
    }
    match target(text) {
        Some(target) if !supports(capability, target) => {
            let device = format!("a device of compute capability {}.{}", capability / 10, capability % 10);
            Err((Status::NO_BINARY_FOR_GPU, format!("PTX for {target} does not run on {device}")))
        }
        _ => Ok(text.to_owned()),
    }
}

/// The architecture that `.target` names.
fn target(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim_start).find_map(|line| line.strip_prefix(".target"))?;
    line.split(',').next()?.split_whitespace().next()
}

/// Whether a device runs PTX for `sm_90`, `sm_90a`, `sm_100f` and so on. What is not of that form is left to
/// the parser.
fn supports(capability: u32, target: &str) -> bool {
    let Some(name) = target.strip_prefix("sm_") else { return true };
    let digits = name.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let Ok(number) = digits.parse::<u32>() else { return true };
    match &name[digits.len()..] {
        "" => number <= capability,
        "f" => number <= capability && number / 10 == capability / 10,
        _ => number == capability,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u16, arch: u32, flags: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(0x101u16.to_le_bytes());
        bytes.extend(64u32.to_le_bytes());
        bytes.extend((payload.len() as u64).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0; 4]);
        bytes.extend(arch.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(flags.to_le_bytes());
        bytes.resize(64, 0);
        bytes.extend(payload);
        bytes
    }

    fn container(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut bytes = FAT_MAGIC.to_le_bytes().to_vec();
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(16u16.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    fn find(image: &[u8], capability: u32) -> Result<String, Refusal> {
        // SAFETY: the tests pass C strings and containers.
        unsafe { find_ptx(image.as_ptr().cast(), capability, 13000) }
    }

    const PTX_80: &[u8] = b".version 8.0\n.target sm_80\n\0\0";
    const PTX_90A: &[u8] = b".version 8.0\n.target sm_90a\n\0";

    #[test]
    fn the_best_entry_of_a_container_is_taken() {
        let image =
            container(&[entry(2, 90, 0, b"\x7fELF"), entry(1, 80, 0, PTX_80), entry(1, 90, 0, PTX_90A)]);
        assert!(find(&image, 90).expect("for 9.0").contains("sm_90a"));
        assert!(find(&image, 80).expect("for 8.0").contains("sm_80"));
        assert_eq!(find(&image, 75).map_err(|e| e.0), Err(Status::NO_BINARY_FOR_GPU));
    }

    #[test]
    fn a_wrapper_leads_to_its_container() {
        let image = container(&[entry(1, 80, 0, PTX_80)]);
        let mut wrapper = WRAPPER_MAGIC.to_le_bytes().to_vec();
        wrapper.extend(1u32.to_le_bytes());
        wrapper.extend((image.as_ptr() as u64).to_le_bytes());
        assert!(find(&wrapper, 80).expect("the PTX").starts_with(".version 8.0"));
    }

    #[test]
    fn a_driver_reads_the_ptx_of_its_time() {
        let reads = |version: &str, driver: i32| {
            let text = format!(".version {version}\n.target sm_80\n\0");
            // SAFETY: a C string.
            unsafe { find_ptx(text.as_ptr().cast(), 80, driver) }.map_err(|e| e.0).map(|_| ())
        };
        for (driver, newest, next) in [
            (11080, "7.8", "8.0"),
            (12030, "8.3", "8.4"),
            (12040, "8.4", "8.5"),
            (12060, "8.5", "8.6"),
            (12080, "8.7", "8.8"),
            (12090, "8.8", "9.0"),
            (13000, "9.0", "9.1"),
        ] {
            assert_eq!(reads(newest, driver), Ok(()), "{driver}");
            assert_eq!(reads(next, driver), Err(Status::UNSUPPORTED_PTX_VERSION), "{driver}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_by_its_code() {
        let code = |image: &[u8], capability| find(image, capability).map_err(|e| e.0);
        assert_eq!(code(b"\x7fELF\x02\x01\0", 90), Err(Status::NO_BINARY_FOR_GPU));
        assert_eq!(code(b"int main() {}\0", 90), Err(Status::INVALID_IMAGE));
        assert_eq!(code(b"\0", 90), Err(Status::INVALID_IMAGE));
        assert_eq!(code(PTX_90A, 80), Err(Status::NO_BINARY_FOR_GPU));
        let compressed = container(&[entry(1, 80, 0x8000, b"\x28\xb5\x2f\xfd")]);
        let refusal = find(&compressed, 90).expect_err("compressed");
        assert_eq!(refusal.0, Status::NO_BINARY_FOR_GPU);
        assert!(refusal.1.contains("--no-compress"), "{}", refusal.1);
        let mut cut = container(&[entry(1, 80, 0, PTX_80)]);
        cut[16 + 8] = 0xff;
        assert_eq!(code(&cut, 90), Err(Status::INVALID_IMAGE));
    }

    #[test]
    fn architectures_are_compared() {
        assert!(supports(90, "sm_80") && supports(90, "sm_90") && supports(90, "sm_90a"));
        assert!(!supports(90, "sm_100") && !supports(90, "sm_80a") && !supports(90, "sm_100f"));
        assert!(supports(103, "sm_100f") && supports(80, "texmode_independent"));
    }
}
