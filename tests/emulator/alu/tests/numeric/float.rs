//! `.f32` and `.f64` against exact arithmetic.

use crate::exact::{Dyadic, F32, F64, Format, MODES, Mode, Signed};
use crate::machine::{Instruction, once};
use crate::samples::{floats, slices};

const NAN32: u64 = 0x7fff_ffff;

/// What an operation yields for operands that are not all finite, or that it is not defined for.
enum Special {
    Nan,
    Infinity(bool),
    Zero(bool),
}

/// Checks a result for operands with a special result.
fn check_special(format: Format, special: Special, operands: &[u64], result: u64, name: &str) {
    let sign = |negative: bool| if negative { format.sign() } else { 0 };
    let expected = match special {
        Special::Nan => nan(format, operands),
        Special::Infinity(negative) => format.infinity() | sign(negative),
        Special::Zero(negative) => sign(negative),
    };
    assert_eq!(result, expected, "{name} of {operands:x?}: {result:x}, not {expected:x}");
}

/// The NaN that operands determine: canonical in `.f32`, the first one made quiet in `.f64`.
fn nan(format: Format, operands: &[u64]) -> u64 {
    if format == F32 {
        return NAN32;
    }
    let first = operands.iter().find(|&&x| format.is_nan(x));
    first.map_or(0xfff8_0000_0000_0000, |x| x | 1 << 51)
}

fn check_exact(format: Format, exact: &Signed, mode: Mode, operands: &[u64], result: u64, name: &str) {
    let right = format.is_rounded(result, exact.negative, mode, |x| exact.magnitude.compare(x));
    assert!(right, "{name} of {operands:x?}: {result:x} is not the exact value rounded");
}

/// The product, or what it is instead.
fn product(format: Format, a: u64, b: u64) -> Result<Signed, Special> {
    let negative = format.is_negative(a) != format.is_negative(b);
    if format.is_nan(a) || format.is_nan(b) {
        return Err(Special::Nan);
    }
    let zero = format.magnitude(a) == 0 || format.magnitude(b) == 0;
    match (format.is_finite(a) && format.is_finite(b), zero) {
        (true, true) => Err(Special::Zero(negative)),
        (false, true) => Err(Special::Nan),
        (false, false) => Err(Special::Infinity(negative)),
        (true, false) => Ok(format.value(a).mul(&format.value(b))),
    }
}

/// The sum of a product and a number, or what it is instead.
fn sum(format: Format, product: Result<Signed, Special>, c: u64, mode: Mode) -> Result<Signed, Special> {
    let c_negative = format.is_negative(c);
    if format.is_nan(c) {
        return Err(Special::Nan);
    }
    let zero = Dyadic::new(0, 0);
    let product = match product {
        Err(Special::Nan) => return Err(Special::Nan),
        Err(Special::Infinity(negative)) => {
            let opposed = format.is_infinite(c) && c_negative != negative;
            return Err(if opposed { Special::Nan } else { Special::Infinity(negative) });
        }
        Err(Special::Zero(negative)) => Signed { negative, magnitude: zero },
        Ok(product) => product,
    };
    if format.is_infinite(c) {
        return Err(Special::Infinity(c_negative));
    }
    let sum = product.add(&format.value(c));
    if !sum.magnitude.is_zero() {
        return Ok(sum);
    }
    let agreed = product.negative == c_negative;
    Err(Special::Zero(if agreed { c_negative } else { mode == Mode::Rm }))
}

fn check(
    format: Format,
    expected: Result<Signed, Special>,
    mode: Mode,
    operands: &[u64],
    result: u64,
    name: &str,
) {
    match expected {
        Ok(exact) => check_exact(format, &exact, mode, operands, result, name),
        Err(special) => check_special(format, special, operands, result, name),
    }
}

