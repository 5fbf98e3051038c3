//! Floating-point arithmetic of `.f32`, `.f32x2` and `.f64`, and the special functions.

use super::execute::{op, rare};
use super::modifiers::{Modifiers, with_flag, with_mode};
use crate::numeric::round::Mode;
use crate::numeric::{double, single, special};
use crate::row::AluOp;

/// An operation with rounding, `.ftz` and `.sat` in binary32; only round-to-nearest is fast.
macro_rules! rounded {
    ($mode:expr, $ftz:expr, $sat:expr, $R:ident, $FTZ:ident, $SAT:ident => $function:expr) => {
        with_flag!($ftz, $FTZ => with_flag!($sat, $SAT => match $mode {
            Mode::Nearest => {
                type $R = $crate::numeric::round::Rn;
                op($function)
            }
            mode => with_mode!(mode, $R => rare($function)),
        }))
    };
}

/// `add`, `sub`, `mul`, `fma` and `mad`.
pub(super) fn arithmetic(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode();
    if matches!(base, "fma" | "mad") && mode.is_none() {
        return None;
    }
    let mode = mode.unwrap_or(Mode::Nearest);
    match kind {
        "f32" => {
            let (ftz, sat) = (m.flag("ftz"), m.flag("sat"));
            m.end()?;
            single_arithmetic(base, mode, ftz, sat)
        }
        "f32x2" => {
            let ftz = m.flag("ftz");
            m.end()?;
            pair_arithmetic(base, mode, ftz)
        }
        "f64" => {
            m.end()?;
            with_mode!(mode, R => match base {
                "add" => op(double::add::<R>),
                "sub" => op(double::sub::<R>),
                "mul" => op(double::mul::<R>),
                _ => op(double::fma::<R>),
            })
        }
        _ => None,
    }
}

fn single_arithmetic(base: &str, mode: Mode, ftz: bool, sat: bool) -> Option<AluOp> {
    match base {
        "add" => rounded!(mode, ftz, sat, R, FTZ, SAT => single::add::<R, FTZ, SAT>),
        "sub" => rounded!(mode, ftz, sat, R, FTZ, SAT => single::sub::<R, FTZ, SAT>),
        "mul" => rounded!(mode, ftz, sat, R, FTZ, SAT => single::mul::<R, FTZ, SAT>),
        _ => rounded!(mode, ftz, sat, R, FTZ, SAT => single::fma::<R, FTZ, SAT>),
    }
}

fn pair_arithmetic(base: &str, mode: Mode, ftz: bool) -> Option<AluOp> {
    with_mode!(mode, R => with_flag!(ftz, FTZ => match base {
        "add" => op(|a: u64, b: u64| single::pair2(a, b, single::add::<R, FTZ, false>)),
        "sub" => op(|a: u64, b: u64| single::pair2(a, b, single::sub::<R, FTZ, false>)),
        "mul" => op(|a: u64, b: u64| single::pair2(a, b, single::mul::<R, FTZ, false>)),
        "fma" => op(single::pair_fma::<R, FTZ>),
        _ => None,
    }))
}

/// `div`.
pub(super) fn div(kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode();
    let approximate = m.one_of(&["approx", "full"]);
    let ftz = m.flag("ftz");
    m.end()?;
    match (kind, mode, approximate) {
        ("f32", None, Some("full")) => with_flag!(ftz, FTZ => op(special::div_full::<FTZ>)),
        ("f32", None, Some(_)) => with_flag!(ftz, FTZ => op(special::div_approx::<FTZ>)),
        ("f32", Some(mode), None) => {
            with_mode!(mode, R => with_flag!(ftz, FTZ => op(single::div::<R, FTZ>)))
        }
        ("f64", Some(mode), None) if !ftz => with_mode!(mode, R => op(double::div::<R>)),
        _ => None,
    }
}

/// `rcp` and `sqrt`.
pub(super) fn root(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    let (mode, approximate, ftz) = (m.mode(), m.flag("approx"), m.flag("ftz"));
    m.end()?;
    match (base, kind, mode, approximate, ftz) {
        ("rcp", "f32", None, true, _) => with_flag!(ftz, FTZ => op(special::rcp::<FTZ>)),
        ("sqrt", "f32", None, true, _) => with_flag!(ftz, FTZ => op(special::sqrt::<FTZ>)),
        ("rcp", "f64", None, true, true) => op(special::rcp_gross),
        ("rcp", "f32", Some(mode), false, _) => {
            with_mode!(mode, R => with_flag!(ftz, FTZ => op(single::rcp::<R, FTZ>)))
        }
        ("sqrt", "f32", Some(mode), false, _) => {
            with_mode!(mode, R => with_flag!(ftz, FTZ => op(single::sqrt::<R, FTZ>)))
        }
        ("rcp", "f64", Some(mode), false, false) => with_mode!(mode, R => op(double::rcp::<R>)),
        ("sqrt", "f64", Some(mode), false, false) => with_mode!(mode, R => op(double::sqrt::<R>)),
        _ => None,
    }
}

/// `rsqrt`, `lg2`, `sin` and `cos`.
pub(super) fn approximation(base: &str, mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    let (approximate, ftz) = (m.flag("approx"), m.flag("ftz"));
    m.end()?;
    if !approximate {
        return None;
    }
    match (base, kind, ftz) {
        ("rsqrt", "f64", true) => op(special::rsqrt_gross),
        ("rsqrt", "f64", false) => op(special::rsqrt64),
        (_, "f32", _) => with_flag!(ftz, FTZ => match base {
            "rsqrt" => op(special::rsqrt::<FTZ>),
            "lg2" => op(special::lg2::<FTZ>),
            "sin" => op(special::sin::<FTZ>),
            "cos" => op(special::cos::<FTZ>),
            _ => None,
        }),
        _ => None,
    }
}

/// `min` and `max`.
pub(super) fn extremum(max: bool, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    if kind == "f64" {
        m.end()?;
        return with_flag!(max, MAX => op(double::extremum::<MAX>));
    }
    let (ftz, nans) = (m.flag("ftz"), m.flag("NaN"));
    let (xorsign, abs) = (m.flag("xorsign"), m.flag("abs"));
    m.end()?;
    if kind != "f32" || xorsign != abs {
        return None;
    }
    with_flag!(max, MAX => with_flag!(ftz, FTZ => with_flag!(nans, NANS => match xorsign {
        true => op(single::extremum_xorsign::<MAX, FTZ, NANS>),
        false => op(single::extremum::<MAX, FTZ, NANS>),
    })))
}

/// `abs` and `neg`.
pub(super) fn sign(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let ftz = m.flag("ftz");
    m.end()?;
    match (base, kind, ftz) {
        ("abs", "f32", _) => with_flag!(ftz, FTZ => op(single::abs::<FTZ>)),
        ("neg", "f32", _) => with_flag!(ftz, FTZ => op(single::neg::<FTZ>)),
        ("abs", "f64", false) => op(double::abs),
        ("neg", "f64", false) => op(double::neg),
        _ => None,
    }
}

/// `copysign`.
pub(super) fn copysign(mut m: Modifiers) -> Option<AluOp> {
    let kind = m.last()?;
    m.end()?;
    match kind {
        "f32" => op(single::copysign),
        "f64" => op(double::copysign),
        _ => None,
    }
}
