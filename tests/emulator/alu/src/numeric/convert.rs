//! `cvt` between integers and floating-point formats, and within either.

use super::half::{Half, relu};
use super::integer::Integer;
use super::narrow::saturate_finite;
use super::round::{Format, Mode, Round};
use super::{double, single, soft};

/// Rounds to an integral value.
#[inline(always)]
pub fn integral<R: Round>(x: f64) -> f64 {
    match R::MODE {
        Mode::Nearest => x.round_ties_even(),
        Mode::Away => x.round(),
        Mode::Zero => x.trunc(),
        Mode::Down => x.floor(),
        Mode::Up => x.ceil(),
    }
}

/// Rounds a binary32 value to an integral one.
#[inline(always)]
pub fn integral32<R: Round>(x: f32) -> f32 {
    match R::MODE {
        Mode::Nearest => x.round_ties_even(),
        Mode::Away => x.round(),
        Mode::Zero => x.trunc(),
        Mode::Down => x.floor(),
        Mode::Up => x.ceil(),
    }
}

/// A floating-point number as a source of `cvt`.
pub trait Source: Copy {
    /// Whether NaN converts to the smallest signed value of any integer type, and not only of 64-bit ones.
    const DOUBLE: bool;
    /// The value in binary64.
    fn wide(self) -> f64;
}

impl Source for f32 {
    const DOUBLE: bool = false;

    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }
}

impl Source for f64 {
    const DOUBLE: bool = true;

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

macro_rules! half_source {
    ($($t:ty)*) => {
        $(impl Source for $t {
            const DOUBLE: bool = false;

            #[inline(always)]
            fn wide(self) -> f64 {
                self.widen().into()
            }
        })*
    };
}

half_source! { super::half::F16 super::half::Bf16 }

/// An integer as a destination of `cvt`.
pub trait FromFloat: Integer {
    /// Truncated and clamped; 0 for NaN.
    fn clamped(x: f64) -> Self;
    /// Only the highest bit set.
    fn top() -> Self;
}

macro_rules! from_float {
    ($($t:ty)*) => {
        $(impl FromFloat for $t {
            #[inline(always)]
            fn clamped(x: f64) -> Self {
                x as $t
            }

            #[inline(always)]
            fn top() -> Self {
                1 << (<$t>::BITS - 1)
            }
        })*
    };
}

from_float! { u8 u16 u32 u64 i8 i16 i32 i64 }

/// `cvt` to an integer: rounded and clamped. NaN becomes 0, or the highest bit alone where a 64-bit type is
/// involved.
#[inline(always)]
pub fn to_integer<I: FromFloat, S: Source, R: Round>(x: S) -> I {
    let x = x.wide();
    let nan = if S::DOUBLE || I::BITS == 64 { I::top() } else { I::truncate(0) };
    if x.is_nan() { nan } else { I::clamped(integral::<R>(x)) }
}

/// `cvt` of an integer to binary32.
#[inline(always)]
pub fn integer_to_single<I: Integer, R: Round, const SAT: bool>(x: I) -> f32 {
    let value = match R::MODE {
        Mode::Nearest if I::MIN.wide() == 0 => I::wide(x) as u64 as f32,
        Mode::Nearest => I::wide(x) as i64 as f32,
        mode => f32::from_bits(soft::from_integer(x.wide(), Format::F32, mode) as u32),
    };
    single::finish::<false, SAT>(value)
}

/// `cvt` of an integer to binary64.
#[inline(always)]
pub fn integer_to_double<I: Integer, R: Round, const SAT: bool>(x: I) -> f64 {
    let value = match R::MODE {
        Mode::Nearest if I::MIN.wide() == 0 => I::wide(x) as u64 as f64,
        Mode::Nearest => I::wide(x) as i64 as f64,
        mode => f64::from_bits(soft::from_integer(x.wide(), Format::F64, mode)),
    };
    if SAT { saturate(value) } else { value }
}

/// `cvt` of an integer to a 16-bit format.
#[inline(always)]
pub fn integer_to_half<I: Integer, T: Half, R: Round, const SAT: bool>(x: I) -> T {
    let value = T::from_bits(soft::from_integer(x.wide(), T::FORMAT, R::MODE) as u16);
    if SAT { super::half::saturate(value) } else { value }
}

/// Clamps to [0, 1]; +0 for NaN and -0.
#[inline(always)]
pub fn saturate(x: f64) -> f64 {
    let positive = if x > 0.0 { x } else { 0.0 };
    if positive < 1.0 { positive } else { 1.0 }
}

/// `cvt.f32.f64`.
#[inline(always)]
pub fn double_to_single<R: Round, const FTZ: bool, const SAT: bool>(x: f64) -> f32 {
    let value = match R::MODE {
        Mode::Nearest => x as f32,
        mode => f32::from_bits(soft::convert(x, Format::F32, mode) as u32),
    };
    single::finish::<FTZ, SAT>(value)
}

/// `cvt.f64.f32` and from narrower formats.
#[inline(always)]
pub fn to_double<S: Source, const SAT: bool>(x: S) -> f64 {
    let value = x.wide();
    let nan = 0x7fff_ffff_ffff_ffff;
    let value = f64::from_bits(if double::is_nan(value) { nan } else { value.to_bits() });
    if SAT { saturate(value) } else { value }
}

/// `cvt` of binary64 to itself, rounded to an integral value.
#[inline(always)]
pub fn double_to_double<R: Round, const SAT: bool>(x: f64) -> f64 {
    let value = double::finish(integral::<R>(x), [x]);
    if SAT { saturate(value) } else { value }
}

/// `cvt` of binary32 to itself, rounded to an integral value.
#[inline(always)]
pub fn single_to_integral<R: Round, const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    single::finish::<FTZ, SAT>(integral32::<R>(single::flush::<FTZ>(x)))
}

