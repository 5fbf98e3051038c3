//! Tensor maps: descriptors of tensors in global memory, for copies by the tensor memory accelerator.
//!
//! The 128 bytes of a map are a secret of the hardware; these are our own. In them zero means the least: rank and sizes
//! are stored less one, and elements by the numbers that `tensormap.replace` of PTX uses.

use std::ffi::c_void;

use super::abi::{In, Out};
use super::status::{Result, Status};
use super::{api, complain, unsupported};

/// The bytes of a map.
pub const BYTES: usize = 128;
/// Dimensions at most.
pub const RANK: usize = 5;

/// Where the fields are.
mod offset {
    pub const ADDRESS: usize = 0;
    pub const RANK: usize = 8;
    pub const ELEMENT: usize = 9;
    pub const INTERLEAVE: usize = 10;
    pub const SWIZZLE: usize = 11;
    pub const FILL: usize = 12;
    pub const PROMOTION: usize = 13;
    pub const STRIDES: usize = 16;
    pub const SIZES: usize = 48;
    pub const BOXES: usize = 68;
    pub const STEPS: usize = 73;
}

/// Element types: the bytes of each and its number in PTX, by `CUtensorMapDataType`.
const ELEMENTS: [(u64, u8); 13] = [
    (1, 0),  // u8
    (2, 1),  // u16
    (4, 2),  // u32
    (4, 3),  // s32
    (8, 4),  // u64
    (8, 5),  // s64
    (2, 6),  // f16
    (4, 7),  // f32
    (8, 9),  // f64
    (2, 10), // bf16
    (4, 8),  // f32, subnormals flushed
    (4, 11), // tf32
    (4, 12), // tf32, subnormals flushed
];

/// A tensor map, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the tensor.
    pub address: u64,
    /// Dimensions.
    pub rank: u8,
    /// Element type as PTX numbers it.
    pub element: u8,
    /// Interleaving: none, 16 bytes, 32 bytes.
    pub interleave: u8,
    /// Swizzling: none, 32, 64 or 128 bytes.
    pub swizzle: u8,
    /// Whether elements outside are NaN instead of zero.
    pub fill_nan: bool,
    /// Promotion of accesses to L2, a hint.
    pub promotion: u8,
    /// Elements of each dimension, the innermost first; 1 beyond the rank.
    pub sizes: [u64; RANK],
    /// Bytes from element to element of dimensions 1 to 4.
    pub strides: [u64; RANK - 1],
    /// Elements of a box in each dimension.
    pub boxes: [u32; RANK],
    /// Every how manieth element is copied.
    pub steps: [u32; RANK],
}

impl TensorMap {
    /// The bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(offset::ADDRESS, &self.address.to_le_bytes());
        put(offset::RANK, &[self.rank - 1]);
        put(offset::ELEMENT, &[self.element]);
        put(offset::INTERLEAVE, &[self.interleave]);
        put(offset::SWIZZLE, &[self.swizzle]);
        put(offset::FILL, &[self.fill_nan.into()]);
        put(offset::PROMOTION, &[self.promotion]);
        for (i, stride) in self.strides.iter().enumerate() {
            put(offset::STRIDES + 8 * i, &stride.to_le_bytes());
        }
        for i in 0..RANK {
            put(offset::SIZES + 4 * i, &((self.sizes[i] - 1) as u32).to_le_bytes());
            put(offset::BOXES + i, &[(self.boxes[i] - 1) as u8]);
            put(offset::STEPS + i, &[(self.steps[i] - 1) as u8]);
        }
        bytes
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8; BYTES]) -> TensorMap {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        TensorMap {
            address: word(offset::ADDRESS),
            rank: bytes[offset::RANK] + 1,
            element: bytes[offset::ELEMENT],
            interleave: bytes[offset::INTERLEAVE],
            swizzle: bytes[offset::SWIZZLE],
            fill_nan: bytes[offset::FILL] != 0,
            promotion: bytes[offset::PROMOTION],
            sizes: std::array::from_fn(|i| u64::from(half(offset::SIZES + 4 * i)) + 1),
            strides: std::array::from_fn(|i| word(offset::STRIDES + 8 * i)),
            boxes: std::array::from_fn(|i| u32::from(bytes[offset::BOXES + i]) + 1),
            steps: std::array::from_fn(|i| u32::from(bytes[offset::STEPS + i]) + 1),
        }
    }
}

/// What `cuTensorMapEncodeTiled` is given.
struct Tiled {
    data_type: u32,
    rank: u32,
    address: u64,
    sizes: In<u64>,
    strides: In<u64>,
    boxes: In<u32>,
    steps: In<u32>,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
}

/// Refuses with a reason, which the code alone does not give.
fn require(holds: bool, reason: &str) -> Result {
    if holds {
        return Ok(());
    }
    complain(&format!("cuTensorMapEncodeTiled: {reason}"));
    Err(Status::INVALID_VALUE)
}