/// Runs `name` on operands and checks each result against `expected`.
fn check_all(
    name: &str,
    format: Format,
    mode: Mode,
    arity: usize,
    expected: impl Fn(&[u64]) -> Result<Signed, Special>,
) {
    let columns = floats(format, arity, name.len() as u64 + 17);
    let results = Instruction::new(name).values(&slices(&columns));
    for (i, &result) in results.iter().enumerate() {
        let operands: Vec<u64> = columns.iter().map(|column| column[i]).collect();
        check(format, expected(&operands), mode, &operands, result, name);
    }
}

/// The formats with the names of their types.
const FORMATS: [(&str, Format); 2] = [("f32", F32), ("f64", F64)];

#[test]
fn sums_are_exact_sums_rounded() {
    for (kind, format) in FORMATS {
        for (modifier, mode) in MODES {
            let one = format.one();
            let add = |x: &[u64]| sum(format, product(format, x[0], one), x[1], mode);
            check_all(&format!("add.{modifier}.{kind}"), format, mode, 2, add);
            let sub = |x: &[u64]| {
                let negated = if format.is_nan(x[1]) { x[1] } else { x[1] ^ format.sign() };
                sum(format, product(format, x[0], one), negated, mode)
            };
            check_all(&format!("sub.{modifier}.{kind}"), format, mode, 2, sub);
        }
    }
}

#[test]
fn products_are_exact_products_rounded() {
    for (kind, format) in FORMATS {
        for (modifier, mode) in MODES {
            let mul = |x: &[u64]| product(format, x[0], x[1]);
            check_all(&format!("mul.{modifier}.{kind}"), format, mode, 2, mul);
        }
    }
}

#[test]
fn fused_sums_of_products_are_rounded_once() {
    for (kind, format) in FORMATS {
        for (modifier, mode) in MODES {
            let fma = |x: &[u64]| sum(format, product(format, x[0], x[1]), x[2], mode);
            check_all(&format!("fma.{modifier}.{kind}"), format, mode, 3, fma);
        }
        for (modifier, mode) in MODES {
            let fma = |x: &[u64]| sum(format, product(format, x[0], x[1]), x[2], mode);
            check_all(&format!("mad.{modifier}.{kind}"), format, mode, 3, fma);
        }
    }
}

/// Fails unless the result is `a / b` rounded: candidates times `b` are compared with `a`.
fn check_quotient(format: Format, mode: Mode, a: u64, b: u64, result: u64, operands: &[u64], name: &str) {
    let negative = format.is_negative(a) != format.is_negative(b);
    let special = match (format.magnitude(a), format.magnitude(b)) {
        _ if format.is_nan(a) || format.is_nan(b) => Some(Special::Nan),
        (0, 0) => Some(Special::Nan),
        _ if format.is_infinite(a) && format.is_infinite(b) => Some(Special::Nan),
        (0, _) => Some(Special::Zero(negative)),
        (_, 0) => Some(Special::Infinity(negative)),
        _ if format.is_infinite(a) => Some(Special::Infinity(negative)),
        _ if format.is_infinite(b) => Some(Special::Zero(negative)),
        _ => None,
    };
    if let Some(special) = special {
        return check_special(format, special, operands, result, name);
    }
    let (dividend, divisor) = (format.value(a).magnitude, format.value(b).magnitude);
    let right = format.is_rounded(result, negative, mode, |x| dividend.compare(&x.mul(&divisor)));
    assert!(right, "{name} of {operands:x?}: {result:x} is not the exact quotient rounded");
}

#[test]
fn quotients_are_exact_quotients_rounded() {
    for (kind, format) in FORMATS {
        for (modifier, mode) in MODES {
            let name = format!("div.{modifier}.{kind}");
            let columns = floats(format, 2, 5);
            let results = Instruction::new(&name).values(&slices(&columns));
            for (i, &result) in results.iter().enumerate() {
                let (a, b) = (columns[0][i], columns[1][i]);
                check_quotient(format, mode, a, b, result, &[a, b], &name);
            }
            let name = format!("rcp.{modifier}.{kind}");
            let results = Instruction::new(&name).values(&slices(&columns[..1]));
            for (&b, &result) in columns[0].iter().zip(&results) {
                check_quotient(format, mode, format.one(), b, result, &[b], &name);
            }
        }
    }
}

