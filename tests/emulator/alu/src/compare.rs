//! Comparisons: `setp`, `set` and `testp`.

use super::execute::{op, rare};
use super::lane::Lane;
use super::modifiers::{Modifiers, with_flag, with_half};
use crate::numeric::compare::{self, Combination, Comparison};
use crate::numeric::half::{Bf16, F16, Half, high, low};
use crate::numeric::single;
use crate::row::AluOp;

/// Evaluates an expression with a type alias for the comparison called `$name`.
macro_rules! with_comparison {
    (float $name:expr, $C:ident => $body:expr) => {
        with_comparison!($name, $C => $body; "eq" Eq, "ne" Ne, "lt" Lt, "le" Le, "gt" Gt, "ge" Ge,
            "equ" Equ, "neu" Neu, "ltu" Ltu, "leu" Leu, "gtu" Gtu, "geu" Geu, "num" Num, "nan" Nan)
    };
    (integer $name:expr, $C:ident => $body:expr) => {
        with_comparison!($name, $C => $body; "eq" Eq, "ne" Neu, "lt" Lt, "le" Le, "gt" Gt, "ge" Ge)
    };
    ($name:expr, $C:ident => $body:expr; $($text:literal $t:ident),*) => {
        match $name {
            $($text => {
                type $C = compare::$t;
                $body
            })*
            _ => None,
        }
    };
}

/// The name by which a comparison of integers goes for all types, if the type has it.
fn integer_comparison<'n>(name: &'n str, kind: &str) -> Option<&'n str> {
    match (kind.as_bytes().first()?, name) {
        (_, "eq" | "ne") => Some(name),
        (b'b', _) => None,
        (b'u', "lo") => Some("lt"),
        (b'u', "ls") => Some("le"),
        (b'u', "hi") => Some("gt"),
        (b'u', "hs") => Some("ge"),
        _ => Some(name),
    }
}

/// Evaluates an expression with a type alias for an integer type to compare.
macro_rules! with_compared {
    ($kind:expr, $I:ident => $body:expr) => {
        with_compared!($kind, $I => $body; "b16" | "u16", u16; "b32" | "u32", u32; "b64" | "u64", u64;
            "s16", i16; "s32", i32; "s64", i64)
    };
    ($kind:expr, $I:ident => $body:expr; $($text:pat, $t:ty);*) => {
        match $kind {
            $($text => {
                type $I = $t;
                $body
            })*
            _ => None,
        }
    };
}

/// A floating-point value that compares in one of the formats of the host.
trait Compared: Lane {
    type Host: PartialOrd;

    fn host<const FTZ: bool>(self) -> Self::Host;
}

impl Compared for f32 {
    type Host = f32;

    #[inline(always)]
    fn host<const FTZ: bool>(self) -> f32 {
        single::flush::<FTZ>(self)
    }
}

impl Compared for f64 {
    type Host = f64;

    #[inline(always)]
    fn host<const FTZ: bool>(self) -> f64 {
        self
    }
}

#[inline(always)]
fn half_host<T: Half, const FTZ: bool>(x: T) -> f32 {
    // Flushing an operand only matters for what a 16-bit format calls subnormal.
    let subnormal = x.to_bits() & T::FORMAT.infinity() as u16 == 0;
    if FTZ && subnormal { 0.0 } else { x.widen() }
}

impl Compared for F16 {
    type Host = f32;

    #[inline(always)]
    fn host<const FTZ: bool>(self) -> f32 {
        half_host::<F16, FTZ>(self)
    }
}

impl Compared for Bf16 {
    type Host = f32;

    #[inline(always)]
    fn host<const FTZ: bool>(self) -> f32 {
        half_host::<Bf16, FTZ>(self)
    }
}

#[inline(always)]
fn holds<C: Comparison, T: Compared, const FTZ: bool>(a: T, b: T) -> bool {
    C::holds(a.host::<FTZ>(), b.host::<FTZ>())
}

/// Comparisons of the lower and of the upper element.
#[inline(always)]
fn holds_pair<C: Comparison, T: Half + Compared, const FTZ: bool>(a: u32, b: u32) -> (bool, bool) {
    (holds::<C, T, FTZ>(low(a), low(b)), holds::<C, T, FTZ>(high(a), high(b)))
}

