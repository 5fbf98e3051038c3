//! `.f16`, `.bf16` and pairs of them against exact arithmetic.

use crate::exact::{BF16, Dyadic, F16, Format, Mode, Signed};
use crate::machine::{Instruction, once};
use crate::samples::{Random, floats, slices};

const NAN: u64 = 0x7fff;
const FORMATS: [(&str, Format); 2] = [("f16", F16), ("bf16", BF16)];

/// Both operands of everything in binary64, where products of 16-bit values are exact; only for special
/// results.
fn wide(format: Format, x: u64) -> f64 {
    let bits = if format == F16 { return wide16(x) } else { (x as u32) << 16 };
    f32::from_bits(bits).into()
}

fn wide16(x: u64) -> f64 {
    let sign = if F16.is_negative(x) { -1.0 } else { 1.0 };
    let (field, fraction) = ((x >> 10 & 31) as i32, (x & 1023) as f64);
    sign * match field {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(field - 25),
    }
}

/// `a · b + c` rounded to nearest. Where the exact sum is zero or not finite, binary64 knows the result.
fn check_fma(format: Format, a: u64, b: u64, c: u64, result: u64, name: &str) {
    let host = wide(format, a).mul_add(wide(format, b), wide(format, c));
    let finite = [a, b, c].iter().all(|&x| format.is_finite(x));
    let right = if finite && host != 0.0 {
        let exact = format.value(a).mul(&format.value(b)).add(&format.value(c));
        format.is_rounded(result, exact.negative, Mode::Rn, |x| exact.magnitude.compare(x))
    } else {
        result == special(format, host)
    };
    assert!(right, "{name} of {a:x}, {b:x} and {c:x}: {result:x}");
}

fn special(format: Format, host: f64) -> u64 {
    let sign = if host.is_sign_negative() { format.sign() } else { 0 };
    match host {
        _ if host.is_nan() => NAN,
        _ if host == 0.0 => sign,
        _ => format.infinity() | sign,
    }
}

#[test]
fn arithmetic_is_exact_arithmetic_rounded() {
    for (kind, format) in FORMATS {
        let columns = floats(format, 3, 21);
        let (one, minus_one) = (format.one(), format.one() | format.sign());
        let run = |name: &str, sources: usize| {
            Instruction::new(&format!("{name}.{kind}")).values(&slices(&columns[..sources]))
        };
        let (add, sub, fma) = (run("add", 2), run("sub.rn", 2), run("fma.rn", 3));
        let mul = run("mul", 2);
        for i in 0..columns[0].len() {
            let (a, b, c) = (columns[0][i], columns[1][i], columns[2][i]);
            check_fma(format, a, one, b, add[i], "add");
            check_fma(format, b, minus_one, a, sub[i], "sub");
            // A negative zero added to a product changes nothing.
            let zero = if format.is_negative(a) != format.is_negative(b) { format.sign() } else { 0 };
            check_fma(format, a, b, zero, mul[i], "mul");
            check_fma(format, a, b, c, fma[i], "fma");
        }
    }
}

/// Products and sums with a few fixed operands for all values of the other.
#[test]
fn arithmetic_is_right_for_all_values_of_one_operand() {
    let all: Vec<u64> = (0..=0xffff).collect();
    for (kind, format) in FORMATS {
        for other in [1, 3, format.one() + 1, format.infinity() - 1, format.sign() | (format.one() / 2 + 5)] {
            let same = vec![other; all.len()];
            let run =
                |name: &str, sources: &[&[u64]]| Instruction::new(&format!("{name}.{kind}")).values(sources);
            let (mul, fma) = (run("mul", &[&all, &same]), run("fma.rn", &[&same, &same, &all]));
            for (i, &x) in all.iter().enumerate() {
                let zero = if format.is_negative(x) != format.is_negative(other) { format.sign() } else { 0 };
                check_fma(format, x, other, zero, mul[i], "mul");
                check_fma(format, other, other, x, fma[i], "fma");
            }
        }
    }
}

/// What modifiers do to operands and results of the plain instruction.
#[test]
fn modifiers_are_about_operands_and_results() {
    let saturate = |x: u64| match x {
        _ if F16.is_nan(x) || F16.is_negative(x) => 0,
        _ => x.min(F16.one()),
    };
    let relu = |format: Format, x: u64| match x {
        _ if format.is_nan(x) => NAN,
        _ if format.is_negative(x) => 0,
        _ => x,
    };
    let columns = floats(F16, 3, 22);
    let flushed: Vec<Vec<u64>> =
        columns.iter().map(|column| column.iter().map(|&x| F16.flush(x)).collect()).collect();
    for (name, arity) in [("add", 2), ("sub", 2), ("mul", 2), ("fma.rn", 3)] {
        let run = |flags: &str, columns: &[Vec<u64>]| {
            Instruction::new(&format!("{name}{flags}.f16")).values(&slices(&columns[..arity]))
        };
        let plain = run("", &columns);
        let on_flushed: Vec<u64> = run("", &flushed).into_iter().map(|x| F16.flush(x)).collect();
        assert!(run(".ftz", &columns) == on_flushed, "{name}.ftz");
        assert!(
            run(".sat", &columns) == plain.iter().map(|&x| saturate(x)).collect::<Vec<_>>(),
            "{name}.sat"
        );
        let both: Vec<u64> = on_flushed.iter().map(|&x| saturate(x)).collect();
        assert!(run(".ftz.sat", &columns) == both, "{name}.ftz.sat");
    }
    for (kind, format) in FORMATS {
        let columns = floats(format, 3, 23);
        let run = |name: &str| Instruction::new(&format!("{name}.{kind}")).values(&slices(&columns));
        let expected: Vec<u64> = run("fma.rn").into_iter().map(|x| relu(format, x)).collect();
        assert!(run("fma.rn.relu") == expected, "fma.rn.relu.{kind}");
    }
}

