//! Conversions to the formats that PTX only converts to and from: tf32 and the 8-bit ones.

use super::half::magnitude32;
use super::round::{Format, Mode, Round};

/// Clamps infinity and finite overflow to the largest finite value.
#[inline(always)]
pub fn saturate_finite(encoding: u64, format: Format) -> u64 {
    let magnitude = encoding & (format.sign() - 1);
    if magnitude == format.infinity() { encoding - 1 } else { encoding }
}

/// `cvt` to `.tf32`: a binary32 value whose low 13 bits are zero.
#[inline(always)]
pub fn to_tf32<R: Round, const RELU: bool, const FINITE: bool>(x: f32) -> u32 {
    let bits = x.to_bits();
    // Both formats have the same exponents, so that carries out of the fraction do what rounding needs.
    let rounded = match R::MODE {
        Mode::Away => bits.wrapping_add(0x1000),
        Mode::Nearest => bits.wrapping_add(0xfff + (bits >> 13 & 1)),
        Mode::Zero | Mode::Down | Mode::Up => bits,
    };
    let rounded = rounded & !0x1fff;
    let infinite = FINITE && rounded & 0x7fff_ffff == 0x7f80_0000;
    let value = if infinite { rounded - 0x2000 } else { rounded };
    let value = if RELU && x.is_sign_negative() { 0 } else { value };
    if x.is_nan() { 0x7fff_ffff } else { value }
}

/// An 8-bit floating-point format.
pub trait Eight: Copy {
    /// Rounded to nearest, ties to even, clamped to the finite values.
    fn encode(x: f32) -> u8;
    /// The encoding in binary16, which holds all values of the format.
    fn decode(bits: u8) -> u16;
}

/// `.e5m2`: the upper byte of binary16.
#[derive(Clone, Copy, Debug)]
pub struct E5m2;

impl Eight for E5m2 {
    #[inline(always)]
    fn encode(x: f32) -> u8 {
        let sign = (x.to_bits() >> 24 & 0x80) as u8;
        let magnitude = magnitude32(x, Format::E5M2).min(Format::E5M2.max_finite() as u32);
        if x.is_nan() { 0x7f } else { magnitude as u8 | sign }
    }

    #[inline(always)]
    fn decode(bits: u8) -> u16 {
        if bits & 0x7f > 0x7c { 0x7fff } else { u16::from(bits) << 8 }
    }
}

/// `.e4m3`: no infinities, and only 0x7f and 0xff are NaN.
#[derive(Clone, Copy, Debug)]
pub struct E4m3;

/// `.e4m3` with exponents to spare, so that what overflows comes out above all finite values.
const E4M3_EXTENDED: Format = Format { precision: 4, min_exponent: -6, max_exponent: 15 };

impl Eight for E4m3 {
    #[inline(always)]
    fn encode(x: f32) -> u8 {
        let sign = (x.to_bits() >> 24 & 0x80) as u8;
        let magnitude = magnitude32(x, E4M3_EXTENDED).min(0x7e);
        if x.is_nan() { 0x7f } else { magnitude as u8 | sign }
    }

    #[inline(always)]
    fn decode(bits: u8) -> u16 {
        let magnitude = u16::from(bits & 0x7f);
        if magnitude == 0x7f {
            return 0x7fff;
        }
        let sign = u16::from(bits & 0x80) << 8;
        let (exponent, fraction) = (magnitude >> 3, magnitude & 7);
        if exponent > 0 {
            return sign | (exponent + 8) << 10 | fraction << 7;
        }
        // Subnormal: fraction · 2^-9 is normal in binary16.
        let top = fraction.checked_ilog2().unwrap_or(0) as u16;
        let value = if fraction == 0 { 0 } else { (top + 6) << 10 | (fraction << (10 - top)) & 0x3ff };
        sign | value
    }
}

/// `cvt.rn.satfinite` of two values to a pair of bytes, `high` in the upper one.
#[inline(always)]
pub fn encode_pair<E: Eight>(high: f32, low: f32, relu: bool) -> u16 {
    let one = |x: f32| {
        let byte = E::encode(x);
        if relu && byte & 0x80 != 0 { 0 } else { byte }
    };
    u16::from(one(high)) << 8 | u16::from(one(low))
}

/// `cvt.rn.f16x2` from a pair of bytes.
#[inline(always)]
pub fn decode_pair<E: Eight>(bits: u16, relu: bool) -> u32 {
    let one = |byte: u8| {
        let half = E::decode(byte);
        u32::from(if relu && half & 0x8000 != 0 { 0 } else { half })
    };
    one((bits >> 8) as u8) << 16 | one(bits as u8)
}
