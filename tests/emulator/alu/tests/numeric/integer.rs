//! Integer arithmetic against 128-bit integers.

use crate::machine::{Instruction, find, once};
use crate::samples::{integers, slices};

/// Types of arithmetic: name, width, whether signed.
const TYPES: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("u32", 32, false),
    ("u64", 64, false),
    ("s16", 16, true),
    ("s32", 32, true),
    ("s64", 64, true),
];

fn value(bits: u32, signed: bool, x: u64) -> i128 {
    let low = i128::from(x) & ((1 << bits) - 1);
    if signed && low >> (bits - 1) == 1 { low - (1 << bits) } else { low }
}

fn low(bits: u32, x: i128) -> u64 {
    (x & ((1 << bits) - 1)) as u64
}

/// Runs `name` on operands of the given widths and compares each result with `expected`.
fn check(name: &str, widths: &[u32], expected: impl Fn(&[u64]) -> u64) {
    let columns = integers(widths, name.len() as u64);
    let results = Instruction::new(name).values(&slices(&columns));
    for (i, &result) in results.iter().enumerate() {
        let operands: Vec<u64> = columns.iter().map(|column| column[i]).collect();
        let expected = expected(&operands);
        assert_eq!(result, expected, "{name} of {operands:x?}: {result:x}, not {expected:x}");
    }
}

/// The product of two 64-bit values does not fit into `i128` if both are large and unsigned.
fn product_bits(bits: u32, signed: bool, a: u64, b: u64) -> u128 {
    if signed { (value(bits, true, a) * value(bits, true, b)) as u128 } else { u128::from(a) * u128::from(b) }
}

#[test]
fn two_operands() {
    for (kind, bits, signed) in TYPES {
        let v = |x: u64| value(bits, signed, x);
        let two = [bits, bits];
        check(&format!("add.{kind}"), &two, |x| low(bits, v(x[0]) + v(x[1])));
        check(&format!("sub.{kind}"), &two, |x| low(bits, v(x[0]) - v(x[1])));
        check(&format!("min.{kind}"), &two, |x| if v(x[0]) < v(x[1]) { x[0] } else { x[1] });
        check(&format!("max.{kind}"), &two, |x| if v(x[0]) > v(x[1]) { x[0] } else { x[1] });
        check(&format!("div.{kind}"), &two, |x| match v(x[1]) {
            0 => low(bits, -1),
            divisor => low(bits, v(x[0]) / divisor),
        });
        check(&format!("rem.{kind}"), &two, |x| match v(x[1]) {
            0 => x[0],
            divisor => low(bits, v(x[0]) % divisor),
        });
        check(&format!("sad.{kind}"), &[bits; 3], |x| low(bits, v(x[2]) + (v(x[0]) - v(x[1])).abs()));
    }
    for (kind, bits, _) in TYPES.into_iter().filter(|t| t.2) {
        check(&format!("abs.{kind}"), &[bits], |x| low(bits, value(bits, true, x[0]).abs()));
        check(&format!("neg.{kind}"), &[bits], |x| low(bits, -value(bits, true, x[0])));
    }
}

#[test]
fn products() {
    for (kind, bits, signed) in TYPES {
        let product = |x: &[u64]| product_bits(bits, signed, x[0], x[1]);
        let part = |x: u128, shift: u32| (x >> shift) as u64 & u64::MAX >> (64 - bits);
        let sum = |x: u64, c: u64| low(bits, i128::from(x) + i128::from(c));
        check(&format!("mul.lo.{kind}"), &[bits; 2], |x| part(product(x), 0));
        check(&format!("mul.hi.{kind}"), &[bits; 2], |x| part(product(x), bits));
        check(&format!("mad.lo.{kind}"), &[bits; 3], |x| sum(part(product(x), 0), x[2]));
        check(&format!("mad.hi.{kind}"), &[bits; 3], |x| sum(part(product(x), bits), x[2]));
        if bits < 64 {
            let wide = 2 * bits;
            check(&format!("mul.wide.{kind}"), &[bits; 2], |x| low(wide, product(x) as i128));
            check(&format!("mad.wide.{kind}"), &[bits, bits, wide], |x| {
                low(wide, (product(x) as i128).wrapping_add(x[2].into()))
            });
        }
    }
    for (kind, signed) in [("u32", false), ("s32", true)] {
        let product = |x: &[u64]| value(24, signed, x[0]) * value(24, signed, x[1]);
        check(&format!("mul24.lo.{kind}"), &[32; 2], |x| low(32, product(x)));
        check(&format!("mul24.hi.{kind}"), &[32; 2], |x| low(32, product(x) >> 16));
        check(&format!("mad24.lo.{kind}"), &[32; 3], |x| low(32, product(x) + i128::from(x[2])));
        check(&format!("mad24.hi.{kind}"), &[32; 3], |x| low(32, (product(x) >> 16) + i128::from(x[2])));
    }
}