/// The chosen operand by definition; `None` means NaN.
fn extremum(format: Format, max: bool, nans: bool, a: u64, b: u64) -> Option<u64> {
    let (x, y) = (wide(format, a), wide(format, b));
    if x.is_nan() || y.is_nan() {
        let other = if x.is_nan() { b } else { a };
        return if nans || x.is_nan() && y.is_nan() { None } else { Some(other) };
    }
    let below = x < y || x == y && format.is_negative(a);
    Some(if below == max { b } else { a })
}

#[test]
fn extrema_follow_the_definition() {
    for (kind, format) in FORMATS {
        let columns = floats(format, 2, 24);
        for (base, max) in [("min", false), ("max", true)] {
            for (flag, nans) in [("", false), (".NaN", true)] {
                let plain = Instruction::new(&format!("{base}{flag}.{kind}")).values(&slices(&columns));
                let signed =
                    Instruction::new(&format!("{base}{flag}.xorsign.abs.{kind}")).values(&slices(&columns));
                for i in 0..plain.len() {
                    let (a, b) = (columns[0][i], columns[1][i]);
                    let expected = extremum(format, max, nans, a, b).unwrap_or(NAN);
                    assert_eq!(plain[i], expected, "{base}{flag}.{kind} of {a:x} and {b:x}");
                    let chosen = extremum(format, max, nans, format.magnitude(a), format.magnitude(b));
                    let expected = chosen.map_or(NAN, |x| x | (a ^ b) & format.sign());
                    assert_eq!(signed[i], expected, "{base}{flag}.xorsign.abs.{kind} of {a:x} and {b:x}");
                }
            }
        }
    }
    let columns = floats(F16, 2, 25);
    let results = Instruction::new("max.ftz.f16").values(&slices(&columns));
    for (i, &result) in results.iter().enumerate() {
        let (a, b) = (F16.flush(columns[0][i]), F16.flush(columns[1][i]));
        assert_eq!(result, extremum(F16, true, false, a, b).unwrap_or(NAN));
    }
}

#[test]
fn signs_are_bits() {
    let all: Vec<u64> = (0..=0xffff).collect();
    for (kind, format) in FORMATS {
        let abs = Instruction::new(&format!("abs.{kind}")).values(&[&all]);
        let neg = Instruction::new(&format!("neg.{kind}")).values(&[&all]);
        for &x in &all {
            assert_eq!(abs[x as usize], format.magnitude(x));
            assert_eq!(neg[x as usize], x ^ format.sign());
        }
    }
    assert_eq!(once("neg.ftz.f16", &[1]), 0x8000);
    assert_eq!(once("abs.ftz.f16", &[0x83ff]), 0);
}

/// Pairs do in both halves what single values do.
#[test]
fn pairs_are_two_values() {
    let names: [(&str, usize); 24] = [
        ("add", 2),
        ("add.rn", 2),
        ("sub", 2),
        ("mul", 2),
        ("fma.rn", 3),
        ("fma.rn.relu", 3),
        ("min", 2),
        ("max", 2),
        ("min.NaN", 2),
        ("max.NaN.xorsign.abs", 2),
        ("abs", 1),
        ("neg", 1),
        ("tanh.approx", 1),
        ("f16:add.ftz", 2),
        ("f16:sub.sat", 2),
        ("f16:mul.ftz.sat", 2),
        ("f16:fma.rn.ftz", 3),
        ("f16:fma.rn.sat", 3),
        ("f16:fma.rn.ftz.relu", 3),
        ("f16:max.ftz", 2),
        ("f16:abs.ftz", 1),
        ("f16:neg.ftz", 1),
        ("f16:ex2.approx", 1),
        ("bf16:ex2.approx.ftz", 1),
    ];
    let mut random = Random::new(26);
    for (kind, _) in FORMATS {
        for (name, arity) in names {
            let name = match name.split_once(':') {
                Some((only, _)) if only != kind => continue,
                Some((_, name)) => name,
                None => name,
            };
            let columns: Vec<Vec<u64>> =
                (0..arity).map(|_| (0..20_000).map(|_| random.next() & 0xffff_ffff).collect()).collect();
            let part = |shift: u32| {
                let columns: Vec<Vec<u64>> = columns
                    .iter()
                    .map(|column| column.iter().map(|x| x >> shift & 0xffff).collect())
                    .collect();
                Instruction::new(&format!("{name}.{kind}")).values(&slices(&columns))
            };
            let (low, high) = (part(0), part(16));
            let results = Instruction::new(&format!("{name}.{kind}x2")).values(&slices(&columns));
            for (i, &result) in results.iter().enumerate() {
                assert_eq!(result, low[i] | high[i] << 16, "{name}.{kind}x2");
            }
        }
    }
}

/// The reference itself: one plus half a unit is a tie.
#[test]
fn reference_knows_ties() {
    let exact = Signed { negative: false, magnitude: Dyadic::new(0x1001, -12) };
    let rounds_to = |result| F16.is_rounded(result, false, Mode::Rn, |x| exact.magnitude.compare(x));
    assert!(rounds_to(0x3c00) && !rounds_to(0x3c01) && !rounds_to(0x3bff));
    let tie = Dyadic::new(0x801, -11);
    let rounds_to = |result, mode| F16.is_rounded(result, false, mode, |x| tie.compare(x));
    assert!(rounds_to(0x3c00, Mode::Rn) && !rounds_to(0x3c01, Mode::Rn));
    assert!(rounds_to(0x3c01, Mode::Rna) && !rounds_to(0x3c00, Mode::Rna));
}
