//! Matrix descriptors: how a matrix operand of `wgmma` lies in shared memory.

use crate::tensor::swizzle::Swizzle;

/// Bytes of a chunk, the unit that matrices are stored in.
pub const CHUNK: usize = 16;

/// Along which dimension a chunk runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Major {
    /// Along K: a chunk is part of a row of A or of a column of B.
    K,
    /// Along M or N: a chunk is eight rows of A or eight columns of B, at one `k`. Only for elements of 16
    /// bits.
    Mn,
}

/// A matrix descriptor, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixDescriptor {
    /// Shared address of the first chunk.
    pub start: u32,
    /// Leading dimension byte offset.
    pub leading: u32,
    /// Stride dimension byte offset.
    pub stride: u32,
    /// Number of the 128-byte line, modulo eight, at which the swizzling pattern starts.
    pub base_offset: u32,
    /// Swizzling mode.
    pub swizzle: Swizzle,
}

/// Bits of a descriptor that mean nothing and must be zero.
const RESERVED: u64 = 0x3ff0_0000_0000_0000 | 1 << 48 | 3 << 46 | 3 << 30 | 3 << 14;

impl MatrixDescriptor {
    /// Takes the fields of a descriptor apart.
    pub fn decode(bits: u64) -> Result<MatrixDescriptor, String> {
        if bits & RESERVED != 0 {
            let reserved = bits & RESERVED;
            return Err(format!("matrix descriptor {bits:#018x} has reserved bits set: {reserved:#018x}"));
        }
        // Addresses and offsets have 18 bits, of which the low four are zero and left out.
        let field = |low: u32| ((bits >> low & 0x3fff) as u32) << 4;
        let swizzle = [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32][(bits >> 62) as usize];
        let base_offset = (bits >> 49 & 7) as u32;
        Ok(MatrixDescriptor { start: field(0), leading: field(16), stride: field(32), base_offset, swizzle })
    }

    /// Address of a chunk of a block: eight rows of A or eight columns of B, by 32 bytes of K.
    ///
    /// Along K, `half` says which 16 bytes and `i` which row of the block. Along M or N, `8 * half + i` is
    /// `k` and the chunk is the whole block at that `k`.
    #[inline(always)]
    pub fn chunk(&self, major: Major, block: u32, half: u32, i: u32) -> u32 {
        let chunks = self.swizzle.chunks();
        let linear = match (major, self.swizzle) {
            (Major::K, Swizzle::None) => 16 * i + block * self.stride + half * self.leading,
            (Major::K, _) => self.swizzle.span() * i + block * self.stride + 16 * half,
            (Major::Mn, Swizzle::None) => 16 * i + block * self.stride + half * self.leading,
            (Major::Mn, _) => {
                16 * (block % chunks)
                    + block / chunks * self.leading
                    + self.swizzle.span() * i
                    + half * self.stride
            }
        };
        self.swizzle.apply(self.start + linear, self.base_offset)
    }
}
