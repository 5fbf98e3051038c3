//! Approximate functions: computed in binary64 and rounded, which is within every documented error.

use super::double;
use super::half::{Half, narrow64};
use super::round::Rn;
use super::single::{NAN, finish, flush, is_nan};

/// `ex2.approx.f32`.
#[inline(always)]
pub fn ex2<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(exp2(flush::<FTZ>(x)) as f32)
}

/// 2 to the power of `x` with a relative error below 2^-33, infinite or zero where binary32 is.
#[inline(always)]
fn exp2(x: f32) -> f64 {
    // Outside of this range the result rounds to infinity or zero anyway; NaN stays.
    let x = f64::from(if x > 200.0 { 200.0 } else { x });
    let x = if x < -200.0 { -200.0 } else { x };
    let magic = f64::from_bits(0x4338_0000_0000_0000);
    let shifted = x + magic;
    let r = (x - (shifted - magic)) * std::f64::consts::LN_2;
    let tail = (1.0 / 720.0 + r * (1.0 / 5040.0 + r * (1.0 / 40320.0 + r / 362880.0))) * r;
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + tail)))));
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x.is_nan() { x } else { series * power }
}

/// `lg2.approx.f32`.
#[inline(always)]
pub fn lg2<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(f64::from(flush::<FTZ>(x)).log2() as f32)
}

/// `sin.approx.f32`.
#[inline(always)]
pub fn sin<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(f64::from(flush::<FTZ>(x)).sin() as f32)
}

/// `cos.approx.f32`.
#[inline(always)]
pub fn cos<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(f64::from(flush::<FTZ>(x)).cos() as f32)
}

/// `tanh.approx.f32`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    finish::<false, false>(f64::from(x).tanh() as f32)
}

/// `rcp.approx.f32`.
#[inline(always)]
pub fn rcp<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(1.0 / flush::<FTZ>(x))
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub fn sqrt<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>(flush::<FTZ>(x).sqrt())
}

/// `rsqrt.approx.f32`.
#[inline(always)]
pub fn rsqrt<const FTZ: bool>(x: f32) -> f32 {
    finish::<FTZ, false>((1.0 / f64::from(flush::<FTZ>(x)).sqrt()) as f32)
}

/// `div.full.f32`.
#[inline(always)]
pub fn div_full<const FTZ: bool>(a: f32, b: f32) -> f32 {
    finish::<FTZ, false>(flush::<FTZ>(a) / flush::<FTZ>(b))
}

/// `div.approx.f32`: for divisors of a magnitude above 2^126, finite dividends yield 0 and infinite ones NaN.
#[inline(always)]
pub fn div_approx<const FTZ: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let large = b.abs() > f32::from_bits(253 << 23) && b.abs() < f32::INFINITY;
    let quotient = a / b;
    let zero = f32::from_bits(quotient.to_bits() & 0x8000_0000);
    let value = if a.is_infinite() { NAN.to_bits() } else { zero.to_bits() };
    let value = if large && !is_nan(a) { value } else { quotient.to_bits() };
    finish::<FTZ, false>(f32::from_bits(value))
}

/// Subnormal values become zeros of their sign and the low half is dropped: operands and results of the gross
/// approximations of binary64.
#[inline(always)]
fn upper(x: f64) -> f64 {
    let bits = x.to_bits() & !0xffff_ffff;
    let subnormal = bits & 0x7ff0_0000_0000_0000 == 0;
    f64::from_bits(if subnormal { bits & 1 << 63 } else { bits })
}

/// `rcp.approx.ftz.f64`: works on the upper 32 bits only.
#[inline(always)]
pub fn rcp_gross(x: f64) -> f64 {
    upper_result(1.0 / upper(x))
}

/// `rsqrt.approx.ftz.f64`: works on the upper 32 bits only.
#[inline(always)]
pub fn rsqrt_gross(x: f64) -> f64 {
    upper_result(1.0 / upper(x).sqrt())
}

#[inline(always)]
fn upper_result(x: f64) -> f64 {
    let bits = upper(x).to_bits();
    f64::from_bits(if double::is_nan(x) { 0x7fff_ffff_0000_0000 } else { bits })
}

/// `rsqrt.approx.f64`.
#[inline(always)]
pub fn rsqrt64(x: f64) -> f64 {
    double::rcp::<Rn>(double::sqrt::<Rn>(x))
}

/// `ex2.approx` of a 16-bit format.
#[inline(always)]
pub fn ex2_half<T: Half>(x: T) -> T {
    narrow64(exp2(x.widen()))
}

/// `ex2.approx.ftz.bf16`: subnormal results become zero.
#[inline(always)]
pub fn ex2_half_ftz<T: Half>(x: T) -> T {
    let value = ex2_half(x);
    let subnormal = value.to_bits() & T::FORMAT.infinity() as u16 == 0;
    if subnormal { T::from_bits(0) } else { value }
}

/// `tanh.approx` of a 16-bit format.
#[inline(always)]
pub fn tanh_half<T: Half>(x: T) -> T {
    narrow64(f64::from(x.widen()).tanh())
}
