//! `cvt` and `cvt.pack`.

use super::execute::{inlined, op, rare};
use super::lane::Lane;
use super::modifiers::{Modifiers, with_flag, with_half, with_mode};
use crate::numeric::convert::{self, FromFloat, Source};
use crate::numeric::half::{self, Bf16, F16, Half};
use crate::numeric::integer::{Integer, clamp};
use crate::numeric::narrow::{self, E4m3, E5m2};
use crate::numeric::round::{Mode, Rn, Rna};
use crate::numeric::single;
use crate::row::AluOp;

/// Evaluates an expression with a type alias for the integer type called `$name`; `None` for other names.
macro_rules! with_integer {
    ($name:expr, $I:ident => $body:expr) => {
        with_integer!($name, $I => $body; "u8" u8, "u16" u16, "u32" u32, "u64" u64,
            "s8" i8, "s16" i16, "s32" i32, "s64" i64)
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

/// `cvt`.
pub(super) fn cvt(mut m: Modifiers) -> Option<AluOp> {
    if m.flag("pack") {
        return pack(m);
    }
    let (from, to) = (m.last()?, m.last()?);
    match (is_integer(to), is_integer(from)) {
        (true, true) => between_integers(to, from, m),
        (true, false) => to_integer(to, from, m),
        (false, true) => from_integer(to, from, m),
        (false, false) => between_floats(to, from, m),
    }
}

fn is_integer(kind: &str) -> bool {
    matches!(kind, "u8" | "u16" | "u32" | "u64" | "s8" | "s16" | "s32" | "s64")
}

fn between_integers(to: &str, from: &str, mut m: Modifiers) -> Option<AluOp> {
    let saturate = m.flag("sat");
    m.end()?;
    if saturate {
        return with_integer!(from, A => with_integer!(to, D => rare(|a: A| clamp::<D>(a.wide()))));
    }
    // The bits depend on the sign of the destination only where it is extended.
    let to = match to {
        "s16" => "u16",
        "s32" => "u32",
        "s64" => "u64",
        other => other,
    };
    with_integer!(from, A => match to {
        "u8" => op(|a: A| u8::truncate(a.wide())),
        "s8" => op(|a: A| i8::truncate(a.wide())),
        "u16" => op(|a: A| u16::truncate(a.wide())),
        "u32" => op(|a: A| u32::truncate(a.wide())),
        _ => op(|a: A| u64::truncate(a.wide())),
    })
}

fn to_integer(to: &str, from: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.integral_mode()?;
    let ftz = m.flag("ftz");
    // Conversions to integers clamp anyway.
    m.flag("sat");
    m.end()?;
    if ftz && from != "f32" {
        return None;
    }
    match from {
        // Flushing matters where a value is rounded away from zero.
        "f32" if ftz => with_mode!(mode, R => with_integer!(to, D => {
            rare(|a: f32| convert::to_integer::<D, f32, R>(single::flush::<true>(a)))
        })),
        "f32" => with_mode!(mode, R => with_integer!(to, D => op(convert::to_integer::<D, f32, R>))),
        "f64" => to_integer_from::<f64>(to, mode),
        "f16" => to_integer_from::<F16>(to, mode),
        "bf16" => to_integer_from::<Bf16>(to, mode),
        _ => None,
    }
}

fn to_integer_from<S: Source + Lane>(to: &str, mode: Mode) -> Option<AluOp> {
    fn one<D: FromFloat + Lane, S: Source + Lane>(mode: Mode) -> Option<AluOp> {
        with_mode!(mode, R => rare(convert::to_integer::<D, S, R>))
    }
    with_integer!(to, D => one::<D, S>(mode))
}

fn from_integer(to: &str, from: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode()?;
    let saturate = m.flag("sat");
    m.end()?;
    with_integer!(from, A => with_flag!(saturate, SAT => match (to, mode) {
        ("f32", Mode::Nearest) => op(convert::integer_to_single::<A, Rn, SAT>),
        ("f64", Mode::Nearest) => op(convert::integer_to_double::<A, Rn, SAT>),
        ("f32", mode) => with_mode!(mode, R => rare(convert::integer_to_single::<A, R, SAT>)),
        ("f64", mode) => with_mode!(mode, R => rare(convert::integer_to_double::<A, R, SAT>)),
        ("f16", mode) => with_mode!(mode, R => rare(convert::integer_to_half::<A, F16, R, SAT>)),
        ("bf16", mode) if !saturate => {
            with_mode!(mode, R => rare(convert::integer_to_half::<A, Bf16, R, false>))
        }
        _ => None,
    }))
}

fn between_floats(to: &str, from: &str, m: Modifiers) -> Option<AluOp> {
    match (to, from) {
        ("f32", "f32") | ("f64", "f64") | ("f16", "f16") | ("bf16", "bf16") => same(to, m),
        ("f64", _) => to_double(from, m),
        ("f32", "f64") => double_to_single(m),
        ("f32", _) => half_to_single(from, m),
        ("f16" | "bf16", "f32") => single_to_half(to, m),
        ("f16x2" | "bf16x2", "f32") => singles_to_pair(to, m),
        ("f16" | "bf16", _) => wide_to_half(to, from, m),
        ("tf32", "f32") => to_tf32(m),
        ("e4m3x2" | "e5m2x2", _) => to_bytes(to, from, m),
        ("f16x2", "e4m3x2" | "e5m2x2") => from_bytes(from, m),
        _ => None,
    }
}

/// Within one format, to an integral value if there is a rounding.
fn same(kind: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.integral_mode();
    let (ftz, saturate) = (m.flag("ftz"), m.flag("sat"));
    m.end()?;
    if ftz && kind != "f32" || saturate && kind == "bf16" {
        return None;
    }
    with_flag!(saturate, SAT => match (kind, mode) {
        ("f32", None) => with_flag!(ftz, FTZ => op(|a: f32| single::finish::<FTZ, SAT>(a))),
        ("f64", None) => op(|a: f64| if SAT { convert::saturate(a) } else { a }),
        ("f32", Some(mode)) => {
            with_mode!(mode, R => with_flag!(ftz, FTZ => op(convert::single_to_integral::<R, FTZ, SAT>)))
        }
        ("f64", Some(mode)) => with_mode!(mode, R => op(convert::double_to_double::<R, SAT>)),
        ("f16", None) => rare(|a: F16| if SAT { half::saturate(a) } else { a }),
        ("bf16", None) => rare(|a: Bf16| a),
        (_, Some(mode)) => {
            with_half!(kind, T => with_mode!(mode, R => rare(convert::half_to_integral::<T, R, SAT>)))
        }
        _ => None,
    })
}

fn to_double(from: &str, mut m: Modifiers) -> Option<AluOp> {
    let (ftz, saturate) = (m.flag("ftz"), m.flag("sat"));
    m.end()?;
    with_flag!(saturate, SAT => match from {
        "f32" => {
            with_flag!(ftz, FTZ => op(|a: f32| convert::to_double::<f32, SAT>(single::flush::<FTZ>(a))))
        }
        "f16" if !ftz => op(convert::to_double::<F16, SAT>),
        "bf16" if !ftz && !saturate => op(convert::to_double::<Bf16, false>),
        _ => None,
    })
}

fn double_to_single(mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode()?;
    let (ftz, saturate) = (m.flag("ftz"), m.flag("sat"));
    m.end()?;
    with_mode!(mode, R => with_flag!(ftz, FTZ => with_flag!(saturate, SAT => {
        op(convert::double_to_single::<R, FTZ, SAT>)
    })))
}

fn half_to_single(from: &str, mut m: Modifiers) -> Option<AluOp> {
    let (ftz, saturate) = (m.flag("ftz"), m.flag("sat"));
    m.end()?;
    with_flag!(ftz, FTZ => with_flag!(saturate, SAT => match from {
        "f16" => inlined!(|a: F16| -> f32 { single::finish::<FTZ, SAT>(a.widen()) }),
        "bf16" if !saturate => op(|a: Bf16| single::finish::<FTZ, false>(a.widen())),
        _ => None,
    }))
}

fn single_to_half(to: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode()?;
    let (ftz, saturate) = (m.flag("ftz"), m.flag("sat"));
    let (relu, finite) = (m.flag("relu"), m.flag("satfinite"));
    m.end()?;
    if ftz || saturate {
        let allowed = to == "f16" && !relu && !finite;
        return if allowed { single_to_f16(mode, ftz, saturate) } else { None };
    }
    with_half!(to, T => with_flag!(relu, RELU => with_flag!(finite, FINITE => match mode {
        Mode::Nearest => op(convert::single_to_half::<T, Rn, RELU, FINITE>),
        mode => with_mode!(mode, R => rare(convert::single_to_half::<T, R, RELU, FINITE>)),
    })))
}

/// The forms with `.ftz`, which is about the source, and `.sat`.
fn single_to_f16(mode: Mode, ftz: bool, saturate: bool) -> Option<AluOp> {
    with_mode!(mode, R => with_flag!(ftz, FTZ => with_flag!(saturate, SAT => rare(|a: f32| {
        let value = convert::single_to_half::<F16, R, false, false>(single::flush::<FTZ>(a));
        if SAT { half::saturate(value) } else { value }
    }))))
}

fn singles_to_pair(to: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode()?;
    let (relu, finite) = (m.flag("relu"), m.flag("satfinite"));
    m.end()?;
    with_half!(to, T => with_flag!(relu, RELU => with_flag!(finite, FINITE => match mode {
        Mode::Nearest => inlined!(|a: f32, b: f32| -> u32 { convert::pair_to_half::<T, Rn, RELU, FINITE>(a, b) }),
        mode => with_mode!(mode, R => rare(convert::pair_to_half::<T, R, RELU, FINITE>)),
    })))
}

fn wide_to_half(to: &str, from: &str, mut m: Modifiers) -> Option<AluOp> {
    let mode = m.mode()?;
    let saturate = m.flag("sat");
    m.end()?;
    if saturate && to == "bf16" {
        return None;
    }
    with_mode!(mode, R => with_flag!(saturate, SAT => match (to, from) {
        ("f16", "f64") => rare(|a: f64| clamped::<F16, SAT>(convert::wide_to_half::<f64, F16, R>(a))),
        ("f16", "bf16") => rare(|a: Bf16| clamped::<F16, SAT>(convert::wide_to_half::<Bf16, F16, R>(a))),
        ("bf16", "f64") => rare(convert::wide_to_half::<f64, Bf16, R>),
        ("bf16", "f16") => rare(convert::wide_to_half::<F16, Bf16, R>),
        _ => None,
    }))
}

#[inline(always)]
fn clamped<T: Half, const SAT: bool>(x: T) -> T {
    if SAT { half::saturate(x) } else { x }
}

fn to_tf32(mut m: Modifiers) -> Option<AluOp> {
    let away = m.flag("rna");
    let mode = if away { None } else { Some(m.mode()?) };
    let (relu, finite) = (m.flag("relu"), m.flag("satfinite"));
    m.end()?;
    with_flag!(relu, RELU => with_flag!(finite, FINITE => match mode {
        None if !relu => op(narrow::to_tf32::<Rna, false, FINITE>),
        Some(mode @ (Mode::Nearest | Mode::Zero)) => {
            with_mode!(mode, R => op(narrow::to_tf32::<R, RELU, FINITE>))
        }
        _ => None,
    }))
}

fn to_bytes(to: &str, from: &str, mut m: Modifiers) -> Option<AluOp> {
    let (nearest, finite) = (m.flag("rn"), m.flag("satfinite"));
    let relu = m.flag("relu");
    m.end()?;
    if !(nearest && finite) {
        return None;
    }
    with_flag!(relu, RELU => match (to, from) {
        ("e4m3x2", "f32") => inlined!(|a: f32, b: f32| -> u16 { narrow::encode_pair::<E4m3>(a, b, RELU) }),
        ("e5m2x2", "f32") => inlined!(|a: f32, b: f32| -> u16 { narrow::encode_pair::<E5m2>(a, b, RELU) }),
        ("e4m3x2", "f16x2") => op(|a: u32| {
            narrow::encode_pair::<E4m3>(half::high::<F16>(a).widen(), half::low::<F16>(a).widen(), RELU)
        }),
        ("e5m2x2", "f16x2") => op(|a: u32| {
            narrow::encode_pair::<E5m2>(half::high::<F16>(a).widen(), half::low::<F16>(a).widen(), RELU)
        }),
        _ => None,
    })
}

fn from_bytes(from: &str, mut m: Modifiers) -> Option<AluOp> {
    let nearest = m.flag("rn");
    let relu = m.flag("relu");
    m.end()?;
    if !nearest {
        return None;
    }
    with_flag!(relu, RELU => match from {
        "e4m3x2" => op(|a: u16| narrow::decode_pair::<E4m3>(a, RELU)),
        _ => op(|a: u16| narrow::decode_pair::<E5m2>(a, RELU)),
    })
}

/// `cvt.pack`.
fn pack(mut m: Modifiers) -> Option<AluOp> {
    macro_rules! of {
        ($bits:literal, $signed:literal) => {
            op(|a: i32, b: i32, c: u32| convert::pack(a, b, c, $bits, $signed))
        };
    }
    if m.flag("b32") {
        let (source, to, saturate) = (m.last()?, m.last()?, m.flag("sat"));
        m.end()?;
        return match (to, source, saturate) {
            ("u8", "s32", true) => of!(8, false),
            ("s8", "s32", true) => of!(8, true),
            ("u4", "s32", true) => of!(4, false),
            ("s4", "s32", true) => of!(4, true),
            ("u2", "s32", true) => of!(2, false),
            ("s2", "s32", true) => of!(2, true),
            _ => None,
        };
    }
    let (source, to, saturate) = (m.last()?, m.last()?, m.flag("sat"));
    m.end()?;
    match (to, source, saturate) {
        ("u16", "s32", true) => op(|a: i32, b: i32| convert::pack(a, b, 0, 16, false)),
        ("s16", "s32", true) => op(|a: i32, b: i32| convert::pack(a, b, 0, 16, true)),
        _ => None,
    }
}