/// `setp`.
pub(super) fn setp(mut m: Modifiers) -> Option<AluOp> {
    let (kind, comparison) = (m.last()?, m.first()?);
    let combination = m.one_of(&["and", "or", "xor"]);
    let ftz = m.flag("ftz");
    m.end()?;
    match kind {
        "f32" => with_flag!(ftz, FTZ => setp_float::<f32, FTZ>(comparison, combination)),
        "f64" if !ftz => setp_float::<f64, false>(comparison, combination),
        "f16" => with_flag!(ftz, FTZ => setp_float::<F16, FTZ>(comparison, combination)),
        "bf16" if !ftz => setp_float::<Bf16, false>(comparison, combination),
        "f16x2" => with_flag!(ftz, FTZ => setp_pair::<F16, FTZ>(comparison, combination)),
        "bf16x2" if !ftz => setp_pair::<Bf16, false>(comparison, combination),
        _ if !ftz => {
            let comparison = integer_comparison(comparison, kind)?;
            with_compared!(kind, I => with_comparison!(integer comparison, C => setp_integer::<I, C>(combination)))
        }
        _ => None,
    }
}

fn setp_integer<I: Lane + PartialOrd, C: Comparison>(combination: Option<&str>) -> Option<AluOp> {
    match combination {
        None => op(|a: I, b: I| (C::holds(a, b), !C::holds(a, b))),
        Some("and") => op(|a: I, b: I, c: bool| combined::<compare::And>(C::holds(a, b), c)),
        Some("or") => op(|a: I, b: I, c: bool| combined::<compare::Or>(C::holds(a, b), c)),
        Some(_) => rare(|a: I, b: I, c: bool| combined::<compare::Xor>(C::holds(a, b), c)),
    }
}

#[inline(always)]
fn combined<B: Combination>(compared: bool, c: bool) -> (bool, bool) {
    (B::combine(compared, c), B::combine(!compared, c))
}

fn setp_float<T: Compared, const FTZ: bool>(comparison: &str, combination: Option<&str>) -> Option<AluOp> {
    use compare::{And, Or, Xor};
    with_comparison!(float comparison, C => match combination {
        None => op(|a: T, b: T| (holds::<C, T, FTZ>(a, b), !holds::<C, T, FTZ>(a, b))),
        Some("and") => rare(|a: T, b: T, c: bool| combined::<And>(holds::<C, T, FTZ>(a, b), c)),
        Some("or") => rare(|a: T, b: T, c: bool| combined::<Or>(holds::<C, T, FTZ>(a, b), c)),
        Some(_) => rare(|a: T, b: T, c: bool| combined::<Xor>(holds::<C, T, FTZ>(a, b), c)),
    })
}

fn setp_pair<T: Half + Compared, const FTZ: bool>(
    comparison: &str,
    combination: Option<&str>,
) -> Option<AluOp> {
    use compare::{And, Or, Xor};
    with_comparison!(float comparison, C => match combination {
        None => rare(holds_pair::<C, T, FTZ>),
        Some("and") => rare(|a: u32, b: u32, c: bool| both::<And>(holds_pair::<C, T, FTZ>(a, b), c)),
        Some("or") => rare(|a: u32, b: u32, c: bool| both::<Or>(holds_pair::<C, T, FTZ>(a, b), c)),
        Some(_) => rare(|a: u32, b: u32, c: bool| both::<Xor>(holds_pair::<C, T, FTZ>(a, b), c)),
    })
}

#[inline(always)]
fn both<B: Combination>(compared: (bool, bool), c: bool) -> (bool, bool) {
    (B::combine(compared.0, c), B::combine(compared.1, c))
}

/// What `set` writes for a comparison.
trait Flag: Lane {
    fn flag(holds: bool) -> Self;
}

macro_rules! flags {
    ($($t:ty, $yes:expr, $no:expr;)*) => {
        $(impl Flag for $t {
            #[inline(always)]
            fn flag(holds: bool) -> Self {
                if holds { $yes } else { $no }
            }
        })*
    };
}

flags! {
    u16, u16::MAX, 0;
    u32, u32::MAX, 0;
    f32, 1.0, 0.0;
    F16, F16(0x3c00), F16(0);
    Bf16, Bf16(0x3f80), Bf16(0);
}

