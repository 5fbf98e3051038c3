//! Seeded inputs, and element types by their definitions.

use cuda_emulator_alu::row::Row;
use half::{bf16, f16};

/// A small generator (xorshift), so that failures repeat.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }

    /// Between -2 and 2.
    pub fn real(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 51) as f64 - 2.0
    }
}

/// An element type: its width, and the value of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bf16,
    F16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    F64,
}

impl Type {
    pub const ALL: [Type; 8] =
        [Type::Bf16, Type::F16, Type::Tf32, Type::E4m3, Type::E5m2, Type::S8, Type::U8, Type::F64];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    pub fn bits(self) -> usize {
        match self {
            Type::Bf16 | Type::F16 => 16,
            Type::Tf32 => 32,
            Type::E4m3 | Type::E5m2 | Type::S8 | Type::U8 => 8,
            Type::F64 => 64,
        }
    }

    /// The value that a matrix multiplication sees.
    pub fn value(self, bits: u64) -> f64 {
        match self {
            Type::Bf16 => bf16::from_bits(bits as u16).to_f64(),
            Type::F16 => f16::from_bits(bits as u16).to_f64(),
            Type::Tf32 => f64::from(f32::from_bits(bits as u32 >> 13 << 13)),
            Type::E4m3 => minifloat(bits as u8, 3, 7),
            Type::E5m2 => minifloat(bits as u8, 2, 15),
            Type::S8 => f64::from(bits as u8 as i8),
            Type::U8 => f64::from(bits as u8),
            Type::F64 => f64::from_bits(bits),
        }
    }

    /// Bits of a random value of moderate size, never an infinity and never NaN.
    pub fn random(self, random: &mut Random) -> u64 {
        match self {
            Type::Bf16 => u64::from(bf16::from_f64(random.real()).to_bits()),
            Type::F16 => u64::from(f16::from_f64(random.real()).to_bits()),
            // With noise in the bits that are to be ignored.
            Type::Tf32 => u64::from((random.real() as f32).to_bits()),
            // Exponents in the middle, every sign and mantissa.
            Type::E4m3 => random.bits() & 0x87 | (5 + random.below(4) as u64) << 3,
            Type::E5m2 => random.bits() & 0x83 | (13 + random.below(4) as u64) << 2,
            Type::S8 | Type::U8 => random.bits() & 0xff,
            Type::F64 => random.real().to_bits(),
        }
    }
}

fn minifloat(bits: u8, mantissa_bits: i32, bias: i32) -> f64 {
    let exponent = i32::from(bits & 0x7f) >> mantissa_bits;
    let fraction = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let magnitude = if exponent == 0 {
        fraction * 2f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f64.powi(exponent - bias)
    };
    if bits & 0x80 != 0 { -magnitude } else { magnitude }
}

/// Reads `bits` bits of what one lane holds in consecutive registers, from bit `offset` of their
/// concatenation.
pub fn get(rows: &[Row], register_bits: usize, lane: usize, offset: usize, bits: usize) -> u64 {
    let byte = |i: usize| {
        let (row, at) = place(register_bits, lane, offset / 8 + i);
        u64::from(bytemuck::bytes_of(&rows[row].0)[at])
    };
    (0..bits / 8).map(|i| byte(i) << (8 * i)).sum()
}

/// Writes them.
pub fn put(rows: &mut [Row], register_bits: usize, lane: usize, offset: usize, bits: usize, value: u64) {
    for i in 0..bits / 8 {
        let (row, at) = place(register_bits, lane, offset / 8 + i);
        bytemuck::bytes_of_mut(&mut rows[row].0)[at] = (value >> (8 * i)) as u8;
    }
}

/// Row, and byte in it, of byte `i` of what a lane holds: registers of 32 bits are a row each, registers of
/// 64 bits two rows as `[u64; 32]`.
fn place(register_bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let bytes_per_lane = register_bits / 8;
    let (register, within) = (i / bytes_per_lane, i % bytes_per_lane);
    let flat = register * 32 * bytes_per_lane + lane * bytes_per_lane + within;
    (flat / 128, flat % 128)
}

/// What the accumulator's bits mean, and back.
pub fn decode(d: &str, bits: u64) -> f64 {
    match d {
        "f32" => f64::from(f32::from_bits(bits as u32)),
        "f16" => f16::from_bits(bits as u16).to_f64(),
        "s32" => f64::from(bits as u32 as i32),
        _ => f64::from_bits(bits),
    }
}

/// Bits of an accumulator element.
pub fn accumulator_bits(d: &str) -> usize {
    match d {
        "f16" => 16,
        "f64" => 64,
        _ => 32,
    }
}

/// One element of D from a row of A, a column of B and C, in the documented order.
pub fn dot(d: &str, satfinite: bool, a: &[f64], b: &[f64], c: u64) -> u64 {
    let pairs = a.iter().zip(b);
    match d {
        "s32" => {
            let sum = pairs.fold(i64::from(c as u32 as i32), |sum, (a, b)| sum + (a * b) as i64);
            let sum = if satfinite { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
            u64::from(sum as u32)
        }
        "f64" => pairs.fold(decode(d, c), |sum, (a, b)| a.mul_add(*b, sum)).to_bits(),
        _ => {
            let start = decode(d, c) as f32;
            let sum = pairs.fold(start, |sum, (a, b)| (*a as f32).mul_add(*b as f32, sum));
            match d {
                "f16" if sum.is_nan() => 0x7fff,
                "f16" => u64::from(f16::from_f32(sum).to_bits()),
                _ if sum.is_nan() => 0x7fff_ffff,
                _ => u64::from(sum.to_bits()),
            }
        }
    }
}
