//! Approximate functions against the error bounds and special values that the PTX ISA documents.

use crate::exact::{BF16, F16, F32};
use crate::machine::{Instruction, once};
use crate::samples::{COUNT, Random, edges, floats};
use std::f64::consts::{LN_2, PI};

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

const NAN: u64 = 0x7fff_ffff;
const INFINITY: f32 = f32::INFINITY;

/// Random values of binary32 in a range, with exponents spread evenly.
fn values(low: f32, high: f32, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let (low_bits, high_bits) = (low.to_bits(), high.to_bits());
    let span = u64::from(high_bits - low_bits) + 1;
    (0..COUNT).map(|_| u64::from(low_bits) + random.next() % span).collect()
}

fn both_signs(values: Vec<u64>) -> Vec<u64> {
    values.iter().flat_map(|&x| [x, x | F32.sign()]).collect()
}

/// Checks all results of an instruction of binary32 with `within(result, exact, operand)`.
fn check(name: &str, operands: &[u64], exact: impl Fn(f64) -> f64, within: impl Fn(f64, f64) -> bool) {
    let results = Instruction::new(name).values(&[operands]);
    for (&x, &result) in operands.iter().zip(&results) {
        let (operand, result) = (f32::from_bits(x as u32), f32::from_bits(result as u32));
        let exact = exact(operand.into());
        assert!(within(result.into(), exact), "{name} of {operand:e}: {result:e}, not {exact:e}");
    }
}

/// A relative error, or an absolute one of the smallest subnormal value where the result is subnormal.
fn relative(bound: f64) -> impl Fn(f64, f64) -> bool {
    move |result, exact| {
        let error = (result - exact).abs();
        error <= bound * exact.abs() || exact.abs() < f64::from(f32::MIN_POSITIVE) && error <= 2f64.powi(-149)
    }
}

fn absolute(bound: f64) -> impl Fn(f64, f64) -> bool {
    move |result, exact| (result - exact).abs() <= bound
}

/// Units in the last place of the result.
fn ulps(bound: f64) -> impl Fn(f64, f64) -> bool {
    move |result, exact| {
        let exponent = exact.abs().log2().floor().max(-126.0);
        (result - exact).abs() <= bound * 2f64.powf(exponent - 23.0)
    }
}

/// Checks special values, with `.ftz` and without.
fn check_special(name: &str, table: &[(f32, u64)]) {
    for &(x, expected) in table {
        assert_eq!(once(name, &[bits(x)]), expected, "{name} of {x:e}");
    }
}

/// `e^x` by its series, on a sixteenth of the argument.
fn exponential(x: f64) -> f64 {
    let part = x / 16.0;
    let (mut term, mut sum) = (1.0, 1.0);
    for i in 1..60 {
        term *= part / f64::from(i);
        sum += term;
    }
    f64::powi(sum, 16)
}

#[test]
fn powers_of_two() {
    let exact = |x: f64| exponential((x - x.floor()) * LN_2) * 2f64.powi(x.floor() as i32);
    let range = both_signs(values(1e-30, 126.0, 71));
    check("ex2.approx.f32", &range, exact, relative(2f64.powi(-22)));
    check("ex2.approx.ftz.f32", &range, exact, relative(2f64.powi(-22)));
    let tiny = values(126.0, 149.0, 72).iter().map(|x| x | F32.sign()).collect::<Vec<_>>();
    check("ex2.approx.f32", &tiny, exact, relative(2f64.powi(-22)));
    for integer in -149..=127 {
        assert_eq!(once("ex2.approx.f32", &[bits(integer as f32)]), bits(2f64.powi(integer) as f32));
    }
    let table = [
        (-INFINITY, bits(0.0)),
        (-151.0, bits(0.0)),
        (-1e-40, bits(1.0)),
        (-0.0, bits(1.0)),
        (0.0, bits(1.0)),
        (1e-40, bits(1.0)),
        (128.0, bits(INFINITY)),
        (1e38, bits(INFINITY)),
        (INFINITY, bits(INFINITY)),
        (-f32::NAN, NAN),
    ];
    check_special("ex2.approx.f32", &table);
    check_special("ex2.approx.ftz.f32", &table);
    assert_eq!(once("ex2.approx.ftz.f32", &[bits(-127.0)]), 0);
}

