//! Arithmetic in integers: exact operations on binary64 values, rounded once to any format in any direction.
//!
//! All narrower formats convert to binary64 without loss, so these functions serve them too. They are for
//! what the hardware cannot do, not for speed.

use super::round::{Format, Mode};

/// A finite value: `±significand · 2^exponent`.
#[derive(Clone, Copy)]
struct Exact {
    negative: bool,
    significand: u128,
    exponent: i32,
}

impl Exact {
    fn new(value: f64) -> Exact {
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        Exact { negative: bits >> 63 == 1, significand: significand.into(), exponent: field.max(1) - 1075 }
    }

    fn product(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            significand: self.significand * other.significand,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The same value with the highest set bit of the significand at bit 125, so that a sum of two fits.
    fn normalized(self) -> Exact {
        let shift = self.significand.leading_zeros() as i32 - 2;
        Exact { significand: self.significand << shift, exponent: self.exponent - shift, ..self }
    }

    fn round(self, format: Format, mode: Mode) -> u64 {
        format.round(self.negative, self.significand, self.exponent, mode)
    }
}

/// `significand / 2^shift`, the lowest bit set where bits were lost.
fn shift_sticky(significand: u128, shift: i32) -> u128 {
    match shift {
        0 => significand,
        1..=127 => significand >> shift | (significand & ((1 << shift) - 1) != 0) as u128,
        _ => (significand != 0) as u128,
    }
}

/// Encoding of an infinity or a NaN.
fn special(value: f64, format: Format) -> u64 {
    if value.is_nan() {
        return format.nan();
    }
    format.infinity() | if value < 0.0 { format.sign() } else { 0 }
}

/// Encoding of `value`.
pub fn convert(value: f64, format: Format, mode: Mode) -> u64 {
    if !value.is_finite() {
        return special(value, format);
    }
    Exact::new(value).round(format, mode)
}

/// Encoding of an integer.
pub fn from_integer(value: i128, format: Format, mode: Mode) -> u64 {
    format.round(value < 0, value.unsigned_abs(), 0, mode)
}

/// Encoding of `a + b`.
pub fn add(a: f64, b: f64, format: Format, mode: Mode) -> u64 {
    if !(a.is_finite() && b.is_finite()) {
        return special(a + b, format);
    }
    sum(Exact::new(a), Exact::new(b), format, mode)
}

/// Encoding of `a · b`.
pub fn mul(a: f64, b: f64, format: Format, mode: Mode) -> u64 {
    if !(a.is_finite() && b.is_finite()) {
        return special(a * b, format);
    }
    Exact::new(a).product(Exact::new(b)).round(format, mode)
}

/// Encoding of `a · b + c`.
pub fn fma(a: f64, b: f64, c: f64, format: Format, mode: Mode) -> u64 {
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        // A finite product must not overflow to an infinity that meets one of the other sign.
        let product = if a.is_finite() && b.is_finite() { 0.0 } else { a * b };
        return special(product + c, format);
    }
    sum(Exact::new(a).product(Exact::new(b)), Exact::new(c), format, mode)
}

fn sum(a: Exact, b: Exact, format: Format, mode: Mode) -> u64 {
    if a.significand == 0 && b.significand == 0 {
        let negative = if a.negative == b.negative { a.negative } else { mode == Mode::Down };
        return format.round(negative, 0, 0, mode);
    }
    if a.significand == 0 {
        return b.round(format, mode);
    }
    if b.significand == 0 {
        return a.round(format, mode);
    }
    let (a, b) = (a.normalized(), b.normalized());
    let (high, low) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    let shifted = shift_sticky(low.significand, high.exponent - low.exponent);
    if high.negative == low.negative {
        return format.round(high.negative, high.significand + shifted, high.exponent, mode);
    }
    let difference = high.significand as i128 - shifted as i128;
    if difference == 0 {
        return format.round(mode == Mode::Down, 0, 0, mode);
    }
    let negative = high.negative != (difference < 0);
    format.round(negative, difference.unsigned_abs(), high.exponent, mode)
}

/// Encoding of `a / b`.
pub fn div(a: f64, b: f64, format: Format, mode: Mode) -> u64 {
    if !(a.is_finite() && b.is_finite()) || b == 0.0 {
        return match a / b {
            zero if zero == 0.0 => format.round(zero.is_sign_negative(), 0, 0, mode),
            other => special(other, format),
        };
    }
    let negative = a.is_sign_negative() != b.is_sign_negative();
    if a == 0.0 {
        return format.round(negative, 0, 0, mode);
    }
    let (a, b) = (Exact::new(a).normalized(), Exact::new(b));
    let inexact = a.significand % b.significand != 0;
    let quotient = (a.significand / b.significand) | inexact as u128;
    format.round(negative, quotient, a.exponent - b.exponent, mode)
}

/// Encoding of the square root of `a`.
pub fn sqrt(a: f64, format: Format, mode: Mode) -> u64 {
    if a == 0.0 || !a.is_finite() || a < 0.0 {
        return convert(a.sqrt(), format, mode);
    }
    let mut a = Exact::new(a).normalized();
    if a.exponent % 2 != 0 {
        a = Exact { significand: a.significand << 1, exponent: a.exponent - 1, ..a };
    }
    let root = a.significand.isqrt();
    let inexact = root * root != a.significand;
    format.round(false, root | inexact as u128, a.exponent / 2, mode)
}