fn clamp32(x: i128) -> u64 {
    low(32, x.clamp(i32::MIN.into(), i32::MAX.into()))
}

#[test]
fn saturation_and_rectification() {
    let v = |x: u64| value(32, true, x);
    check("add.sat.s32", &[32; 2], |x| clamp32(v(x[0]) + v(x[1])));
    check("sub.sat.s32", &[32; 2], |x| clamp32(v(x[0]) - v(x[1])));
    check("mad.hi.sat.s32", &[32; 3], |x| clamp32(((v(x[0]) * v(x[1])) >> 32) + v(x[2])));
    check("mad24.hi.sat.s32", &[32; 3], |x| {
        let product = value(24, true, x[0]) * value(24, true, x[1]);
        clamp32(value(32, true, low(32, product >> 16)) + v(x[2]))
    });
    check("min.relu.s32", &[32; 2], |x| low(32, v(x[0]).min(v(x[1])).max(0)));
    check("max.relu.s32", &[32; 2], |x| low(32, v(x[0]).max(v(x[1])).max(0)));
}

#[test]
fn packed_halves() {
    let halves = |x: &[u64], f: &dyn Fn(u64, u64) -> i128| {
        low(16, f(x[0] & 0xffff, x[1] & 0xffff)) | low(16, f(x[0] >> 16, x[1] >> 16)) << 16
    };
    let s = |x: u64| value(16, true, x);
    let u = |x: u64| i128::from(x);
    let two = [32; 2];
    check("add.u16x2", &two, |x| halves(x, &|a, b| u(a) + u(b)));
    check("add.s16x2", &two, |x| halves(x, &|a, b| u(a) + u(b)));
    check("min.u16x2", &two, |x| halves(x, &|a, b| u(a).min(u(b))));
    check("max.u16x2", &two, |x| halves(x, &|a, b| u(a).max(u(b))));
    check("min.s16x2", &two, |x| halves(x, &|a, b| s(a).min(s(b))));
    check("max.s16x2", &two, |x| halves(x, &|a, b| s(a).max(s(b))));
    check("min.relu.s16x2", &two, |x| halves(x, &|a, b| s(a).min(s(b)).max(0)));
    check("max.relu.s16x2", &two, |x| halves(x, &|a, b| s(a).max(s(b)).max(0)));
}

#[test]
fn dot_products() {
    for (a, a_signed) in [("u32", false), ("s32", true)] {
        for (b, b_signed) in [("u32", false), ("s32", true)] {
            let byte = |signed: bool, x: u64, i: u32| value(8, signed, x >> (8 * i));
            check(&format!("dp4a.{a}.{b}"), &[32; 3], |x| {
                let dot: i128 = (0..4).map(|i| byte(a_signed, x[0], i) * byte(b_signed, x[1], i)).sum();
                low(32, dot + i128::from(x[2]))
            });
            for (part, first) in [("lo", 0), ("hi", 2)] {
                check(&format!("dp2a.{part}.{a}.{b}"), &[32; 3], |x| {
                    let word = |i: u32| value(16, a_signed, x[0] >> (16 * i));
                    let dot: i128 = (0..2).map(|i| word(i) * byte(b_signed, x[1], first + i)).sum();
                    low(32, dot + i128::from(x[2]))
                });
            }
        }
    }
}

/// Runs an instruction that writes a value and a carry.
fn check_carry(
    name: &str,
    bits: u32,
    values: usize,
    carry_in: bool,
    expected: impl Fn(&[u64]) -> (u64, bool),
) {
    let mut widths = vec![bits; values];
    if carry_in {
        // Any bit pattern serves as a predicate of which the lowest bit counts.
        widths.push(32);
    }
    let mut columns = integers(&widths, 41);
    if carry_in {
        columns[values].iter_mut().for_each(|carry| *carry &= 1);
    }
    let [results, carries] = Instruction::new(name).run(&slices(&columns));
    for (i, &result) in results.iter().enumerate() {
        let operands: Vec<u64> = columns.iter().map(|column| column[i]).collect();
        let (expected, carry) = expected(&operands);
        let carry = u64::from(carry && name.contains("cc"));
        assert_eq!((result, carries[i]), (expected, carry), "{name} of {operands:x?}");
    }
}