#[test]
fn logarithms() {
    let exact = |x: f64| x.ln() / LN_2;
    let bound = 2f64.powf(-22.6);
    check("lg2.approx.f32", &values(0.5, 2.0, 73), exact, absolute(bound));
    for range in [values(f32::from_bits(1), 0.5, 74), values(2.0, f32::MAX, 75)] {
        check("lg2.approx.f32", &range, exact, relative(bound));
    }
    let table = [
        (-INFINITY, NAN),
        (-1.0, NAN),
        (-0.0, bits(-INFINITY)),
        (0.0, bits(-INFINITY)),
        (1.0, bits(0.0)),
        (INFINITY, bits(INFINITY)),
        (f32::NAN, NAN),
    ];
    check_special("lg2.approx.f32", &table);
    check_special("lg2.approx.ftz.f32", &table);
    check_special("lg2.approx.ftz.f32", &[(1e-40, bits(-INFINITY)), (-1e-40, bits(-INFINITY))]);
    check_special("lg2.approx.f32", &[(f32::from_bits(1), bits(-149.0)), (-1e-40, NAN)]);
}

/// The sine of a small argument by its series.
fn sine(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for i in 1..30 {
        term *= -x * x / f64::from(2 * i * (2 * i + 1));
        sum += term;
    }
    sum
}

#[test]
fn sines_and_cosines() {
    let range = both_signs(values(1e-30, PI as f32, 76));
    for flag in ["", ".ftz"] {
        check(&format!("sin.approx{flag}.f32"), &range, sine, absolute(2f64.powf(-20.9)));
        check(&format!("cos.approx{flag}.f32"), &range, |x| sine(PI / 2.0 - x), absolute(2f64.powf(-20.9)));
    }
    let table = [(-INFINITY, NAN), (-0.0, bits(-0.0)), (0.0, bits(0.0)), (INFINITY, NAN), (f32::NAN, NAN)];
    check_special("sin.approx.f32", &table);
    check_special("sin.approx.ftz.f32", &[(1e-40, bits(0.0)), (-1e-40, bits(-0.0))]);
    let table = [
        (-INFINITY, NAN),
        (-1e-40, bits(1.0)),
        (-0.0, bits(1.0)),
        (0.0, bits(1.0)),
        (INFINITY, NAN),
        (f32::NAN, NAN),
    ];
    check_special("cos.approx.f32", &table);
}

#[test]
fn hyperbolic_tangents() {
    let exact = |x: f64| {
        // The series is better than the quotient where numerator and denominator nearly cancel.
        if x.abs() < 1e-3 { x - x * x * x / 3.0 } else { 1.0 - 2.0 / (exponential(2.0 * x) + 1.0) }
    };
    let range = both_signs(values(1e-30, 40.0, 77));
    check("tanh.approx.f32", &range, exact, relative(2f64.powi(-11)));
    let table = [
        (-INFINITY, bits(-1.0)),
        (-1e-40, bits(-1e-40)),
        (-0.0, bits(-0.0)),
        (0.0, bits(0.0)),
        (INFINITY, bits(1.0)),
        (f32::NAN, NAN),
    ];
    check_special("tanh.approx.f32", &table);
}