impl Tiled {
    fn check(&self) -> Result<TensorMap> {
        let element = ELEMENTS.get(self.data_type as usize).copied();
        require(element.is_some(), "unknown element type")?;
        let (bytes, element) = element.ok_or(Status::INVALID_VALUE)?;
        require((1..=RANK as u32).contains(&self.rank), "the rank is not 1 to 5")?;
        require(self.interleave <= 2 && self.swizzle <= 3, "unknown interleaving or swizzling")?;
        require(self.promotion <= 3 && self.fill <= 1, "unknown promotion or fill")?;
        require(self.interleave == 0 || self.rank >= 3, "interleaving needs three dimensions")?;
        require(self.interleave != 2 || self.swizzle == 1, "32-byte interleaving needs 32-byte swizzling")?;
        require(self.fill == 0 || element >= 6, "NaN does not fit into integers")?;
        let alignment = if self.interleave == 2 { 32 } else { 16 };
        require(self.address != 0 && self.address.is_multiple_of(alignment), "the address is not aligned")?;
        let mut map = TensorMap {
            address: self.address,
            rank: self.rank as u8,
            element,
            interleave: self.interleave as u8,
            swizzle: self.swizzle as u8,
            fill_nan: self.fill == 1,
            promotion: self.promotion as u8,
            sizes: [1; RANK],
            strides: [0; RANK - 1],
            boxes: [1; RANK],
            steps: [1; RANK],
        };
        self.check_dimensions(&mut map, bytes, alignment)?;
        self.check_box(&map, bytes)?;
        Ok(map)
    }

    fn check_dimensions(&self, map: &mut TensorMap, bytes: u64, alignment: u64) -> Result {
        let mut least = bytes;
        for i in 0..self.rank as usize {
            (map.sizes[i], map.boxes[i], map.steps[i]) =
                (self.sizes.at(i)?, self.boxes.at(i)?, self.steps.at(i)?);
            require((1..=1 << 32).contains(&map.sizes[i]), "a size is not 1 to 2^32")?;
            require((1..=256).contains(&map.boxes[i]), "a box is not 1 to 256")?;
            require((1..=8).contains(&map.steps[i]), "an element stride is not 1 to 8")?;
            least = least.saturating_mul(map.sizes[i]);
            if i + 1 < self.rank as usize {
                let stride = self.strides.at(i)?;
                require(
                    stride.is_multiple_of(alignment) && stride < 1 << 40,
                    "a stride is not aligned or too long",
                )?;
                require(
                    self.interleave != 0 || stride >= least,
                    "a stride is shorter than what it steps over",
                )?;
                map.strides[i] = stride;
                least = stride;
            }
        }
        Ok(())
    }

    fn check_box(&self, map: &TensorMap, bytes: u64) -> Result {
        if self.interleave != 0 {
            return Ok(());
        }
        let inner = u64::from(map.boxes[0]) * bytes;
        require(inner.is_multiple_of(16), "a row of a box is no multiple of 16 bytes")?;
        let span = [u64::MAX, 32, 64, 128][self.swizzle as usize];
        require(inner <= span, "a row of a box is longer than the span of its swizzling")
    }
}

api! {
    fn cuTensorMapEncodeTiled(
        out: Out<[u8; BYTES]>, data_type: u32, rank: u32, address: *mut c_void, sizes: In<u64>, strides: In<u64>,
        boxes: In<u32>, steps: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32,
    ) {
        out.check()?;
        require((out.pointer() as usize).is_multiple_of(64), "the map is not aligned to 64 bytes")?;
        let address = address as u64;
        let tiled =
            Tiled { data_type, rank, address, sizes, strides, boxes, steps, interleave, swizzle, promotion, fill };
        out.set(tiled.check()?.encode())
    }

    fn cuTensorMapReplaceAddress(out: Out<[u8; BYTES]>, address: *mut c_void) {
        let mut map = TensorMap::decode(&out.get()?);
        map.address = address as u64;
        require(map.address != 0 && map.address.is_multiple_of(16), "the address is not aligned")?;
        out.set(map.encode())
    }

    fn cuTensorMapEncodeIm2col() {
        unsupported("cuTensorMapEncodeIm2col")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_survive_their_bytes() {
        let map = TensorMap {
            address: 0x7_0000_1000,
            rank: 3,
            element: 10,
            interleave: 0,
            swizzle: 3,
            fill_nan: true,
            promotion: 2,
            sizes: [1 << 32, 77, 3, 1, 1],
            strides: [1 << 39, 16, 0, 0],
            boxes: [64, 256, 1, 1, 1],
            steps: [1, 8, 1, 1, 1],
        };
        assert_eq!(TensorMap::decode(&map.encode()), map);
    }

    #[test]
    fn zeros_are_the_least_map() {
        let map = TensorMap::decode(&[0; BYTES]);
        assert_eq!((map.rank, map.sizes, map.boxes, map.steps), (1, [1; 5], [1; 5], [1; 5]));
    }
}
