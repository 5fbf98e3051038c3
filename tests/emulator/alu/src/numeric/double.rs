//! binary64: `.f64`.
//!
//! NaN payloads survive: the result of an operation with NaN operands is the first of them, made quiet. An
//! invalid operation yields [`INVALID`].

use super::round::{Format, Mode, Round};
use super::soft;

/// What an invalid operation yields.
pub const INVALID: f64 = f64::from_bits(0xfff8_0000_0000_0000);

/// Whether a value is NaN, asked of its bits for the reason given at [`super::single::is_nan`].
#[inline(always)]
pub fn is_nan(x: f64) -> bool {
    x.to_bits() & !(1 << 63) > 0x7ff0_0000_0000_0000
}

/// `result` of an operation on the operands, any NaN replaced by the one the operands determine.
#[inline(always)]
pub fn finish<const N: usize>(result: f64, operands: [f64; N]) -> f64 {
    let mut nan = INVALID.to_bits();
    for x in operands.into_iter().rev() {
        nan = if is_nan(x) { x.to_bits() | 1 << 51 } else { nan };
    }
    f64::from_bits(if is_nan(result) { nan } else { result.to_bits() })
}

/// `add`.
#[inline(always)]
pub fn add<R: Round>(a: f64, b: f64) -> f64 {
    let sum = match R::MODE {
        Mode::Nearest => a + b,
        mode => f64::from_bits(soft::add(a, b, Format::F64, mode)),
    };
    finish(sum, [a, b])
}

/// `sub`.
#[inline(always)]
pub fn sub<R: Round>(a: f64, b: f64) -> f64 {
    let difference = match R::MODE {
        Mode::Nearest => a - b,
        mode => f64::from_bits(soft::add(a, -b, Format::F64, mode)),
    };
    finish(difference, [a, b])
}

/// `mul`.
#[inline(always)]
pub fn mul<R: Round>(a: f64, b: f64) -> f64 {
    let product = match R::MODE {
        Mode::Nearest => a * b,
        mode => f64::from_bits(soft::mul(a, b, Format::F64, mode)),
    };
    finish(product, [a, b])
}

/// `fma`, and `mad` of floating-point numbers.
#[inline(always)]
pub fn fma<R: Round>(a: f64, b: f64, c: f64) -> f64 {
    let value = match R::MODE {
        Mode::Nearest => a.mul_add(b, c),
        mode => f64::from_bits(soft::fma(a, b, c, Format::F64, mode)),
    };
    finish(value, [a, b, c])
}

/// `div`.
#[inline(always)]
pub fn div<R: Round>(a: f64, b: f64) -> f64 {
    let quotient = match R::MODE {
        Mode::Nearest => a / b,
        mode => f64::from_bits(soft::div(a, b, Format::F64, mode)),
    };
    finish(quotient, [a, b])
}

/// `rcp`.
#[inline(always)]
pub fn rcp<R: Round>(a: f64) -> f64 {
    div::<R>(1.0, a)
}

/// `sqrt`.
#[inline(always)]
pub fn sqrt<R: Round>(a: f64) -> f64 {
    let root = match R::MODE {
        Mode::Nearest => a.sqrt(),
        mode => f64::from_bits(soft::sqrt(a, Format::F64, mode)),
    };
    finish(root, [a])
}

/// An integer that orders like the values, -0 below +0.
#[inline(always)]
fn key(x: f64) -> i64 {
    let bits = x.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// `min`, or `max` if `MAX`: a NaN only if both operands are.
#[inline(always)]
pub fn extremum<const MAX: bool>(a: f64, b: f64) -> f64 {
    let first = if MAX { key(a) > key(b) } else { key(a) < key(b) };
    let chosen = if (first && !is_nan(a)) || is_nan(b) { a } else { b };
    finish(chosen, [a, b])
}

/// `abs`.
#[inline(always)]
pub fn abs(a: f64) -> f64 {
    f64::from_bits(a.to_bits() & !(1 << 63))
}

/// `neg`.
#[inline(always)]
pub fn neg(a: f64) -> f64 {
    f64::from_bits(a.to_bits() ^ 1 << 63)
}

/// `copysign`: the magnitude of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign(a: f64, b: f64) -> f64 {
    f64::from_bits(b.to_bits() & !(1 << 63) | a.to_bits() & 1 << 63)
}