#[test]
fn reciprocals_and_roots() {
    let normal = both_signs(values(f32::from_bits(0x0040_0000), f32::MAX, 78));
    check("rcp.approx.f32", &normal, |x| 1.0 / x, ulps(1.0));
    let positive = values(f32::from_bits(1), f32::MAX, 79);
    check("sqrt.approx.f32", &positive, f64::sqrt, relative(2f64.powi(-23)));
    check("rsqrt.approx.f32", &positive, |x| 1.0 / x.sqrt(), relative(2f64.powf(-22.9)));
    let infinite = [
        (-INFINITY, bits(-0.0)),
        (-0.0, bits(-INFINITY)),
        (0.0, bits(INFINITY)),
        (INFINITY, bits(0.0)),
        (f32::NAN, NAN),
    ];
    check_special("rcp.approx.f32", &infinite);
    check_special("rcp.approx.ftz.f32", &infinite);
    check_special("rcp.approx.ftz.f32", &[(-1e-40, bits(-INFINITY)), (1e-40, bits(INFINITY)), (2e38, 0)]);
    let table = [
        (-INFINITY, NAN),
        (-1.0, NAN),
        (-0.0, bits(-0.0)),
        (0.0, bits(0.0)),
        (INFINITY, bits(INFINITY)),
        (f32::NAN, NAN),
    ];
    check_special("sqrt.approx.f32", &table);
    check_special("sqrt.approx.ftz.f32", &table);
    check_special("sqrt.approx.ftz.f32", &[(-1e-40, bits(-0.0)), (1e-40, bits(0.0))]);
    let table = [
        (-INFINITY, NAN),
        (-1.0, NAN),
        (-0.0, bits(-INFINITY)),
        (0.0, bits(INFINITY)),
        (INFINITY, bits(0.0)),
        (f32::NAN, NAN),
    ];
    check_special("rsqrt.approx.f32", &table);
    check_special("rsqrt.approx.ftz.f32", &table);
    check_special("rsqrt.approx.ftz.f32", &[(-1e-40, bits(-INFINITY)), (1e-40, bits(INFINITY))]);
}

#[test]
fn quotients() {
    let mut random = Random::new(80);
    let dividends = floats(F32, 1, 81).remove(0);
    let divisors: Vec<u64> = dividends
        .iter()
        .map(|_| bits(2f32.powi(-126)) + random.next() % (bits(2f32.powi(126)) - bits(2f32.powi(-126))))
        .collect();
    for name in ["div.approx.f32", "div.full.f32"] {
        let results = Instruction::new(name).values(&[&dividends, &divisors]);
        for (i, &result) in results.iter().enumerate() {
            let value = |x: u64| f64::from(f32::from_bits(x as u32));
            let exact = value(dividends[i]) / value(divisors[i]);
            let right = match exact {
                _ if exact.is_nan() => result == NAN,
                _ if exact.abs() > f64::from(f32::MAX) => f32::from_bits(result as u32).is_infinite(),
                _ if exact == 0.0 => result == bits(exact as f32),
                _ => ulps(2.0)(value(result), exact),
            };
            assert!(right, "{name} of {:x} and {:x}: {result:x}", dividends[i], divisors[i]);
        }
    }
    // The quick division knows nothing beyond 2^126.
    for divisor in [2f32.powi(126) * 1.5, -f32::MAX] {
        let zero = if divisor < 0.0 { -0.0 } else { 0.0 };
        assert_eq!(once("div.approx.f32", &[bits(1e38), bits(divisor)]), bits(zero));
        assert_eq!(once("div.approx.f32", &[bits(INFINITY), bits(divisor)]), NAN);
        assert_eq!(once("div.approx.f32", &[bits(f32::NAN), bits(divisor)]), NAN);
        assert_eq!(once("div.full.f32", &[bits(divisor), bits(divisor)]), bits(1.0));
    }
    assert_eq!(once("div.approx.f32", &[bits(1.0), bits(INFINITY)]), 0);
    assert_eq!(once("div.approx.ftz.f32", &[bits(1.0), bits(1e-40)]), bits(INFINITY));
    assert_eq!(once("div.full.ftz.f32", &[bits(1e-40), bits(1e-10)]), 0);
}

