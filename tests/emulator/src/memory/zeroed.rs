//! Memory of zeros, whose pages exist once they are written: a model's plan of 80 GB is fine where little of
//! it is used.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::atomic::AtomicU8;

/// The largest alignment for which Rust's allocator takes new pages as they are; for a larger one it writes
/// zeros into all of them.
const PLAIN: usize = 16;

/// Bytes that are zero at first, freed when this is dropped.
#[derive(Debug)]
pub struct Zeroed {
    start: *mut u8,
    layout: Layout,
    align: usize,
}

impl Zeroed {
    /// `len` bytes at a multiple of `align`, a power of two; `None` without so much memory.
    pub fn new(len: usize, align: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.checked_add(align)?, PLAIN).ok()?;
        // SAFETY: the size is not zero, as the alignment is not.
        let start = unsafe { alloc_zeroed(layout) };
        (!start.is_null()).then_some(Zeroed { start, layout, align })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.wrapping_add(self.start.align_offset(self.align))
    }
}

// SAFETY: an owner of memory, through which nothing is accessed.
unsafe impl Send for Zeroed {}
// SAFETY: as above.
unsafe impl Sync for Zeroed {}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Bytes that several threads change, zero at first; `None` without so much memory.
pub fn atomic_bytes(len: usize) -> Option<Box<[AtomicU8]>> {
    if len == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<AtomicU8>(len).ok()?;
    // SAFETY: the size is not zero; zeros are valid `AtomicU8`s; `Box` frees memory of this type and length
    // with this layout.
    unsafe {
        let start = alloc_zeroed(layout).cast::<AtomicU8>();
        (!start.is_null()).then(|| Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, len)))
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Pages of this process that exist, by the second number of `statm`.
    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn memory_that_is_not_written_takes_none() {
        let before = resident_pages();
        let memory = Zeroed::new(4 << 30, 4096).unwrap();
        let last = memory.as_ptr().wrapping_add((4 << 30) - 1);
        // SAFETY: the last byte.
        let byte = unsafe { last.read_volatile() };
        assert_eq!((byte, memory.as_ptr() as usize % 4096), (0, 0));
        // Other tests have some meanwhile.
        assert!(resident_pages() - before < (1 << 30) / 4096);
    }

    #[test]
    fn memory_that_is_not_there_is_none() {
        for len in [usize::MAX / 4, usize::MAX] {
            // A compiler may take memory for there that nobody uses.
            let (zeroed, bytes) = (black_box(Zeroed::new(len, 64)), black_box(atomic_bytes(len)));
            assert!(zeroed.is_none() && bytes.is_none());
        }
    }
}