/// `cvt` of a 16-bit format to itself, rounded to an integral value.
#[inline(always)]
pub fn half_to_integral<T: Half, R: Round, const SAT: bool>(x: T) -> T {
    let value = T::narrow(integral32::<R>(x.widen()));
    if SAT { super::half::saturate(value) } else { value }
}

/// `cvt` of binary32 to a 16-bit format.
#[inline(always)]
pub fn single_to_half<T: Half, R: Round, const RELU: bool, const FINITE: bool>(x: f32) -> T {
    let value = match R::MODE {
        Mode::Nearest => T::narrow(x),
        mode => T::from_bits(soft::convert(x.into(), T::FORMAT, mode) as u16),
    };
    let value = if FINITE { finite(value) } else { value };
    if RELU { relu(value) } else { value }
}

/// `cvt` of any other floating-point format to a 16-bit one.
#[inline(always)]
pub fn wide_to_half<S: Source, T: Half, R: Round>(x: S) -> T {
    T::from_bits(soft::convert(x.wide(), T::FORMAT, R::MODE) as u16)
}

#[inline(always)]
fn finite<T: Half>(x: T) -> T {
    T::from_bits(saturate_finite(x.to_bits().into(), T::FORMAT) as u16)
}

/// `cvt` of two binary32 values to a packed pair, `high` in the upper half.
#[inline(always)]
pub fn pair_to_half<T: Half, R: Round, const RELU: bool, const FINITE: bool>(high: f32, low: f32) -> u32 {
    let one = |x: f32| u32::from(single_to_half::<T, R, RELU, FINITE>(x).to_bits());
    one(high) << 16 | one(low)
}

/// `cvt.pack`: two integers clamped to `bits` bits each, `a` above `b`, and above both the low bits of `c`.
#[inline(always)]
pub fn pack(a: i32, b: i32, c: u32, bits: u32, signed: bool) -> u32 {
    let (min, max) =
        if signed { (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1) } else { (0, (1i64 << bits) - 1) };
    let field = |x: i32| i64::from(x).clamp(min, max) as u32 & ((1u64 << bits) - 1) as u32;
    let above = if bits < 16 { c << (2 * bits) } else { 0 };
    above | field(a) << bits | field(b)
}
