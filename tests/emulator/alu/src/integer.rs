//! Integer arithmetic.

use super::execute::{op, rare};
use super::lane::Lane;
use super::modifiers::{Modifiers, with_flag};
use crate::numeric::integer::{self, Integer, clamp, pair};
use crate::row::AluOp;

/// Evaluates an expression with a type alias for the integer type called `$name`; `None` for other names.
macro_rules! with_integer {
    ($name:expr, $I:ident => $body:expr) => {
        with_integer!($name, $I => $body; "u16" u16, "u32" u32, "u64" u64, "s16" i16, "s32" i32, "s64" i64)
    };
    ($name:expr, $I:ident => $body:expr; $($text:literal $t:ty),*) => {
        match $name {
            $($text => {
                type $I = $t;
                $body
            })*
            _ => None,
        }
    };
}

/// `add`, `sub`, `div`, `rem`, `min`, `max`, `abs` and `neg`.
pub(super) fn arithmetic(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let (saturate, relu, carry) = (m.flag("sat"), m.flag("relu"), m.flag("cc"));
    m.end()?;
    match (saturate, relu, carry) {
        (false, false, false) if matches!(base, "abs" | "neg") => sign(base, kind),
        (false, false, false) if kind.ends_with("x2") => packed(base, kind),
        (false, false, false) => plain(base, kind),
        (true, false, false) => saturating(base, kind),
        (false, true, false) => rectified(base, kind),
        (false, false, true) => chain(base, true, kind),
        _ => None,
    }
}

fn plain(base: &str, kind: &str) -> Option<AluOp> {
    with_integer!(kind, I => match base {
        "add" => op(|a: I, b: I| a.add(b)),
        "sub" => op(|a: I, b: I| a.sub(b)),
        "div" => op(|a: I, b: I| Integer::div(a, b)),
        "rem" => op(|a: I, b: I| Integer::rem(a, b)),
        "min" => op(|a: I, b: I| a.min(b)),
        "max" => op(|a: I, b: I| a.max(b)),
        _ => None,
    })
}

fn sign(base: &str, kind: &str) -> Option<AluOp> {
    macro_rules! of {
        ($t:ty) => {
            if base == "abs" { op(<$t>::wrapping_abs) } else { op(<$t>::wrapping_neg) }
        };
    }
    match kind {
        "s16" => of!(i16),
        "s32" => of!(i32),
        "s64" => of!(i64),
        _ => None,
    }
}

fn packed(base: &str, kind: &str) -> Option<AluOp> {
    match (base, kind) {
        ("add", "u16x2" | "s16x2") => op(|a: u32, b: u32| pair(a, b, u16::wrapping_add)),
        ("min", "u16x2") => op(|a: u32, b: u32| pair(a, b, u16::min)),
        ("max", "u16x2") => op(|a: u32, b: u32| pair(a, b, u16::max)),
        ("min", "s16x2") => op(|a: u32, b: u32| pair(a, b, |x, y| (x as i16).min(y as i16) as u16)),
        ("max", "s16x2") => op(|a: u32, b: u32| pair(a, b, |x, y| (x as i16).max(y as i16) as u16)),
        _ => None,
    }
}

fn saturating(base: &str, kind: &str) -> Option<AluOp> {
    match (base, kind) {
        ("add", "s32") => op(i32::saturating_add),
        ("sub", "s32") => op(i32::saturating_sub),
        _ => None,
    }
}

fn rectified(base: &str, kind: &str) -> Option<AluOp> {
    match (base, kind) {
        ("min", "s32") => op(|a: i32, b: i32| a.min(b).max(0)),
        ("max", "s32") => op(|a: i32, b: i32| a.max(b).max(0)),
        ("min", "s16x2") => op(|a: u32, b: u32| pair(a, b, |x, y| (x as i16).min(y as i16).max(0) as u16)),
        ("max", "s16x2") => op(|a: u32, b: u32| pair(a, b, |x, y| (x as i16).max(y as i16).max(0) as u16)),
        _ => None,
    }
}

