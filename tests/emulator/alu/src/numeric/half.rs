//! binary16 and bfloat16: `.f16`, `.bf16` and the packed pairs of them.
//!
//! Sums go through binary32, whose precision makes the second rounding harmless. Products are exact in a
//! wider format. `fma` adds to the exact product and sets the lowest bit of an inexact sum (rounds it to
//! odd), after which a second rounding is harmless as well; where an operand is not finite, the computed
//! error is NaN and the sum stays. Every NaN that arithmetic produces is 0x7fff.

use super::round::Format;

/// A 16-bit floating-point format.
pub trait Half: Copy {
    /// Its parameters.
    const FORMAT: Format;
    /// A value from its encoding.
    fn from_bits(bits: u16) -> Self;
    /// Its encoding.
    fn to_bits(self) -> u16;
    /// The same value in binary32.
    fn widen(self) -> f32;
    /// Rounded to nearest, ties to even.
    fn narrow(x: f32) -> Self;
    /// `a · b + c`, rounded once.
    fn fma(a: f32, b: f32, c: f32) -> Self;
}

/// A value of `.f16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F16(pub u16);

/// A value of `.bf16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(pub u16);

impl Half for F16 {
    const FORMAT: Format = Format::F16;

    #[inline(always)]
    fn from_bits(bits: u16) -> Self {
        F16(bits)
    }

    #[inline(always)]
    fn to_bits(self) -> u16 {
        self.0
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        let magnitude = u32::from(self.0 & 0x7fff) << 13;
        let sign = u32::from(self.0 & 0x8000) << 16;
        // Subnormal values are read with the exponent of 2^-14, which is then taken off again.
        let smallest = 113 << 23;
        let subnormal = (f32::from_bits(magnitude + smallest) - f32::from_bits(smallest)).to_bits();
        let normal = magnitude + (112 << 23);
        let special = magnitude | 0x7f80_0000;
        let value = if magnitude < 0x400 << 13 { subnormal } else { normal };
        let value = if magnitude < 0x7c00 << 13 { value } else { special };
        f32::from_bits(value | sign)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let sign = (x.to_bits() >> 16 & 0x8000) as u16;
        let value = magnitude32(x, Format::F16) as u16 | sign;
        F16(if x.is_nan() { 0x7fff } else { value })
    }

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> Self {
        // Products of binary16 values fit into binary32, in digits as in range.
        let product = a * b;
        let sum = product + c;
        let part = sum - product;
        let error = (product - (sum - part)) + (c - part);
        let toward = (error > 0.0) == (sum > 0.0);
        let bits = sum.to_bits();
        let odd = if toward { bits | 1 } else { bits - (!bits & 1) };
        let inexact = (error < 0.0) | (error > 0.0);
        Self::narrow(f32::from_bits(if inexact { odd } else { bits }))
    }
}

impl Half for Bf16 {
    const FORMAT: Format = Format::BF16;

    #[inline(always)]
    fn from_bits(bits: u16) -> Self {
        Bf16(bits)
    }

    #[inline(always)]
    fn to_bits(self) -> u16 {
        self.0
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if x.is_nan() { Bf16(0x7fff) } else { Bf16(rounded as u16) }
    }

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> Self {
        let product = f64::from(a) * f64::from(b);
        let c = f64::from(c);
        let sum = product + c;
        let part = sum - product;
        let error = (product - (sum - part)) + (c - part);
        let toward = (error > 0.0) == (sum > 0.0);
        let bits = sum.to_bits();
        let odd = if toward { bits | 1 } else { bits - (!bits & 1) };
        let inexact = (error < 0.0) | (error > 0.0);
        narrow64(f64::from_bits(if inexact { odd } else { bits }))
    }
}

/// Encoding of the magnitude of a binary32 value in a narrower format, rounded to nearest, ties to even.
/// Meaningless for NaN.
#[inline(always)]
pub fn magnitude32(x: f32, format: Format) -> u32 {
    let lost = 24 - format.precision;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    // The addition leaves multiples of the smallest subnormal value, rounded, in the low bits.
    let unit = (format.min_exponent + 1 - format.precision as i32 + 127) as u32;
    let offset = (unit + 23) << 23;
    let tiny = (f32::from_bits(magnitude) + f32::from_bits(offset)).to_bits().wrapping_sub(offset);
    let rounded = (magnitude + ((1 << (lost - 1)) - 1) + (magnitude >> lost & 1)) >> lost;
    let rebias = ((127 - 1 + format.min_exponent) as u32) << (format.precision - 1);
    let normal = rounded.wrapping_sub(rebias).min(format.infinity() as u32);
    let subnormal = magnitude < ((format.min_exponent + 127) as u32) << 23;
    if subnormal { tiny } else { normal }
}

/// Rounds to nearest, ties to even.
#[inline(always)]
pub fn narrow64<T: Half>(x: f64) -> T {
    let format = T::FORMAT;
    let lost = 53 - format.precision;
    let magnitude = x.to_bits() & !(1 << 63);
    let sign = (x.to_bits() >> 48 & 0x8000) as u16;
    // As many smallest subnormal values as round to the result, left in the low bits by the addition.
    let unit = (format.min_exponent + 1 - format.precision as i32 + 1023) as u64;
    let tiny = f64::from_bits(magnitude) + f64::from_bits((unit + 52) << 52);
    let tiny = tiny.to_bits().wrapping_sub((unit + 52) << 52);
    let rounded = (magnitude + ((1 << (lost - 1)) - 1) + (magnitude >> lost & 1)) >> lost;
    let rebias = ((1023 - 1 + format.min_exponent) as u64) << (format.precision - 1);
    let normal = rounded.wrapping_sub(rebias);
    let normal = if normal > format.infinity() { format.infinity() } else { normal };
    let subnormal = magnitude < ((format.min_exponent + 1023) as u64) << 52;
    let value = if subnormal { tiny } else { normal } as u16 | sign;
    T::from_bits(if x.is_nan() { 0x7fff } else { value })
}

