//! Tensor maps: a tensor in global memory and the box of it that one copy moves.
//!
//! The 128 bytes are our own encoding. A field of zero bytes has its default: `u8` elements, rank 1, extents
//! and strides of one element, nothing interleaved or swizzled, zeros outside. Thus a map may start as zeros
//! and be filled in on the device.

use crate::tensor::swizzle::Swizzle;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 5;

/// Bytes of an encoded map.
pub const MAP_BYTES: usize = 128;

/// Type of the elements. The formats that flush, round or unpack on their way are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// An unsigned integer of 8 bits.
    U8,
    /// An unsigned integer of 16 bits.
    U16,
    /// An unsigned integer of 32 bits.
    U32,
    /// A signed integer of 32 bits.
    S32,
    /// An unsigned integer of 64 bits.
    U64,
    /// A signed integer of 64 bits.
    S64,
    /// A floating-point number of 16 bits.
    F16,
    /// A floating-point number of 32 bits.
    F32,
    /// A floating-point number of 64 bits.
    F64,
    /// A `bf16` number.
    Bf16,
}

/// Data types by the number that PTX gives them, and by that of the driver's `CUtensorMapDataType`.
const DATA_TYPES: [(DataType, u32, u32); 10] = [
    (DataType::U8, 0, 0),
    (DataType::U16, 1, 1),
    (DataType::U32, 2, 2),
    (DataType::S32, 3, 3),
    (DataType::U64, 4, 4),
    (DataType::S64, 5, 5),
    (DataType::F16, 6, 6),
    (DataType::F32, 7, 7),
    (DataType::F64, 9, 8),
    (DataType::Bf16, 10, 9),
];

impl DataType {
    fn from_ptx(code: u64) -> Result<DataType, String> {
        let found = DATA_TYPES.iter().find(|(_, ptx, _)| u64::from(*ptx) == code);
        found.map(|found| found.0).ok_or_else(|| match code {
            8 | 11 | 12 => {
                format!("tensor map element type {code} (.f32.ftz, .tf32, .tf32.ftz) is not supported")
            }
            13..16 => format!("tensor map element type {code} (packed .b4 or .b6) is not supported"),
            _ => format!("tensor map element type {code} does not exist"),
        })
    }

    fn from_driver(code: u32) -> Result<DataType, String> {
        let found = DATA_TYPES.iter().find(|(_, _, driver)| *driver == code);
        found.map(|found| found.0).ok_or_else(|| match code {
            10..13 => {
                format!("tensor map data type {code} (FLOAT32_FTZ, TFLOAT32, TFLOAT32_FTZ) is not supported")
            }
            13..16 => format!("tensor map data type {code} (packed 4 or 6 bits) is not supported"),
            _ => format!("tensor map data type {code} does not exist"),
        })
    }

    fn ptx_code(self) -> u8 {
        DATA_TYPES[self as usize].1 as u8
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            DataType::U8 => 1,
            DataType::U16 | DataType::F16 | DataType::Bf16 => 2,
            DataType::U32 | DataType::S32 | DataType::F32 => 4,
            DataType::U64 | DataType::S64 | DataType::F64 => 8,
        }
    }

    /// The value that is written outside the tensor if NaN is asked for; `None` for integers.
    fn nan(self) -> Option<u64> {
        match self {
            DataType::F16 | DataType::Bf16 => Some(0x7fff),
            DataType::F32 => Some(0x7fff_ffff),
            DataType::F64 => Some(0x7fff_ffff_ffff_ffff),
            _ => None,
        }
    }
}

/// What a load writes for elements outside the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Zero.
    Zero,
    /// Not a number.
    Nan,
}

/// A tensor map, decoded. Dimensions are innermost first; those beyond the rank have their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Type of the elements.
    pub data_type: DataType,
    /// Number of dimensions.
    pub rank: usize,
    /// Global address of the first element.
    pub global_address: u64,
    /// Extents, in elements.
    pub dims: [u64; MAX_RANK],
    /// Strides of all dimensions but the innermost, in bytes.
    pub strides: [u64; MAX_RANK - 1],
    /// Extents of the box, in elements of the tensor.
    pub box_dim: [u32; MAX_RANK],
    /// Of the elements in the box, every how many'th is copied. Not used for the innermost dimension.
    pub element_strides: [u32; MAX_RANK],
    /// How the box is permuted in shared memory.
    pub swizzle: Swizzle,
    /// What is written for elements outside the tensor.
    pub fill: Fill,
}