/// `set`. Packed types have no form with a source predicate here.
pub(super) fn set(mut m: Modifiers) -> Option<AluOp> {
    let (kind, result, comparison) = (m.last()?, m.last()?, m.first()?);
    let combination = m.one_of(&["and", "or", "xor"]);
    let ftz = m.flag("ftz");
    m.end()?;
    let form = SetForm { comparison, combination, result };
    match kind {
        "f32" => with_flag!(ftz, FTZ => form.float::<f32, FTZ>()),
        "f64" if !ftz => form.float::<f64, false>(),
        "f16" => with_flag!(ftz, FTZ => form.half::<F16, FTZ>("f16")),
        "bf16" if !ftz => form.half::<Bf16, false>("bf16"),
        "f16x2" | "bf16x2" if combination.is_none() && !(ftz && kind == "bf16x2") => {
            let numeric = match result {
                "u32" | "s32" => false,
                _ if result == kind => true,
                _ => return None,
            };
            with_half!(kind, T => with_flag!(ftz, FTZ => with_flag!(numeric, NUMERIC => {
                set_pair::<T, FTZ, NUMERIC>(comparison)
            })))
        }
        _ if !ftz => with_compared!(kind, I => form.integer::<I>(kind)),
        _ => None,
    }
}

/// Modifiers of `set` but the type of its sources.
struct SetForm<'a> {
    comparison: &'a str,
    combination: Option<&'a str>,
    result: &'a str,
}

/// `set` of two operands and perhaps a predicate, where `$holds` compares.
macro_rules! combined_set {
    ($combination:expr, $result:ty, |$a:ident, $b:ident: $t:ty| $holds:expr) => {
        match $combination {
            None => rare(|$a: $t, $b: $t| <$result>::flag($holds)),
            Some("and") => rare(|$a: $t, $b: $t, c: bool| <$result>::flag(compare::And::combine($holds, c))),
            Some("or") => rare(|$a: $t, $b: $t, c: bool| <$result>::flag(compare::Or::combine($holds, c))),
            Some(_) => rare(|$a: $t, $b: $t, c: bool| <$result>::flag(compare::Xor::combine($holds, c))),
        }
    };
}

impl SetForm<'_> {
    fn integer<I: Lane + PartialOrd>(self, kind: &str) -> Option<AluOp> {
        let comparison = integer_comparison(self.comparison, kind)?;
        with_comparison!(integer comparison, C => match self.result {
            "u32" | "s32" => combined_set!(self.combination, u32, |a, b: I| C::holds(a, b)),
            "f32" => combined_set!(self.combination, f32, |a, b: I| C::holds(a, b)),
            _ => None,
        })
    }

    fn float<T: Compared, const FTZ: bool>(self) -> Option<AluOp> {
        with_comparison!(float self.comparison, C => match self.result {
            "u32" | "s32" => combined_set!(self.combination, u32, |a, b: T| holds::<C, T, FTZ>(a, b)),
            "f32" => combined_set!(self.combination, f32, |a, b: T| holds::<C, T, FTZ>(a, b)),
            _ => None,
        })
    }

    fn half<T: Compared + Half + Flag, const FTZ: bool>(self, kind: &str) -> Option<AluOp> {
        with_comparison!(float self.comparison, C => match self.result {
            "u32" | "s32" => combined_set!(self.combination, u32, |a, b: T| holds::<C, T, FTZ>(a, b)),
            "u16" | "s16" => combined_set!(self.combination, u16, |a, b: T| holds::<C, T, FTZ>(a, b)),
            result if result == kind => combined_set!(self.combination, T, |a, b: T| holds::<C, T, FTZ>(a, b)),
            _ => None,
        })
    }
}

/// Each half becomes a number if `NUMERIC`, all ones otherwise, where the comparison holds.
fn set_pair<T: Compared + Half + Flag, const FTZ: bool, const NUMERIC: bool>(
    comparison: &str,
) -> Option<AluOp> {
    with_comparison!(float comparison, C => rare(|a: u32, b: u32| {
        let (low, high) = holds_pair::<C, T, FTZ>(a, b);
        let flag = |holds| u32::from(if NUMERIC { T::flag(holds).to_bits() } else { u16::flag(holds) });
        flag(high) << 16 | flag(low)
    }))
}

/// `testp`.
pub(super) fn test(m: &[&str]) -> Option<AluOp> {
    macro_rules! of {
        ($property:expr, $t:ty) => {
            match $property {
                "finite" => op(|a: $t| a.is_finite()),
                "infinite" => op(|a: $t| a.is_infinite()),
                "number" => op(|a: $t| !a.is_nan()),
                "notanumber" => op(|a: $t| a.is_nan()),
                "normal" => op(|a: $t| a.is_normal()),
                "subnormal" => op(|a: $t| a.is_subnormal()),
                _ => None,
            }
        };
    }
    match *m {
        [property, "f32"] => of!(property, f32),
        [property, "f64"] => of!(property, f64),
        _ => None,
    }
}