/// `addc` and `subc`, and `add.cc` and `sub.cc`: the carry is a predicate, read as the last source and
/// written as the second destination.
pub(super) fn carry(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    let out = m.flag("cc");
    m.end()?;
    chain(base, out, kind)
}

fn chain(base: &str, out: bool, kind: &str) -> Option<AluOp> {
    use integer::{add_carry32, add_carry64, sub_borrow32, sub_borrow64};
    let wide = match kind {
        "u32" | "s32" => false,
        "u64" | "s64" => true,
        _ => return None,
    };
    match (base, out, wide) {
        ("add", true, false) => op(|a: u32, b: u32| add_carry32(a, b, false)),
        ("add", true, true) => op(|a: u64, b: u64| add_carry64(a, b, false)),
        ("addc", true, false) => op(add_carry32),
        ("addc", true, true) => op(add_carry64),
        ("addc", false, false) => op(|a: u32, b: u32, c: bool| add_carry32(a, b, c).0),
        ("addc", false, true) => op(|a: u64, b: u64, c: bool| add_carry64(a, b, c).0),
        ("sub", true, false) => op(|a: u32, b: u32| sub_borrow32(a, b, false)),
        ("sub", true, true) => op(|a: u64, b: u64| sub_borrow64(a, b, false)),
        ("subc", true, false) => op(sub_borrow32),
        ("subc", true, true) => op(sub_borrow64),
        ("subc", false, false) => op(|a: u32, b: u32, c: bool| sub_borrow32(a, b, c).0),
        ("subc", false, true) => op(|a: u64, b: u64, c: bool| sub_borrow64(a, b, c).0),
        _ => None,
    }
}

/// `mul` and `mad` of integers.
pub(super) fn product(add: bool, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let part = m.one_of(&["lo", "hi", "wide"])?;
    let (saturate, carry) = (m.flag("sat"), m.flag("cc"));
    m.end()?;
    match (saturate, carry) {
        (false, false) => plain_product(add, part, kind),
        (true, false) if add && part == "hi" && kind == "s32" => {
            op(|a: i32, b: i32, c: i32| a.mul_hi(b).saturating_add(c))
        }
        (false, true) if add => product_chain(part, false, true, kind),
        _ => None,
    }
}

fn plain_product(add: bool, part: &str, kind: &str) -> Option<AluOp> {
    match (part, add) {
        ("wide", _) => wide_product(add, kind),
        ("lo", false) => with_integer!(kind, I => op(|a: I, b: I| a.mul_lo(b))),
        ("hi", false) => with_integer!(kind, I => op(|a: I, b: I| a.mul_hi(b))),
        ("lo", true) => with_integer!(kind, I => op(|a: I, b: I, c: I| a.mul_lo(b).add(c))),
        ("hi", true) => with_integer!(kind, I => op(|a: I, b: I, c: I| a.mul_hi(b).add(c))),
        _ => None,
    }
}

fn wide_product(add: bool, kind: &str) -> Option<AluOp> {
    fn wide<N: Lane + Into<W>, W: Lane + Integer>(add: bool) -> Option<AluOp> {
        if add {
            op(|a: N, b: N, c: W| a.into().mul_lo(b.into()).add(c))
        } else {
            op(|a: N, b: N| a.into().mul_lo(b.into()))
        }
    }
    match kind {
        "u16" => wide::<u16, u32>(add),
        "s16" => wide::<i16, i32>(add),
        "u32" => wide::<u32, u64>(add),
        "s32" => wide::<i32, i64>(add),
        _ => None,
    }
}

/// `madc`: as [`carry`].
pub(super) fn madc(mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    let part = m.one_of(&["lo", "hi"])?;
    let out = m.flag("cc");
    m.end()?;
    product_chain(part, true, out, kind)
}