/// The gross approximations of binary64 see and give the upper 32 bits.
#[test]
fn gross_approximations() {
    let mut random = Random::new(82);
    for _ in 0..20_000 {
        let x = f64::from_bits(random.next() & !(1 << 63));
        if !x.is_normal() || !(1e-300..1e300).contains(&x) {
            continue;
        }
        let reciprocal = f64::from_bits(once("rcp.approx.ftz.f64", &[x.to_bits()]));
        assert_eq!(reciprocal.to_bits() as u32, 0);
        assert!((reciprocal * x - 1.0).abs() < 2f64.powi(-18), "{x:e}");
        let root = f64::from_bits(once("rsqrt.approx.ftz.f64", &[x.to_bits()]));
        assert_eq!(root.to_bits() as u32, 0);
        assert!((root * root * x - 1.0).abs() < 2f64.powi(-18), "{x:e}");
        let root = f64::from_bits(once("rsqrt.approx.f64", &[x.to_bits()]));
        assert!((root * root * x - 1.0).abs() < 2f64.powi(-45), "{x:e}");
    }
    let run = |name: &str, x: f64| f64::from_bits(once(name, &[x.to_bits()]));
    let subnormal = f64::MIN_POSITIVE / 2.0;
    for (x, reciprocal) in
        [(0.0, f64::INFINITY), (-subnormal, -f64::INFINITY), (f64::INFINITY, 0.0), (1e308, 0.0)]
    {
        assert_eq!(run("rcp.approx.ftz.f64", x), reciprocal, "{x:e}");
    }
    for (x, root) in [(subnormal, f64::INFINITY), (-0.0, -f64::INFINITY), (f64::INFINITY, 0.0)] {
        assert_eq!(run("rsqrt.approx.ftz.f64", x), root, "{x:e}");
    }
    assert_eq!(once("rcp.approx.ftz.f64", &[u64::MAX]), 0x7fff_ffff_0000_0000);
    assert_eq!(once("rsqrt.approx.ftz.f64", &[(-1f64).to_bits()]), 0x7fff_ffff_0000_0000);
}

/// A value of binary16 or bfloat16.
fn wide(kind: &str, x: u64) -> f64 {
    if kind == "bf16" {
        return f32::from_bits((x as u32) << 16).into();
    }
    let sign = if x & 0x8000 != 0 { -1.0 } else { 1.0 };
    sign * match x >> 10 & 31 {
        0 => (x & 1023) as f64 * 2f64.powi(-24),
        31 if x & 1023 == 0 => f64::INFINITY,
        31 => f64::NAN,
        field => ((x & 1023) + 1024) as f64 * 2f64.powi(field as i32 - 25),
    }
}

#[test]
fn halves() {
    let all: Vec<u64> = (0..=0xffff).collect();
    for (kind, name, bound) in [("f16", "ex2.approx.f16", -9.9), ("bf16", "ex2.approx.ftz.bf16", -7.0)] {
        let format = if kind == "f16" { F16 } else { BF16 };
        let results = Instruction::new(name).values(&[&all]);
        for (&x, &result) in all.iter().zip(&results) {
            let exact = wide(kind, x).exp2();
            let (value, largest) = (wide(kind, result), wide(kind, format.infinity() - 1));
            let smallest = wide(kind, 1 << (format.precision - 1));
            let right = match exact {
                _ if exact.is_nan() => result == 0x7fff,
                _ if exact > largest => result >= format.infinity() - 1 && result <= format.infinity(),
                _ if exact < smallest && kind == "bf16" => result == 0 || value == smallest,
                _ if exact < smallest => (value - exact).abs() <= wide(kind, 1),
                _ => (value - exact).abs() <= exact * 2f64.powf(bound),
            };
            assert!(right, "{name} of {x:x}: {result:x}");
        }
    }
    for (kind, bound) in [("f16", -10.987), ("bf16", -8.0)] {
        let name = format!("tanh.approx.{kind}");
        let results = Instruction::new(&name).values(&[&all]);
        for (&x, &result) in all.iter().zip(&results) {
            let exact = wide(kind, x).tanh();
            let error = (wide(kind, result) - exact).abs();
            let right = match exact {
                _ if exact.is_nan() => result == 0x7fff,
                _ if kind == "f16" => error <= 2f64.powf(bound),
                _ => error <= exact.abs() * 2f64.powf(bound) || wide(kind, result) == wide(kind, x),
            };
            assert!(right, "{name} of {x:x}: {result:x}");
            assert_eq!(result >> 15, if exact.is_nan() { 0 } else { x >> 15 }, "{name} of {x:x}");
        }
    }
}

/// No NaN but the canonical one comes out of these.
#[test]
fn nan_is_canonical() {
    let nans: Vec<u64> = edges(F32).into_iter().filter(|&x| F32.is_nan(x)).collect();
    for name in ["ex2", "lg2", "sin", "cos", "tanh", "rcp", "sqrt", "rsqrt"] {
        let name = format!("{name}.approx.f32");
        assert!(Instruction::new(&name).values(&[&nans]).iter().all(|&x| x == NAN), "{name}");
    }
}
