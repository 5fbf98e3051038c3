//! Page-locked memory of the host.

use std::ops::Range;

use cudarc::driver::result;

use super::driver::complaint;
use super::launch::VECTOR;
use crate::error::Result;
use crate::ops::Element;

/// Page-locked host memory, which the device reads while the program goes on.
pub(super) struct Pinned {
    start: *mut u8,
    len: usize,
}

// SAFETY: plain memory, owned by this value.
unsafe impl Send for Pinned {}
// SAFETY: a shared borrow tells its address and length, and no more.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `len` bytes that may hold anything.
    pub fn new(len: usize) -> Result<Self> {
        // SAFETY: a context is current, as the caller has just used its stream.
        let start = unsafe { result::malloc_host(len, 0) };
        let start = start.map_err(|e| complaint(format!("{len} bytes of page-locked memory"), e))?;
        Ok(Pinned { start: start.cast(), len })
    }

    /// Address of the first byte, for host and device.
    pub fn address(&self) -> usize {
        self.start as usize
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements at the bytes `range`.
    pub fn slice<T: Element>(&mut self, range: Range<usize>) -> &mut [T] {
        assert!(range.end <= self.len && range.start.is_multiple_of(VECTOR));
        // SAFETY: inside the allocation, aligned, and any bytes are a `T`, which is plain data.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) };
        bytemuck::cast_slice_mut(bytes)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `malloc_host`, freed once; whoever copies out of it waits before dropping it.
        let _ = unsafe { result::free_host(self.start.cast()) };
    }
}
