//! How tensor cores and tensor copies permute 16-byte chunks of shared memory to avoid bank conflicts.

/// A swizzling mode, named by its span: chunks move within spans of that many bytes. A chunk's number in its
/// span is xored with the number of its 128-byte line, both as address bits, so that the pattern repeats
/// every eight spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// Chunks stay where they are.
    #[default]
    None,
    /// Two chunks of a 32-byte span.
    B32,
    /// Four chunks of a 64-byte span.
    B64,
    /// Eight chunks of a 128-byte span.
    B128,
}

impl Swizzle {
    /// Chunks in a span.
    pub fn chunks(self) -> u32 {
        1 << self as u32
    }

    /// Bytes of a span; one chunk if nothing moves.
    pub fn span(self) -> u32 {
        16 * self.chunks()
    }

    /// Where the byte at shared address `address` is found. `first_line` is the number of the 128-byte line
    /// at which the pattern starts, zero unless a matrix descriptor says otherwise.
    #[inline(always)]
    pub fn apply(self, address: u32, first_line: u32) -> u32 {
        let line = (address >> 7).wrapping_sub(first_line);
        address ^ (line & (self.chunks() - 1)) << 4
    }
}