#[inline(always)]
fn flush<T: Half, const FTZ: bool>(x: T) -> T {
    let bits = x.to_bits();
    let exponent = T::FORMAT.infinity() as u16;
    if FTZ && bits & exponent == 0 { T::from_bits(bits & 0x8000) } else { x }
}

#[inline(always)]
fn is_nan<T: Half>(x: T) -> bool {
    x.to_bits() & 0x7fff > T::FORMAT.infinity() as u16
}

/// Clamps to [0, 1]; +0 for NaN and -0.
#[inline(always)]
pub fn saturate<T: Half>(x: T) -> T {
    let one = (T::FORMAT.infinity() >> 1) as u16 & !((1 << (T::FORMAT.precision - 1)) - 1);
    let bits = x.to_bits();
    let negative = bits & 0x8000 != 0 || is_nan(x);
    T::from_bits(if negative { 0 } else { bits.min(one) })
}

/// +0 for negative values; NaN becomes the canonical one.
#[inline(always)]
pub fn relu<T: Half>(x: T) -> T {
    let bits = x.to_bits();
    let value = if bits & 0x8000 != 0 { 0 } else { bits };
    T::from_bits(if is_nan(x) { 0x7fff } else { value })
}

#[inline(always)]
fn finish<T: Half, const FTZ: bool, const SAT: bool>(x: T) -> T {
    let x = flush::<T, FTZ>(x);
    if SAT { saturate(x) } else { x }
}

/// `add`.
#[inline(always)]
pub fn add<T: Half, const FTZ: bool, const SAT: bool>(a: T, b: T) -> T {
    let (a, b) = (flush::<T, FTZ>(a), flush::<T, FTZ>(b));
    finish::<T, FTZ, SAT>(T::narrow(a.widen() + b.widen()))
}

/// `sub`.
#[inline(always)]
pub fn sub<T: Half, const FTZ: bool, const SAT: bool>(a: T, b: T) -> T {
    let (a, b) = (flush::<T, FTZ>(a), flush::<T, FTZ>(b));
    finish::<T, FTZ, SAT>(T::narrow(a.widen() - b.widen()))
}

/// `mul`.
#[inline(always)]
pub fn mul<T: Half, const FTZ: bool, const SAT: bool>(a: T, b: T) -> T {
    let (a, b) = (flush::<T, FTZ>(a), flush::<T, FTZ>(b));
    finish::<T, FTZ, SAT>(narrow64(f64::from(a.widen()) * f64::from(b.widen())))
}

/// `fma`.
#[inline(always)]
pub fn fma<T: Half, const FTZ: bool, const SAT: bool>(a: T, b: T, c: T) -> T {
    let (a, b, c) = (flush::<T, FTZ>(a), flush::<T, FTZ>(b), flush::<T, FTZ>(c));
    finish::<T, FTZ, SAT>(T::fma(a.widen(), b.widen(), c.widen()))
}

/// `fma.relu`.
#[inline(always)]
pub fn fma_relu<T: Half, const FTZ: bool>(a: T, b: T, c: T) -> T {
    relu(fma::<T, FTZ, false>(a, b, c))
}

#[inline(always)]
fn key<T: Half>(x: T) -> i16 {
    let bits = x.to_bits() as i16;
    bits ^ ((bits >> 15) as u16 >> 1) as i16
}

/// `min`, or `max` if `MAX`. The canonical NaN comes out if both operands are NaN, with `NANS` if any is.
#[inline(always)]
pub fn extremum<T: Half, const MAX: bool, const FTZ: bool, const NANS: bool>(a: T, b: T) -> T {
    let (a, b) = (flush::<T, FTZ>(a), flush::<T, FTZ>(b));
    let first = if MAX { key(a) > key(b) } else { key(a) < key(b) };
    let chosen = if (first && !is_nan(a)) || is_nan(b) { a } else { b };
    let nan = if NANS { is_nan(a) || is_nan(b) } else { is_nan(a) && is_nan(b) };
    if nan { T::from_bits(0x7fff) } else { chosen }
}

/// `min.xorsign.abs` or `max.xorsign.abs`: of the magnitudes, with the product of the signs.
#[inline(always)]
pub fn extremum_xorsign<T: Half, const MAX: bool, const FTZ: bool, const NANS: bool>(a: T, b: T) -> T {
    let chosen = extremum::<T, MAX, FTZ, NANS>(abs::<T, false>(a), abs::<T, false>(b));
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000;
    if is_nan(chosen) { chosen } else { T::from_bits(chosen.to_bits() | sign) }
}

/// `abs`.
#[inline(always)]
pub fn abs<T: Half, const FTZ: bool>(a: T) -> T {
    flush::<T, FTZ>(T::from_bits(a.to_bits() & 0x7fff))
}

/// `neg`.
#[inline(always)]
pub fn neg<T: Half, const FTZ: bool>(a: T) -> T {
    flush::<T, FTZ>(T::from_bits(a.to_bits() ^ 0x8000))
}

/// The element in the low half of a register.
#[inline(always)]
pub fn low<T: Half>(x: u32) -> T {
    T::from_bits(x as u16)
}

/// The element in the high half of a register.
#[inline(always)]
pub fn high<T: Half>(x: u32) -> T {
    T::from_bits((x >> 16) as u16)
}

/// A register of two elements.
#[inline(always)]
pub fn pack<T: Half>(high: T, low: T) -> u32 {
    u32::from(high.to_bits()) << 16 | u32::from(low.to_bits())
}