/// Arguments of `cuTensorMapEncodeTiled`, enumerations by their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Tiled<'a> {
    /// `CUtensorMapDataType`.
    pub data_type: u32,
    /// Number of dimensions.
    pub rank: u32,
    /// Global address of the tensor.
    pub global_address: u64,
    /// Extents in elements, innermost first; as many as the rank.
    pub dims: &'a [u64],
    /// Strides in bytes of all dimensions but the innermost.
    pub strides: &'a [u64],
    /// Extents of the box.
    pub box_dim: &'a [u32],
    /// Traversal strides.
    pub element_strides: &'a [u32],
    /// `CUtensorMapInterleave`.
    pub interleave: u32,
    /// `CUtensorMapSwizzle`.
    pub swizzle: u32,
    /// `CUtensorMapL2promotion`: checked, otherwise without effect.
    pub l2_promotion: u32,
    /// `CUtensorMapFloatOOBfill`.
    pub oob_fill: u32,
}

/// The encoding. Numbers that are never zero are stored less one, so that zero is the default; the layout
/// that is not interleaved, the only one supported, needs no field.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Encoded {
    global_address: u64,
    strides: [u64; MAX_RANK - 1],
    dims: [u32; MAX_RANK],
    box_dim: [u8; MAX_RANK],
    element_strides: [u8; MAX_RANK],
    rank: u8,
    element_type: u8,
    swizzle: u8,
    fill: u8,
    padding: [u8; 6],
    reserved: [u64; 6],
}

const _: () = assert!(size_of::<Encoded>() == MAP_BYTES);

