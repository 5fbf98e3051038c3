//! Logic, shifts, bit fields, permutations and moves.

use super::execute::{inlined, op};
use super::modifiers::{Modifiers, with_flag};
use crate::numeric::bits::{self, Permute};
use crate::row::AluOp;

/// `and`, `or`, `xor`, `not` and `cnot`.
pub(super) fn logic(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    m.end()?;
    macro_rules! of {
        ($t:ty) => {
            match base {
                "and" => op(|a: $t, b: $t| a & b),
                "or" => op(|a: $t, b: $t| a | b),
                "xor" => op(|a: $t, b: $t| a ^ b),
                "not" => op(|a: $t| !a),
                "cnot" => op(|a: $t| <$t>::from(a == Default::default())),
                _ => None,
            }
        };
    }
    match kind {
        "b16" => of!(u16),
        "b32" => of!(u32),
        "b64" => of!(u64),
        "pred" if base != "cnot" => of!(bool),
        _ => None,
    }
}

/// `shl` and `shr`.
pub(super) fn shift(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    m.end()?;
    match (base, kind) {
        ("shl", "b16") => op(|a: u16, b: u32| bits::shl32(a.into(), b) as u16),
        ("shl", "b32") => op(bits::shl32),
        ("shl", "b64") => op(bits::shl64),
        ("shr", "b16" | "u16") => op(|a: u16, b: u32| bits::shr32(a.into(), b) as u16),
        ("shr", "b32" | "u32") => op(bits::shr32),
        ("shr", "b64" | "u64") => op(bits::shr64),
        ("shr", "s16") => op(|a: i16, b: u32| bits::sar32(a.into(), b) as i16),
        ("shr", "s32") => op(bits::sar32),
        ("shr", "s64") => op(bits::sar64),
        _ => None,
    }
}

/// `shf`.
pub(super) fn funnel(m: &[&str]) -> Option<AluOp> {
    match m {
        ["l", "clamp", "b32"] => op(bits::shf_left::<false>),
        ["l", "wrap", "b32"] => op(bits::shf_left::<true>),
        ["r", "clamp", "b32"] => op(bits::shf_right::<false>),
        ["r", "wrap", "b32"] => op(bits::shf_right::<true>),
        _ => None,
    }
}

/// `popc`, `clz` and `brev`.
pub(super) fn count(base: &str, m: &[&str]) -> Option<AluOp> {
    match (base, m) {
        ("popc", ["b32"]) => op(|a: u32| a.count_ones()),
        ("popc", ["b64"]) => op(|a: u64| a.count_ones()),
        ("clz", ["b32"]) => op(|a: u32| a.leading_zeros()),
        ("clz", ["b64"]) => op(|a: u64| a.leading_zeros()),
        ("brev", ["b32"]) => op(|a: u32| a.reverse_bits()),
        ("brev", ["b64"]) => op(|a: u64| a.reverse_bits()),
        _ => None,
    }
}

/// `bfind`.
pub(super) fn find(m: &[&str]) -> Option<AluOp> {
    use bits::{bfind32, bfind64, shift_amount, unlike_sign32, unlike_sign64};
    match m {
        ["u32"] => op(bfind32),
        ["u64"] => op(bfind64),
        ["s32"] => op(|a: i32| bfind32(unlike_sign32(a))),
        ["s64"] => op(|a: i64| bfind64(unlike_sign64(a))),
        ["shiftamt", "u32"] => op(|a: u32| shift_amount(bfind32(a), 31)),
        ["shiftamt", "u64"] => op(|a: u64| shift_amount(bfind64(a), 63)),
        ["shiftamt", "s32"] => op(|a: i32| shift_amount(bfind32(unlike_sign32(a)), 31)),
        ["shiftamt", "s64"] => op(|a: i64| shift_amount(bfind64(unlike_sign64(a)), 63)),
        _ => None,
    }
}