fn product_chain(part: &str, carry: bool, out: bool, kind: &str) -> Option<AluOp> {
    with_flag!(part == "hi", HI => match kind {
        "u32" => chain32::<u32, HI>(carry, out),
        "s32" => chain32::<i32, HI>(carry, out),
        "u64" => chain64::<u64, HI>(carry, out),
        "s64" => chain64::<i64, HI>(carry, out),
        _ => None,
    })
}

#[inline(always)]
fn half_product<I: Integer, const HI: bool>(a: I, b: I) -> i128 {
    if HI { a.mul_hi(b).wide() } else { a.mul_lo(b).wide() }
}

fn chain32<I: Lane + Integer, const HI: bool>(carry: bool, out: bool) -> Option<AluOp> {
    use integer::add_carry32 as sum;
    match (carry, out) {
        (false, _) => rare(|a: I, b: I, c: u32| sum(half_product::<I, HI>(a, b) as u32, c, false)),
        (true, true) => rare(|a: I, b: I, c: u32, d: bool| sum(half_product::<I, HI>(a, b) as u32, c, d)),
        (true, false) => rare(|a: I, b: I, c: u32, d: bool| sum(half_product::<I, HI>(a, b) as u32, c, d).0),
    }
}

fn chain64<I: Lane + Integer, const HI: bool>(carry: bool, out: bool) -> Option<AluOp> {
    use integer::add_carry64 as sum;
    match (carry, out) {
        (false, _) => rare(|a: I, b: I, c: u64| sum(half_product::<I, HI>(a, b) as u64, c, false)),
        (true, true) => rare(|a: I, b: I, c: u64, d: bool| sum(half_product::<I, HI>(a, b) as u64, c, d)),
        (true, false) => rare(|a: I, b: I, c: u64, d: bool| sum(half_product::<I, HI>(a, b) as u64, c, d).0),
    }
}

/// `mul24` and `mad24`.
pub(super) fn product24(add: bool, mut m: Modifiers) -> Option<AluOp> {
    use integer::{mul24_hi, mul24_lo};
    let signed = match m.last()? {
        "u32" => false,
        "s32" => true,
        _ => return None,
    };
    let part = m.one_of(&["lo", "hi"])?;
    let saturate = m.flag("sat");
    m.end()?;
    with_flag!(signed, S => match (part, add, saturate) {
        ("lo", false, false) => op(mul24_lo::<S>),
        ("hi", false, false) => op(mul24_hi::<S>),
        ("lo", true, false) => op(|a: u32, b: u32, c: u32| mul24_lo::<S>(a, b).wrapping_add(c)),
        ("hi", true, false) => op(|a: u32, b: u32, c: u32| mul24_hi::<S>(a, b).wrapping_add(c)),
        ("hi", true, true) if signed => {
            op(|a: u32, b: u32, c: i32| clamp::<i32>((mul24_hi::<true>(a, b) as i32).wide() + c.wide()))
        }
        _ => None,
    })
}

/// `sad`.
pub(super) fn sad(mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    m.end()?;
    with_integer!(kind, I => op(integer::sad::<I>))
}

/// `dp4a` and `dp2a`.
pub(super) fn dot(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let (b, a) = (m.last()?, m.last()?);
    let part = m.one_of(&["lo", "hi"]);
    m.end()?;
    let signed = |name| match name {
        "u32" => Some(false),
        "s32" => Some(true),
        _ => None,
    };
    let (a, b) = (signed(a)?, signed(b)?);
    with_flag!(a, A => with_flag!(b, B => match (base, part) {
        ("dp4a", None) => op(integer::dp4a::<A, B>),
        ("dp2a", Some("lo")) => op(integer::dp2a::<A, B, false>),
        ("dp2a", Some(_)) => op(integer::dp2a::<A, B, true>),
        _ => None,
    }))
}