impl TensorMap {
    /// `cuTensorMapEncodeTiled`, with its checks.
    pub fn encode_tiled(arguments: &Tiled) -> Result<[u8; MAP_BYTES], String> {
        let rank = arguments.rank as usize;
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(format!("tensor map rank must be from 1 to {MAX_RANK}, not {rank}"));
        }
        if arguments.global_address == 0 {
            return Err("tensor map global address is null".into());
        }
        if arguments.l2_promotion > 3 {
            return Err(format!("tensor map L2 promotion {} does not exist", arguments.l2_promotion));
        }
        let map = TensorMap {
            data_type: DataType::from_driver(arguments.data_type)?,
            rank,
            global_address: arguments.global_address,
            dims: padded("dimensions", arguments.dims, rank, 1)?,
            strides: padded("strides", arguments.strides, rank - 1, 0)?,
            box_dim: padded("box dimensions", arguments.box_dim, rank, 1)?,
            element_strides: padded("element strides", arguments.element_strides, rank, 1)?,
            swizzle: swizzle(arguments.swizzle.into())?,
            fill: fill(arguments.oob_fill.into())?,
        };
        interleave(arguments.interleave.into())?;
        map.validate()?;
        Ok(map.encode())
    }

    fn encode(&self) -> [u8; MAP_BYTES] {
        bytemuck::cast(Encoded {
            global_address: self.global_address,
            strides: self.strides,
            dims: self.dims.map(|n| (n - 1) as u32),
            box_dim: self.box_dim.map(|n| (n - 1) as u8),
            element_strides: self.element_strides.map(|n| (n - 1) as u8),
            rank: (self.rank - 1) as u8,
            element_type: self.data_type.ptx_code(),
            swizzle: self.swizzle as u8,
            fill: self.fill as u8,
            padding: [0; 6],
            reserved: [0; 6],
        })
    }

    /// The map in these bytes, or what is wrong with it.
    pub fn decode(bytes: &[u8; MAP_BYTES]) -> Result<TensorMap, String> {
        let encoded: Encoded = bytemuck::pod_read_unaligned(bytes);
        if encoded.padding != [0; 6] || encoded.reserved != [0; 6] {
            return Err("these 128 bytes are no tensor map: reserved bytes are not zero".into());
        }
        let map = TensorMap {
            data_type: DataType::from_ptx(encoded.element_type.into())?,
            rank: usize::from(encoded.rank) + 1,
            global_address: encoded.global_address,
            dims: encoded.dims.map(|n| u64::from(n) + 1),
            strides: encoded.strides,
            box_dim: encoded.box_dim.map(|n| u32::from(n) + 1),
            element_strides: encoded.element_strides.map(|n| u32::from(n) + 1),
            swizzle: swizzle(encoded.swizzle.into())?,
            fill: fill(encoded.fill.into())?,
        };
        map.validate()?;
        Ok(map)
    }

    /// The rules that the driver checks. Strides need not grow from dimension to dimension, nor be multiples
    /// of one another, which the driver documents but does not enforce.
    fn validate(&self) -> Result<(), String> {
        let rank = self.rank;
        if rank > MAX_RANK {
            return Err(format!("tensor map rank must be from 1 to {MAX_RANK}, not {rank}"));
        }
        if !self.global_address.is_multiple_of(16) {
            return Err(format!("tensor map global address {:#x} is no multiple of 16", self.global_address));
        }
        if let Some(n) = self.dims[..rank].iter().find(|n| !(1..=1 << 32).contains(*n)) {
            return Err(format!("tensor map dimension must be from 1 to 2^32, not {n}"));
        }
        if let Some(n) = self.strides[..rank - 1].iter().find(|n| !n.is_multiple_of(16) || **n >= 1 << 40) {
            return Err(format!("tensor map stride must be a multiple of 16 below 2^40, not {n}"));
        }
        if let Some(n) = self.box_dim[..rank].iter().find(|n| !(1..=256).contains(*n)) {
            return Err(format!("tensor map box dimension must be from 1 to 256, not {n}"));
        }
        if let Some(n) = self.element_strides[..rank].iter().find(|n| !(1..=8).contains(*n)) {
            return Err(format!("tensor map element stride must be from 1 to 8, not {n}"));
        }
        let inner = self.inner_bytes();
        if !inner.is_multiple_of(16) {
            return Err(format!("tensor map box must be a multiple of 16 bytes wide, not {inner}"));
        }
        if self.swizzle != Swizzle::None && inner > self.swizzle.span() {
            let span = self.swizzle.span();
            return Err(format!(
                "tensor map box of {inner} bytes does not fit into a swizzle span of {span}"
            ));
        }
        if self.fill == Fill::Nan && self.data_type.nan().is_none() {
            return Err(format!("tensor map of {:?} cannot be filled with NaN", self.data_type));
        }
        Ok(())
    }

    /// Bytes of a row of the box.
    pub fn inner_bytes(&self) -> u32 {
        self.box_dim[0] * self.data_type.bytes() as u32
    }

    /// Overwrites whole elements with what is loaded from outside the tensor.
    pub fn fill(&self, elements: &mut [u8]) {
        let value = match self.fill {
            Fill::Zero => 0,
            Fill::Nan => self.data_type.nan().unwrap_or(0),
        };
        let size = self.data_type.bytes();
        elements
            .chunks_exact_mut(size)
            .for_each(|element| element.copy_from_slice(&value.to_le_bytes()[..size]));
    }
}

/// Copies as many values as there must be; the rest are `default`.
fn padded<T: Copy, const N: usize>(
    what: &str,
    values: &[T],
    count: usize,
    default: T,
) -> Result<[T; N], String> {
    if values.len() != count {
        return Err(format!("tensor map takes {count} {what} here, not {}", values.len()));
    }
    let mut array = [default; N];
    array[..count].copy_from_slice(values);
    Ok(array)
}

fn swizzle(code: u64) -> Result<Swizzle, String> {
    match code {
        0 => Ok(Swizzle::None),
        1 => Ok(Swizzle::B32),
        2 => Ok(Swizzle::B64),
        3 => Ok(Swizzle::B128),
        _ => Err(format!(
            "tensor map swizzle mode {code} is not supported: 0 to 3 are (none, 32, 64, 128 bytes)"
        )),
    }
}

fn fill(code: u64) -> Result<Fill, String> {
    match code {
        0 => Ok(Fill::Zero),
        1 => Ok(Fill::Nan),
        _ => Err(format!("tensor map fill mode {code} does not exist")),
    }
}

