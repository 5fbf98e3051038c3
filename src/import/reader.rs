//! A cursor over untrusted bytes: every read is checked against what is left, so a length that lies costs an
//! error, never an allocation or a panic.

use crate::error::{Error, Result};

/// The next step for a file whose bytes contradict themselves.
pub(super) const DAMAGED: &str = "the file is damaged or incomplete: download or convert it again";

/// Little-endian reads from the front of a byte slice.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes consumed so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
            Error::model(format!(
                "byte {}: expected {n} more bytes, found {}; {DAMAGED}",
                self.at,
                rest.len()
            ))
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `count` items of `width` bytes each.
    pub(super) fn items(&mut self, count: u64, width: usize) -> Result<&'a [u8]> {
        let total = count.checked_mul(width as u64).ok_or_else(|| {
            Error::model(format!(
                "byte {}: expected an array that fits the file, found {count} items; {DAMAGED}",
                self.at
            ))
        })?;
        self.take(total)
    }

    /// An unsigned 32-bit integer.
    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.chunk()?))
    }

    /// An unsigned 64-bit integer.
    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.chunk()?))
    }

    /// A string: its length in bytes as `u64`, then UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        let start = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|e| {
            Error::model(format!("string at byte {start}: expected UTF-8; {DAMAGED}")).with_source(e)
        })
    }

    /// The next `N` bytes as an array.
    pub(super) fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut chunk = [0; N];
        chunk.copy_from_slice(self.take(N as u64)?);
        Ok(chunk)
    }
}
