//! Floating-point arithmetic of `.f16`, `.bf16` and pairs of them.

use super::execute::{inlined, op};
use super::modifiers::{Modifiers, with_flag, with_half};
use crate::numeric::half::{self, Half, high, low, pack};
use crate::numeric::special;
use crate::row::AluOp;

/// Whether a type name is one of those treated here.
pub(super) fn is_half(kind: &str) -> bool {
    matches!(kind, "f16" | "f16x2" | "bf16" | "bf16x2")
}

fn is_pair(kind: &str) -> bool {
    kind.ends_with("x2")
}

#[inline(always)]
fn pair1<T: Half>(a: u32, f: impl Fn(T) -> T) -> u32 {
    pack(f(high(a)), f(low(a)))
}

#[inline(always)]
fn pair2<T: Half>(a: u32, b: u32, f: impl Fn(T, T) -> T) -> u32 {
    pack(f(high(a), high(b)), f(low(a), low(b)))
}

#[inline(always)]
fn pair3<T: Half>(a: u32, b: u32, c: u32, f: impl Fn(T, T, T) -> T) -> u32 {
    pack(f(high(a), high(b), high(c)), f(low(a), low(b), low(c)))
}

/// An instruction on elements or pairs of them.
macro_rules! elementwise {
    ($pairs:ident($($a:ident),*), $pair:expr, $T:ident, $function:expr) => {
        if $pair {
            inlined!(|$($a: u32),*| -> u32 { $pairs::<$T>($($a,)* $function) })
        } else {
            inlined!(|$($a: $T),*| -> $T { $function($($a),*) })
        }
    };
}

macro_rules! unary {
    ($($arguments:tt)*) => {
        elementwise!(pair1(a), $($arguments)*)
    };
}

macro_rules! binary {
    ($($arguments:tt)*) => {
        elementwise!(pair2(a, b), $($arguments)*)
    };
}

macro_rules! ternary {
    ($($arguments:tt)*) => {
        elementwise!(pair3(a, b, c), $($arguments)*)
    };
}

/// `add`, `sub`, `mul` and `fma`.
pub(super) fn arithmetic(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let nearest = m.flag("rn");
    let (ftz, saturate, relu) = (m.flag("ftz"), m.flag("sat"), m.flag("relu"));
    m.end()?;
    let brain = kind.starts_with('b');
    if brain && (ftz || saturate) || base == "fma" && !nearest || relu && (saturate || base != "fma") {
        return None;
    }
    with_half!(kind, T => with_flag!(ftz, FTZ => with_flag!(saturate, SAT => match base {
        "add" => binary!(is_pair(kind), T, half::add::<T, FTZ, SAT>),
        "sub" => binary!(is_pair(kind), T, half::sub::<T, FTZ, SAT>),
        "mul" => binary!(is_pair(kind), T, half::mul::<T, FTZ, SAT>),
        "fma" if relu => ternary!(is_pair(kind), T, half::fma_relu::<T, FTZ>),
        "fma" => ternary!(is_pair(kind), T, half::fma::<T, FTZ, SAT>),
        _ => None,
    })))
}

/// `min` and `max`.
pub(super) fn extremum(max: bool, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let (ftz, nans) = (m.flag("ftz"), m.flag("NaN"));
    let (xorsign, abs) = (m.flag("xorsign"), m.flag("abs"));
    m.end()?;
    if xorsign != abs || ftz && kind.starts_with('b') {
        return None;
    }
    let pair = is_pair(kind);
    with_half!(kind, T => with_flag!(max, MAX => with_flag!(ftz, FTZ => with_flag!(nans, NANS => match xorsign {
        true => binary!(pair, T, half::extremum_xorsign::<T, MAX, FTZ, NANS>),
        false => binary!(pair, T, half::extremum::<T, MAX, FTZ, NANS>),
    }))))
}

/// `abs` and `neg`.
pub(super) fn sign(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let ftz = m.flag("ftz");
    m.end()?;
    if ftz && kind.starts_with('b') {
        return None;
    }
    with_half!(kind, T => with_flag!(ftz, FTZ => match base {
        "abs" => unary!(is_pair(kind), T, half::abs::<T, FTZ>),
        _ => unary!(is_pair(kind), T, half::neg::<T, FTZ>),
    }))
}

/// `ex2` and `tanh`, of these formats and of `.f32`.
pub(super) fn exponential(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    let (approximate, ftz) = (m.flag("approx"), m.flag("ftz"));
    m.end()?;
    if !approximate {
        return None;
    }
    match (base, kind, ftz) {
        ("ex2", "f32", _) => with_flag!(ftz, FTZ => inlined!(|a: f32| -> f32 { special::ex2::<FTZ>(a) })),
        ("tanh", "f32", false) => op(special::tanh),
        ("ex2", "f16" | "f16x2", false) => {
            with_half!(kind, T => unary!(is_pair(kind), T, special::ex2_half::<T>))
        }
        ("ex2", "bf16" | "bf16x2", true) => {
            with_half!(kind, T => unary!(is_pair(kind), T, special::ex2_half_ftz::<T>))
        }
        ("tanh", _, false) if is_half(kind) => {
            with_half!(kind, T => unary!(is_pair(kind), T, special::tanh_half::<T>))
        }
        _ => None,
    }
}