fn interleave(code: u64) -> Result<(), String> {
    match code {
        0 => Ok(()),
        1 | 2 => Err(format!("tensor map interleave layout {code} (16 or 32 bytes) is not supported")),
        _ => Err(format!("tensor map interleave layout {code} does not exist")),
    }
}

/// A field that `tensormap.replace` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Address of the tensor.
    GlobalAddress,
    /// Number of dimensions, less one.
    Rank,
    /// Extent of the box along one dimension.
    BoxDim,
    /// Extent of the tensor along one dimension.
    GlobalDim,
    /// Stride in bytes of one dimension; ordinal 0 is the second innermost.
    GlobalStride,
    /// Traversal stride along one dimension.
    ElementStride,
    /// Type of the elements.
    ElementType,
    /// Interleaving of channels.
    InterleaveLayout,
    /// Span of the swizzling.
    SwizzleMode,
    /// Unit of the swizzling.
    SwizzleAtomicity,
    /// What is loaded from outside the tensor.
    FillMode,
}

impl Field {
    /// The field that PTX calls so.
    pub fn parse(name: &str) -> Option<Field> {
        Some(match name {
            "global_address" => Field::GlobalAddress,
            "rank" => Field::Rank,
            "box_dim" => Field::BoxDim,
            "global_dim" => Field::GlobalDim,
            "global_stride" => Field::GlobalStride,
            "element_stride" => Field::ElementStride,
            "elemtype" => Field::ElementType,
            "interleave_layout" => Field::InterleaveLayout,
            "swizzle_mode" => Field::SwizzleMode,
            "swizzle_atomicity" => Field::SwizzleAtomicity,
            "fill_mode" => Field::FillMode,
            _ => return None,
        })
    }

    /// Whether the instruction has an ordinal: the number of the dimension.
    pub fn has_ordinal(self) -> bool {
        matches!(self, Field::BoxDim | Field::GlobalDim | Field::GlobalStride | Field::ElementStride)
    }
}

/// `tensormap.replace`: sets one field. `ordinal` is the dimension, 0 for fields without. `value` is what PTX
/// takes: the rank less one, strides in bytes, element types by the numbers of PTX. What depends on other
/// fields is checked when the map is used.
pub fn replace(bytes: &mut [u8; MAP_BYTES], field: Field, ordinal: u32, value: u64) -> Result<(), String> {
    let mut map: Encoded = bytemuck::pod_read_unaligned(bytes);
    let dimension = ordinal as usize;
    let count = match field {
        Field::GlobalStride => MAX_RANK - 1,
        field if field.has_ordinal() => MAX_RANK,
        _ => 1,
    };
    if dimension >= count {
        return Err(format!("tensormap.replace: {field:?} has no ordinal {ordinal}"));
    }
    let less_one = |most: u64| match value {
        value if (1..=most).contains(&value) => Ok(value - 1),
        _ => Err(format!("tensormap.replace: {field:?} must be from 1 to {most}, not {value}")),
    };
    match field {
        Field::GlobalAddress => map.global_address = value,
        Field::Rank if value >= MAX_RANK as u64 => {
            return Err(format!("tensormap.replace: Rank is the rank less one, from 0 to 4, not {value}"));
        }
        Field::Rank => map.rank = value as u8,
        Field::BoxDim => map.box_dim[dimension] = less_one(256)? as u8,
        Field::GlobalDim => map.dims[dimension] = less_one(u32::MAX.into())? as u32,
        Field::GlobalStride => map.strides[dimension] = value,
        Field::ElementStride => map.element_strides[dimension] = less_one(8)? as u8,
        Field::ElementType => map.element_type = DataType::from_ptx(value)?.ptx_code(),
        Field::InterleaveLayout => interleave(value)?,
        Field::SwizzleMode => map.swizzle = swizzle(value)? as u8,
        Field::SwizzleAtomicity if value != 0 => {
            return Err(format!(
                "tensormap.replace: swizzle atomicity {value} is not supported, only 0 (16 bytes)"
            ));
        }
        Field::SwizzleAtomicity => {}
        Field::FillMode => map.fill = fill(value)? as u8,
    }
    *bytes = bytemuck::cast(map);
    Ok(())
}