/// `bfe`, `bfi`, `bmsk`, `szext`, `fns` and `lop3`.
pub(super) fn field(base: &str, m: &[&str]) -> Option<AluOp> {
    match (base, m) {
        ("bfe", ["u32"]) => op(bits::bfe_u32),
        ("bfe", ["s32"]) => op(bits::bfe_s32),
        ("bfe", ["u64"]) => op(bits::bfe_u64),
        ("bfe", ["s64"]) => op(bits::bfe_s64),
        ("bfi", ["b32"]) => inlined!(|a: u32, b: u32, c: u32, d: u32| -> u32 { bits::bfi32(a, b, c, d) }),
        ("bfi", ["b64"]) => op(bits::bfi64),
        ("bmsk", ["clamp", "b32"]) => op(bits::bmsk::<false>),
        ("bmsk", ["wrap", "b32"]) => op(bits::bmsk::<true>),
        ("szext", ["clamp", "u32"]) => op(bits::szext::<false, false>),
        ("szext", ["clamp", "s32"]) => op(bits::szext::<true, false>),
        ("szext", ["wrap", "u32"]) => op(bits::szext::<false, true>),
        ("szext", ["wrap", "s32"]) => op(bits::szext::<true, true>),
        ("fns", ["b32"]) => op(bits::fns),
        ("lop3", ["b32"]) => op(bits::lop3),
        _ => None,
    }
}

/// `prmt`.
pub(super) fn permute(m: &[&str]) -> Option<AluOp> {
    macro_rules! of {
        ($mode:ident) => {
            inlined!(|a: u32, b: u32, c: u32| -> u32 { bits::prmt(Permute::$mode, a, b, c) })
        };
    }
    match m {
        ["b32"] => of!(General),
        ["b32", "f4e"] => of!(Forward),
        ["b32", "b4e"] => of!(Backward),
        ["b32", "rc8"] => of!(Byte),
        ["b32", "ecl"] => of!(EdgeLeft),
        ["b32", "ecr"] => of!(EdgeRight),
        ["b32", "rc16"] => of!(Half),
        _ => None,
    }
}

/// `mov` of whole registers; vectors are taken apart before.
pub(super) fn mov(m: &[&str]) -> Option<AluOp> {
    match m {
        ["b16" | "u16" | "s16"] => op(|a: u16| a),
        ["b32" | "u32" | "s32" | "f32"] => op(|a: u32| a),
        ["b64" | "u64" | "s64" | "f64"] => op(|a: u64| a),
        ["b128"] => op(|a: u128| a),
        ["pred"] => op(|a: bool| a),
        _ => None,
    }
}

/// `selp`.
pub(super) fn select(m: &[&str]) -> Option<AluOp> {
    match m {
        ["b16" | "u16" | "s16"] => op(|a: u16, b: u16, c: bool| if c { a } else { b }),
        ["b32" | "u32" | "s32" | "f32"] => op(|a: u32, b: u32, c: bool| if c { a } else { b }),
        ["b64" | "u64" | "s64" | "f64"] => op(|a: u64, b: u64, c: bool| if c { a } else { b }),
        _ => None,
    }
}

/// `slct`.
pub(super) fn select_sign(mut m: Modifiers) -> Option<AluOp> {
    let (by, kind) = (m.last()?, m.last()?);
    let ftz = m.flag("ftz");
    m.end()?;
    let single = match by {
        "s32" if !ftz => false,
        "f32" => true,
        _ => return None,
    };
    // Flushing keeps the sign of a zero, and a negative zero compares as zero.
    with_flag!(ftz, FTZ => match (kind, single) {
        ("b16" | "u16" | "s16", false) => op(|a: u16, b: u16, c: i32| if c >= 0 { a } else { b }),
        ("b32" | "u32" | "s32" | "f32", false) => op(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        ("b64" | "u64" | "s64" | "f64", false) => op(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        ("b16" | "u16" | "s16", true) => op(|a: u16, b: u16, c: f32| if at_least_zero::<FTZ>(c) { a } else { b }),
        ("b32" | "u32" | "s32" | "f32", true) => {
            op(|a: u32, b: u32, c: f32| if at_least_zero::<FTZ>(c) { a } else { b })
        }
        ("b64" | "u64" | "s64" | "f64", true) => {
            op(|a: u64, b: u64, c: f32| if at_least_zero::<FTZ>(c) { a } else { b })
        }
        _ => None,
    })
}

#[inline(always)]
fn at_least_zero<const FTZ: bool>(x: f32) -> bool {
    crate::numeric::single::flush::<FTZ>(x) >= 0.0
}

/// Whether a type name is one of the integers of arithmetic, packed ones included.
pub(super) fn is_integer(kind: &str) -> bool {
    matches!(kind, "u16" | "u32" | "u64" | "s16" | "s32" | "s64" | "u16x2" | "s16x2")
}
