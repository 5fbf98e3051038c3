//! Element-wise reductions of bulk and tensor copies.

use crate::tensor::element::{f16_to_f32, f32_to_f16};
use crate::tensor::tensor_map::DataType;
use half::bf16;

/// A reduction of memory by copied elements.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    /// Bytes of an element.
    pub bytes: usize,
    /// The new bits of an element in memory, from its old bits and the copied ones.
    pub apply: fn(old: u64, copied: u64) -> u64,
}

/// The reduction `cp.reduce.async.bulk` of that operation and type, both as PTX writes them, or `None` where
/// there is none. Addition of `f16` and `bf16` is the one called `.noftz`.
pub fn lookup(operation: &str, data_type: &str) -> Option<Reduction> {
    let (bytes, apply): (usize, fn(u64, u64) -> u64) = match (operation, data_type) {
        ("add", "u32" | "s32") => (4, |a, b| u64::from((a as u32).wrapping_add(b as u32))),
        ("add", "u64") => (8, u64::wrapping_add),
        ("add", "f16") => (2, |a, b| f16(f16_value(a) + f16_value(b))),
        ("add", "bf16") => (2, |a, b| bf16(bf16_value(a) + bf16_value(b))),
        ("add", "f32") => (4, add_f32),
        ("add", "f64") => (8, add_f64),
        ("min", "u32") => (4, |a, b| u64::from((a as u32).min(b as u32))),
        ("max", "u32") => (4, |a, b| u64::from((a as u32).max(b as u32))),
        ("min", "s32") => (4, |a, b| u64::from((a as i32).min(b as i32) as u32)),
        ("max", "s32") => (4, |a, b| u64::from((a as i32).max(b as i32) as u32)),
        ("min", "u64") => (8, |a, b| a.min(b)),
        ("max", "u64") => (8, |a, b| a.max(b)),
        ("min", "s64") => (8, |a, b| (a as i64).min(b as i64) as u64),
        ("max", "s64") => (8, |a, b| (a as i64).max(b as i64) as u64),
        ("min", "f16") => (2, |a, b| f16(min(f16_value(a), f16_value(b)))),
        ("max", "f16") => (2, |a, b| f16(max(f16_value(a), f16_value(b)))),
        ("min", "bf16") => (2, |a, b| bf16(min(bf16_value(a), bf16_value(b)))),
        ("max", "bf16") => (2, |a, b| bf16(max(bf16_value(a), bf16_value(b)))),
        ("inc", "u32") => (4, |a, b| if a as u32 >= b as u32 { 0 } else { a + 1 }),
        ("dec", "u32") => (4, |a, b| if a as u32 == 0 || a as u32 > b as u32 { b } else { a - 1 }),
        ("and", "b32") => (4, |a, b| a & b),
        ("and", "b64") => (8, |a, b| a & b),
        ("or", "b32") => (4, |a, b| a | b),
        ("or", "b64") => (8, |a, b| a | b),
        ("xor", "b32") => (4, |a, b| a ^ b),
        ("xor", "b64") => (8, |a, b| a ^ b),
        _ => return None,
    };
    Some(Reduction { bytes, apply })
}

/// The reduction `cp.reduce.async.bulk.tensor` of that operation; the type is that of the tensor map.
pub fn for_tensor(operation: &str, data_type: DataType) -> Option<Reduction> {
    let bitwise = matches!(operation, "and" | "or" | "xor");
    let name = match data_type {
        DataType::U32 | DataType::S32 if bitwise => "b32",
        DataType::U64 | DataType::S64 if bitwise => "b64",
        DataType::U32 => "u32",
        DataType::S32 => "s32",
        DataType::U64 => "u64",
        DataType::S64 => "s64",
        DataType::F16 => "f16",
        DataType::Bf16 => "bf16",
        DataType::F32 => "f32",
        DataType::U8 | DataType::U16 | DataType::F64 => return None,
    };
    lookup(operation, name)
}

fn f16_value(bits: u64) -> f32 {
    f16_to_f32(bits as u32 & 0xffff)
}

fn f16(value: f32) -> u64 {
    f32_to_f16(value).into()
}

fn bf16_value(bits: u64) -> f32 {
    bf16::from_bits(bits as u16).to_f32()
}

fn bf16(value: f32) -> u64 {
    if value.is_nan() { 0x7fff } else { bf16::from_f32(value).to_bits().into() }
}

/// The smaller; the other one if one is not a number; -0 is smaller than +0.
fn min(a: f32, b: f32) -> f32 {
    match a.partial_cmp(&b) {
        None => {
            if a.is_nan() {
                b
            } else {
                a
            }
        }
        Some(std::cmp::Ordering::Equal) => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        Some(order) => {
            if order.is_lt() {
                a
            } else {
                b
            }
        }
    }
}

/// The larger, by the same rules.
fn max(a: f32, b: f32) -> f32 {
    -min(-a, -b)
}

/// Global memory adds `f32` with subnormal inputs and results flushed to a zero of their sign.
fn add_f32(a: u64, b: u64) -> u64 {
    let flushed = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    let sum = flushed(flushed(f32::from_bits(a as u32)) + flushed(f32::from_bits(b as u32)));
    u64::from(if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() })
}

fn add_f64(a: u64, b: u64) -> u64 {
    let sum = f64::from_bits(a) + f64::from_bits(b);
    if sum.is_nan() { 0xfff8_0000_0000_0000 } else { sum.to_bits() }
}
