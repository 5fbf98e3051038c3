//! Comparisons against orderings computed from encodings.

use crate::exact::{BF16, F16, F32, F64, Format};
use crate::machine::{Instruction, find, once};
use crate::samples::{Random, floats, integers, slices};
use std::cmp::Ordering;

/// Name, and whether it holds for an ordering; `None` is unordered.
type Comparison = (&'static str, fn(Option<Ordering>) -> bool);

const ORDERED: [Comparison; 6] = [
    ("eq", |o| o == Some(Ordering::Equal)),
    ("ne", |o| matches!(o, Some(Ordering::Less | Ordering::Greater))),
    ("lt", |o| o == Some(Ordering::Less)),
    ("le", |o| matches!(o, Some(Ordering::Less | Ordering::Equal))),
    ("gt", |o| o == Some(Ordering::Greater)),
    ("ge", |o| matches!(o, Some(Ordering::Greater | Ordering::Equal))),
];

const UNORDERED: [Comparison; 8] = [
    ("equ", |o| matches!(o, None | Some(Ordering::Equal))),
    ("neu", |o| o != Some(Ordering::Equal)),
    ("ltu", |o| matches!(o, None | Some(Ordering::Less))),
    ("leu", |o| o != Some(Ordering::Greater)),
    ("gtu", |o| matches!(o, None | Some(Ordering::Greater))),
    ("geu", |o| o != Some(Ordering::Less)),
    ("num", |o| o.is_some()),
    ("nan", |o| o.is_none()),
];

const UNSIGNED: [(&str, &str); 4] = [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")];

type Combination = (&'static str, fn(u64, u64) -> u64);

const COMBINATIONS: [Combination; 3] =
    [(".and", |a, b| a & b), (".or", |a, b| a | b), (".xor", |a, b| a ^ b)];

fn float_order(format: Format, a: u64, b: u64) -> Option<Ordering> {
    if format.is_nan(a) || format.is_nan(b) {
        return None;
    }
    let rank = |x: u64| {
        let magnitude = i128::from(format.magnitude(x));
        if format.is_negative(x) { -magnitude } else { magnitude }
    };
    Some(rank(a).cmp(&rank(b)))
}

/// Checks `setp` with and without a combination for one type.
fn check(name: &str, kind: &str, columns: &[Vec<u64>], holds: impl Fn(u64, u64) -> bool) {
    let mut random = Random::new(61);
    let mut columns = columns.to_vec();
    columns.push(columns[0].iter().map(|_| random.next() & 1).collect());
    let [p, q] = Instruction::new(&format!("setp.{name}.{kind}")).run(&slices(&columns[..2]));
    for i in 0..p.len() {
        let (a, b) = (columns[0][i], columns[1][i]);
        let expected = u64::from(holds(a, b));
        assert_eq!((p[i], q[i]), (expected, 1 - expected), "setp.{name}.{kind} of {a:x} and {b:x}");
    }
    for (combination, combine) in COMBINATIONS {
        let (compared, flags) =
            name.split_once('.').map_or((name, String::new()), |(c, f)| (c, format!(".{f}")));
        let name = format!("setp.{compared}{combination}{flags}.{kind}");
        let [combined, complement] = Instruction::new(&name).run(&slices(&columns));
        for i in 0..p.len() {
            let c = columns[2][i];
            assert_eq!((combined[i], complement[i]), (combine(p[i], c), combine(q[i], c)), "{name}");
        }
    }
}

#[test]
fn integers_compare() {
    for (kind, bits, signed) in [
        ("u16", 16, false),
        ("u32", 32, false),
        ("u64", 64, false),
        ("s16", 16, true),
        ("s32", 32, true),
        ("s64", 64, true),
    ] {
        let columns = integers(&[bits, bits], 62);
        let top = 1u64 << (bits - 1);
        let rank = |x: u64| if signed { x ^ top } else { x };
        for (name, holds) in ORDERED {
            let expected = |a: u64, b: u64| holds(Some(rank(a).cmp(&rank(b))));
            check(name, kind, &columns, expected);
            let set = Instruction::new(&format!("set.{name}.u32.{kind}")).values(&slices(&columns));
            let one = Instruction::new(&format!("set.{name}.f32.{kind}")).values(&slices(&columns));
            for (i, (&set, &one)) in set.iter().zip(&one).enumerate() {
                let holds = expected(columns[0][i], columns[1][i]);
                assert_eq!(set, if holds { 0xffff_ffff } else { 0 });
                assert_eq!(one, if holds { F32.one() } else { 0 });
            }
        }
        for (alias, name) in UNSIGNED {
            if signed {
                assert!(find(&format!("setp.{alias}.{kind}")).is_none());
                continue;
            }
            let run = |name: &str| Instruction::new(&format!("setp.{name}.{kind}")).run(&slices(&columns));
            assert!(run(alias) == run(name), "setp.{alias}.{kind}");
        }
    }
    for (kind, bits) in [("b16", 16), ("b32", 32), ("b64", 64)] {
        let columns = integers(&[bits, bits], 63);
        check("eq", kind, &columns, |a, b| a == b);
        check("ne", kind, &columns, |a, b| a != b);
        assert!(find(&format!("setp.lt.{kind}")).is_none());
    }
}

#[test]
fn floats_compare() {
    for (kind, format) in [("f32", F32), ("f64", F64), ("f16", F16), ("bf16", BF16)] {
        let columns = floats(format, 2, 64);
        for (name, holds) in ORDERED.into_iter().chain(UNORDERED) {
            check(name, kind, &columns, |a, b| holds(float_order(format, a, b)));
            if kind == "f32" || kind == "f16" {
                check(&format!("{name}.ftz"), kind, &columns, |a, b| {
                    holds(float_order(format, format.flush(a), format.flush(b)))
                });
            }
        }
        assert!(find(&format!("setp.lo.{kind}")).is_none());
    }
}

#[test]
fn pairs_compare_by_element() {
    let mut random = Random::new(65);
    for (kind, _) in [("f16", F16), ("bf16", BF16)] {
        let columns: Vec<Vec<u64>> = (0..2)
            .map(|_| (0..20_000).map(|_| random.next() & 0x83ff_83ff | 0x3c00_0400).collect())
            .collect();
        let predicate: Vec<u64> = columns[0].iter().map(|_| random.next() & 1).collect();
        let part = |shift: u32| -> Vec<Vec<u64>> {
            columns.iter().map(|column| column.iter().map(|x| x >> shift & 0xffff).collect()).collect()
        };
        let (lows, highs) = (part(0), part(16));
        for (name, _) in ORDERED.into_iter().chain(UNORDERED) {
            let single = Instruction::new(&format!("setp.{name}.{kind}"));
            let (low, high) = (single.values(&slices(&lows)), single.values(&slices(&highs)));
            let [p, q] = Instruction::new(&format!("setp.{name}.{kind}x2")).run(&slices(&columns));
            assert!(p == low && q == high, "setp.{name}.{kind}x2");
            for (combination, combine) in COMBINATIONS {
                let name = format!("setp.{name}{combination}.{kind}x2");
                let sources = [&columns[0][..], &columns[1], &predicate];
                let [p, q] = Instruction::new(&name).run(&sources);
                for i in 0..p.len() {
                    let c = predicate[i];
                    assert_eq!((p[i], q[i]), (combine(low[i], c), combine(high[i], c)), "{name}");
                }
            }
            let one = if kind == "f16" { F16.one() } else { BF16.one() };
            let numbers =
                Instruction::new(&format!("set.{name}.{kind}x2.{kind}x2")).values(&slices(&columns));
            let masks = Instruction::new(&format!("set.{name}.u32.{kind}x2")).values(&slices(&columns));
            for i in 0..numbers.len() {
                assert_eq!(numbers[i], (low[i] | high[i] << 16) * one, "set.{name}.{kind}x2");
                assert_eq!(masks[i], (low[i] | high[i] << 16) * 0xffff, "set.{name}.u32.{kind}x2");
            }
        }
    }
}

/// `set` with a predicate is `setp` with a predicate, written as a number.
#[test]
fn set_combines_as_setp_does() {
    let mut random = Random::new(67);
    for (kind, ftz, results) in [
        ("s32", "", &[("u32", 0xffff_ffff), ("f32", F32.one())][..]),
        ("u64", "", &[("u32", 0xffff_ffff), ("f32", F32.one())]),
        ("f32", "", &[("s32", 0xffff_ffff), ("f32", F32.one())]),
        ("f32", ".ftz", &[("u32", 0xffff_ffff)]),
        ("f64", "", &[("u32", 0xffff_ffff)]),
        ("f16", ".ftz", &[("f16", F16.one()), ("u16", 0xffff), ("s32", 0xffff_ffff)]),
        ("bf16", "", &[("bf16", BF16.one()), ("u32", 0xffff_ffff)]),
    ] {
        let values = |random: &mut Random| (0..5000).map(|_| random.next()).collect::<Vec<u64>>();
        let columns = [values(&mut random), values(&mut random), values(&mut random)];
        let sources = slices(&columns);
        for name in ["eq", "lt", "ge"] {
            for (combination, _) in COMBINATIONS {
                let setp =
                    Instruction::new(&format!("setp.{name}{combination}{ftz}.{kind}")).values(&sources);
                for &(result, one) in results {
                    let set = format!("set.{name}{combination}{ftz}.{result}.{kind}");
                    let expected: Vec<u64> = setp.iter().map(|p| p * one).collect();
                    assert!(Instruction::new(&set).values(&sources) == expected, "{set}");
                }
            }
        }
    }
}

#[test]
fn set_writes_the_form_of_its_type() {
    let (one, two) = (u64::from(1f32.to_bits()), u64::from(2f32.to_bits()));
    assert_eq!(once("set.lt.f32.f32", &[one, two]), one);
    assert_eq!(once("set.gt.u32.f32", &[one, two]), 0);
    assert_eq!(once("set.ltu.s32.f64", &[1f64.to_bits(), f64::NAN.to_bits()]), 0xffff_ffff);
    assert_eq!(once("set.eq.ftz.u32.f32", &[1, 0]), 0xffff_ffff);
    assert_eq!(once("set.lt.f16.f16", &[0x3c00, 0x4000]), 0x3c00);
    assert_eq!(once("set.lt.u16.f16", &[0x3c00, 0x4000]), 0xffff);
    assert_eq!(once("set.lt.bf16.bf16", &[0x3f80, 0x4000]), 0x3f80);
    assert_eq!(once("set.lt.u32.bf16", &[0x3f80, 0x4000]), 0xffff_ffff);
}

#[test]
fn properties_are_those_of_the_encoding() {
    for (kind, format) in [("f32", F32), ("f64", F64)] {
        let columns = floats(format, 1, 66);
        let smallest_normal = 1u64 << (format.precision - 1);
        let properties: [(&str, &dyn Fn(u64) -> bool); 6] = [
            ("finite", &|m| m < format.infinity()),
            ("infinite", &|m| m == format.infinity()),
            ("number", &|m| m <= format.infinity()),
            ("notanumber", &|m| m > format.infinity()),
            ("normal", &|m| (smallest_normal..format.infinity()).contains(&m)),
            ("subnormal", &|m| (1..smallest_normal).contains(&m)),
        ];
        for (name, holds) in properties {
            let results = Instruction::new(&format!("testp.{name}.{kind}")).values(&slices(&columns));
            for (&x, &result) in columns[0].iter().zip(&results) {
                assert_eq!(result, u64::from(holds(format.magnitude(x))), "testp.{name}.{kind} of {x:x}");
            }
        }
    }
}