#[test]
fn roots_are_exact_roots_rounded() {
    for (kind, format) in FORMATS {
        for (modifier, mode) in MODES {
            let name = format!("sqrt.{modifier}.{kind}");
            let columns = floats(format, 1, 6);
            let results = Instruction::new(&name).values(&slices(&columns));
            for (&a, &result) in columns[0].iter().zip(&results) {
                let negative = format.is_negative(a);
                let special = match format.magnitude(a) {
                    0 => Some(Special::Zero(negative)),
                    _ if format.is_nan(a) || negative => Some(Special::Nan),
                    _ if format.is_infinite(a) => Some(Special::Infinity(false)),
                    _ => None,
                };
                if let Some(special) = special {
                    check_special(format, special, &[a], result, &name);
                    continue;
                }
                let square = format.value(a).magnitude;
                let right = format.is_rounded(result, false, mode, |x| square.compare(&x.mul(x)));
                assert!(right, "{name} of {a:x}: {result:x} is not the exact root rounded");
            }
        }
    }
}

/// [0, 1], where NaN and -0 count as below.
fn saturated(format: Format, x: u64) -> u64 {
    if format.is_nan(x) || format.is_negative(x) { 0 } else { x.min(format.one()) }
}

/// `.ftz` and `.sat` against the plain instruction, which other tests check.
#[test]
fn flushing_and_saturation_are_about_operands_and_results() {
    for (base, arity) in [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3), ("mad", 3)] {
        for (modifier, _) in MODES {
            let columns = floats(F32, arity, 7);
            let flushed: Vec<Vec<u64>> =
                columns.iter().map(|column| column.iter().map(|&x| F32.flush(x)).collect()).collect();
            let plain = Instruction::new(&format!("{base}.{modifier}.f32"));
            let on_plain = plain.values(&slices(&columns));
            let on_flushed: Vec<u64> =
                plain.values(&slices(&flushed)).into_iter().map(|x| F32.flush(x)).collect();
            let run = |flags: &str| {
                Instruction::new(&format!("{base}.{modifier}.{flags}f32")).values(&slices(&columns))
            };
            let saturate = |x: &[u64]| -> Vec<u64> { x.iter().map(|&x| saturated(F32, x)).collect() };
            assert!(run("ftz.") == on_flushed, "{base}.{modifier}.ftz");
            assert!(run("sat.") == saturate(&on_plain), "{base}.{modifier}.sat");
            assert!(run("ftz.sat.") == saturate(&on_flushed), "{base}.{modifier}.ftz.sat");
        }
    }
    for (base, arity) in [("div", 2), ("rcp", 1), ("sqrt", 1)] {
        for (modifier, _) in MODES {
            let columns = floats(F32, arity, 8);
            let flushed: Vec<Vec<u64>> =
                columns.iter().map(|column| column.iter().map(|&x| F32.flush(x)).collect()).collect();
            let plain = Instruction::new(&format!("{base}.{modifier}.f32")).values(&slices(&flushed));
            let expected: Vec<u64> = plain.into_iter().map(|x| F32.flush(x)).collect();
            let results = Instruction::new(&format!("{base}.{modifier}.ftz.f32")).values(&slices(&columns));
            assert!(results == expected, "{base}.{modifier}.ftz");
        }
    }
}

/// An instruction without rounding rounds to nearest.
#[test]
fn nearest_is_the_default() {
    for (base, kind, format) in [
        ("add", "f32", F32),
        ("sub", "f32", F32),
        ("mul", "f32", F32),
        ("add", "f64", F64),
        ("mul", "f64", F64),
    ] {
        let columns = floats(format, 2, 9);
        let explicit = Instruction::new(&format!("{base}.rn.{kind}")).values(&slices(&columns));
        assert!(
            Instruction::new(&format!("{base}.{kind}")).values(&slices(&columns)) == explicit,
            "{base}.{kind}"
        );
    }
}