#[test]
fn carries() {
    for (kind, bits, signed) in TYPES.into_iter().filter(|t| t.1 > 16) {
        let sum = |a: u64, b: u64, c: u64| {
            let sum = u128::from(a) + u128::from(b) + u128::from(c);
            (low(bits, sum as i128), sum >> bits != 0)
        };
        let difference = |a: u64, b: u64, c: u64| {
            let difference = i128::from(a) - i128::from(b) - i128::from(c);
            (low(bits, difference), difference < 0)
        };
        check_carry(&format!("add.cc.{kind}"), bits, 2, false, |x| sum(x[0], x[1], 0));
        check_carry(&format!("sub.cc.{kind}"), bits, 2, false, |x| difference(x[0], x[1], 0));
        for cc in ["", ".cc"] {
            check_carry(&format!("addc{cc}.{kind}"), bits, 2, true, |x| sum(x[0], x[1], x[2]));
            check_carry(&format!("subc{cc}.{kind}"), bits, 2, true, |x| difference(x[0], x[1], x[2]));
        }
        for (part, shift) in [("lo", 0), ("hi", bits)] {
            let product = |x: &[u64]| low(bits, (product_bits(bits, signed, x[0], x[1]) >> shift) as i128);
            check_carry(&format!("mad.{part}.cc.{kind}"), bits, 3, false, |x| sum(product(x), x[2], 0));
            for cc in ["", ".cc"] {
                let name = format!("madc.{part}{cc}.{kind}");
                check_carry(&name, bits, 3, true, |x| sum(product(x), x[2], x[3]));
            }
        }
    }
}

#[test]
fn moves_and_logic() {
    for (kind, bits) in [("b16", 16), ("b32", 32), ("b64", 64)] {
        let mask = u64::MAX >> (64 - bits);
        check(&format!("and.{kind}"), &[bits; 2], |x| x[0] & x[1]);
        check(&format!("or.{kind}"), &[bits; 2], |x| x[0] | x[1]);
        check(&format!("xor.{kind}"), &[bits; 2], |x| x[0] ^ x[1]);
        check(&format!("not.{kind}"), &[bits], |x| x[0] ^ mask);
        check(&format!("cnot.{kind}"), &[bits], |x| u64::from(x[0] == 0));
        check(&format!("mov.{kind}"), &[bits], |x| x[0]);
    }
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_eq!(once("and.pred", &[a, b]), a & b);
        assert_eq!(once("or.pred", &[a, b]), a | b);
        assert_eq!(once("xor.pred", &[a, b]), a ^ b);
        assert_eq!(once("not.pred", &[a]), 1 - a);
        assert_eq!(once("mov.pred", &[a]), a);
    }
}

#[test]
fn selections() {
    for (kind, bits) in [("b16", 16), ("u32", 32), ("f32", 32), ("s64", 64), ("f64", 64)] {
        let a = 0x0123_4567_89ab_cdefu64 & u64::MAX >> (64 - bits);
        let b = a ^ 0xff;
        assert_eq!(once(&format!("selp.{kind}"), &[a, b, 1]), a);
        assert_eq!(once(&format!("selp.{kind}"), &[a, b, 0]), b);
        for (c, first) in [(0, true), (5, true), (0x8000_0000, false), (u64::from(u32::MAX), false)] {
            assert_eq!(once(&format!("slct.{kind}.s32"), &[a, b, c]), if first { a } else { b });
        }
        for (c, first) in
            [(0f32, true), (-0.0, true), (1.0, true), (-1.0, false), (f32::NAN, false), (-1e-40, false)]
        {
            let c = u64::from(c.to_bits());
            assert_eq!(once(&format!("slct.{kind}.f32"), &[a, b, c]), if first { a } else { b });
        }
        let subnormal = u64::from((-1e-40f32).to_bits());
        assert_eq!(once(&format!("slct.ftz.{kind}.f32"), &[a, b, subnormal]), a);
    }
}

/// Widths and signs that PTX does not have are not in the table.
#[test]
fn absent_forms_are_refused() {
    for name in [
        "add.u8",
        "mul.wide.u64",
        "abs.u32",
        "neg.u32",
        "add.sat.u32",
        "mad.s32",
        "mul.s32",
        "min.relu.u32",
        "addc.u16",
        "sub.u16x2",
        "mul24.u32",
        "cnot.pred",
        "and.u32",
        "dp4a.u32",
    ] {
        assert!(find(name).is_none(), "{name}");
    }
}
