//! binary32: `.f32`.
//!
//! Every NaN that an operation produces is the canonical one, 0x7fffffff. `FTZ` flushes subnormal operands
//! and results to zeros of their sign, `SAT` clamps the result to [0, 1] and turns NaN into +0.

use super::round::{Format, Mode, Round};
use super::soft;

/// The canonical NaN.
pub const NAN: f32 = f32::from_bits(0x7fff_ffff);

/// The value, a subnormal one replaced by a zero of its sign if `FTZ`.
#[inline(always)]
pub fn flush<const FTZ: bool>(x: f32) -> f32 {
    if FTZ && x.to_bits() & 0x7f80_0000 == 0 { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// Whether a value is NaN, asked of its bits. The compiler takes all NaNs of floating-point arithmetic for
/// the same and would drop a choice between a computed one and [`NAN`] if the comparison were one of
/// floating-point numbers.
#[inline(always)]
pub fn is_nan(x: f32) -> bool {
    x.to_bits() & 0x7fff_ffff > 0x7f80_0000
}

/// The value, or the canonical NaN for any NaN.
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    f32::from_bits(if is_nan(x) { NAN.to_bits() } else { x.to_bits() })
}

/// The value clamped to [0, 1]; +0 for NaN and for -0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    let positive = if x > 0.0 { x } else { 0.0 };
    if positive < 1.0 { positive } else { 1.0 }
}

/// What every result goes through.
#[inline(always)]
pub fn finish<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    if SAT { saturate(flush::<FTZ>(x)) } else { canonical(flush::<FTZ>(x)) }
}

#[inline(always)]
fn directed(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// `add`.
#[inline(always)]
pub fn add<R: Round, const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let sum = match R::MODE {
        Mode::Nearest => a + b,
        mode => directed(soft::add(a.into(), b.into(), Format::F32, mode)),
    };
    finish::<FTZ, SAT>(sum)
}

/// `sub`.
#[inline(always)]
pub fn sub<R: Round, const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    add::<R, FTZ, SAT>(a, -b)
}

/// `mul`.
#[inline(always)]
pub fn mul<R: Round, const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let product = match R::MODE {
        Mode::Nearest => a * b,
        mode => directed(soft::mul(a.into(), b.into(), Format::F32, mode)),
    };
    finish::<FTZ, SAT>(product)
}

/// `fma`, and `mad` of floating-point numbers.
#[inline(always)]
pub fn fma<R: Round, const FTZ: bool, const SAT: bool>(a: f32, b: f32, c: f32) -> f32 {
    let (a, b, c) = (flush::<FTZ>(a), flush::<FTZ>(b), flush::<FTZ>(c));
    let value = match R::MODE {
        Mode::Nearest => a.mul_add(b, c),
        mode => directed(soft::fma(a.into(), b.into(), c.into(), Format::F32, mode)),
    };
    finish::<FTZ, SAT>(value)
}

/// `div` with a rounding.
#[inline(always)]
pub fn div<R: Round, const FTZ: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let quotient = match R::MODE {
        Mode::Nearest => a / b,
        mode => directed(soft::div(a.into(), b.into(), Format::F32, mode)),
    };
    finish::<FTZ, false>(quotient)
}

/// `rcp` with a rounding.
#[inline(always)]
pub fn rcp<R: Round, const FTZ: bool>(a: f32) -> f32 {
    div::<R, FTZ>(1.0, a)
}

/// `sqrt` with a rounding.
#[inline(always)]
pub fn sqrt<R: Round, const FTZ: bool>(a: f32) -> f32 {
    let a = flush::<FTZ>(a);
    let root = match R::MODE {
        Mode::Nearest => a.sqrt(),
        mode => directed(soft::sqrt(a.into(), Format::F32, mode)),
    };
    finish::<FTZ, false>(root)
}

/// An integer that orders like the values, -0 below +0.
#[inline(always)]
fn key(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// `min`, or `max` if `MAX`. The canonical NaN comes out if both operands are NaN, with `NAN` if any is.
#[inline(always)]
pub fn extremum<const MAX: bool, const FTZ: bool, const NANS: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let first = if MAX { key(a) > key(b) } else { key(a) < key(b) };
    let chosen = if (first && !is_nan(a)) || is_nan(b) { a } else { b };
    let nan = if NANS { is_nan(a) || is_nan(b) } else { is_nan(a) && is_nan(b) };
    f32::from_bits(if nan { NAN.to_bits() } else { chosen.to_bits() })
}

/// `min.xorsign.abs` or `max.xorsign.abs`: of the magnitudes, with the product of the signs.
#[inline(always)]
pub fn extremum_xorsign<const MAX: bool, const FTZ: bool, const NANS: bool>(a: f32, b: f32) -> f32 {
    let chosen = extremum::<MAX, FTZ, NANS>(a.abs(), b.abs());
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    f32::from_bits(if is_nan(chosen) { NAN.to_bits() } else { chosen.to_bits() | sign })
}

/// `abs`.
#[inline(always)]
pub fn abs<const FTZ: bool>(a: f32) -> f32 {
    flush::<FTZ>(f32::from_bits(a.to_bits() & 0x7fff_ffff))
}

/// `neg`.
#[inline(always)]
pub fn neg<const FTZ: bool>(a: f32) -> f32 {
    flush::<FTZ>(f32::from_bits(a.to_bits() ^ 0x8000_0000))
}

/// `copysign`: the magnitude of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign(a: f32, b: f32) -> f32 {
    f32::from_bits(b.to_bits() & 0x7fff_ffff | a.to_bits() & 0x8000_0000)
}

/// A function of two values applied to both halves of a register pair: `.f32x2`.
#[inline(always)]
pub fn pair2(a: u64, b: u64, f: impl Fn(f32, f32) -> f32) -> u64 {
    let low = f(f32::from_bits(a as u32), f32::from_bits(b as u32));
    let high = f(f32::from_bits((a >> 32) as u32), f32::from_bits((b >> 32) as u32));
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

/// `fma` of both halves of a register pair.
#[inline(always)]
pub fn pair_fma<R: Round, const FTZ: bool>(a: u64, b: u64, c: u64) -> u64 {
    let half = |shift: u32| {
        let part = |x: u64| f32::from_bits((x >> shift) as u32);
        u64::from(fma::<R, FTZ, false>(part(a), part(b), part(c)).to_bits())
    };
    half(0) | half(32) << 32
}