/// The smaller or larger of two by the definition, zeros ordered by sign. `None` means NaN.
fn extremum(format: Format, max: bool, nans: bool, a: u64, b: u64) -> Option<u64> {
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => return None,
        (true, false) | (false, true) if nans => return None,
        (true, false) => return Some(b),
        (false, true) => return Some(a),
        (false, false) => {}
    }
    let rank = |x: u64| {
        let magnitude = i128::from(format.magnitude(x));
        if format.is_negative(x) { -1 - magnitude } else { magnitude }
    };
    Some(if (rank(a) > rank(b)) == max { a } else { b })
}

#[test]
fn extrema_follow_the_definition() {
    let columns = floats(F32, 2, 10);
    for (base, max) in [("min", false), ("max", true)] {
        for ftz in [false, true] {
            for nans in [false, true] {
                for xorsign in [false, true] {
                    let name = format!(
                        "{base}{}{}{}.f32",
                        if ftz { ".ftz" } else { "" },
                        if nans { ".NaN" } else { "" },
                        if xorsign { ".xorsign.abs" } else { "" }
                    );
                    let results = Instruction::new(&name).values(&slices(&columns));
                    for (i, &result) in results.iter().enumerate() {
                        let operand = |j: usize| if ftz { F32.flush(columns[j][i]) } else { columns[j][i] };
                        let (a, b) = (operand(0), operand(1));
                        let expected = if xorsign {
                            let chosen = extremum(F32, max, nans, F32.magnitude(a), F32.magnitude(b));
                            chosen.map(|x| x | (a ^ b) & F32.sign())
                        } else {
                            extremum(F32, max, nans, a, b)
                        };
                        assert_eq!(result, expected.unwrap_or(NAN32), "{name} of {a:x} and {b:x}");
                    }
                }
            }
        }
        let columns = floats(F64, 2, 11);
        let results = Instruction::new(&format!("{base}.f64")).values(&slices(&columns));
        for (i, &result) in results.iter().enumerate() {
            let (a, b) = (columns[0][i], columns[1][i]);
            let expected = extremum(F64, max, false, a, b).unwrap_or_else(|| nan(F64, &[a, b]));
            assert_eq!(result, expected, "{base}.f64 of {a:x} and {b:x}");
        }
    }
}

#[test]
fn signs_are_bits() {
    for (kind, format) in FORMATS {
        let columns = floats(format, 2, 12);
        let run = |name: &str, sources: usize| {
            Instruction::new(&format!("{name}.{kind}")).values(&slices(&columns[..sources]))
        };
        let (abs, neg, copysign) = (run("abs", 1), run("neg", 1), run("copysign", 2));
        for (i, (&a, &b)) in columns[0].iter().zip(&columns[1]).enumerate() {
            assert_eq!(abs[i], format.magnitude(a));
            assert_eq!(neg[i], a ^ format.sign());
            assert_eq!(copysign[i], format.magnitude(b) | a & format.sign());
        }
    }
    assert_eq!(once("abs.ftz.f32", &[0x8000_0001]), 0);
    assert_eq!(once("neg.ftz.f32", &[0x0000_0001]), 0x8000_0000);
}

/// Pairs of binary32 do in both halves what single ones do.
#[test]
fn pairs_are_two_values() {
    for (name, arity) in [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3)] {
        for (modifier, _) in MODES {
            for ftz in ["", ".ftz"] {
                let columns = floats(F32, arity, 13);
                let single =
                    Instruction::new(&format!("{name}.{modifier}{ftz}.f32")).values(&slices(&columns));
                let pairs: Vec<Vec<u64>> = columns
                    .iter()
                    .map(|column| column.iter().zip(column.iter().rev()).map(|(a, b)| a | b << 32).collect())
                    .collect();
                let results =
                    Instruction::new(&format!("{name}.{modifier}{ftz}.f32x2")).values(&slices(&pairs));
                for (i, &result) in results.iter().enumerate() {
                    assert_eq!(
                        result,
                        single[i] | single[single.len() - 1 - i] << 32,
                        "{name}.{modifier}{ftz}"
                    );
                }
            }
        }
    }
}
