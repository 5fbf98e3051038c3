//! `cvt` against exact arithmetic.

use crate::exact::{BF16, Dyadic, F16, F32, F64, Format, MODES, Mode};
use crate::machine::{Instruction, once};
use crate::samples::{COUNT, Random, floats, integers, slices};

const FLOATS: [(&str, Format); 4] = [("f32", F32), ("f64", F64), ("f16", F16), ("bf16", BF16)];
/// Integer types: name, width, whether signed.
const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("u16", 16, false),
    ("u32", 32, false),
    ("u64", 64, false),
    ("s8", 8, true),
    ("s16", 16, true),
    ("s32", 32, true),
    ("s64", 64, true),
];

/// The value of the low bits of a register.
fn integer(bits: u32, signed: bool, x: u64) -> i128 {
    let low = i128::from(x) & ((1 << bits) - 1);
    if signed && low >> (bits - 1) == 1 { low - (1 << bits) } else { low }
}

/// A register that holds a value: results of fewer than 32 bits are extended to 16.
fn register(bits: u32, value: i128) -> u64 {
    let width = if bits == 8 { 16 } else { bits };
    (value & ((1 << width) - 1)) as u64
}

fn range(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

#[test]
fn integers_convert_to_integers() {
    for (from, from_bits, from_signed) in INTEGERS {
        let columns = integers(&[from_bits.max(16)], 31);
        for (to, bits, signed) in INTEGERS {
            let plain = Instruction::new(&format!("cvt.{to}.{from}")).values(&slices(&columns));
            let clamped = Instruction::new(&format!("cvt.sat.{to}.{from}")).values(&slices(&columns));
            let (min, max) = range(bits, signed);
            for (i, &x) in columns[0].iter().enumerate() {
                let value = integer(from_bits, from_signed, x);
                let wrapped = integer(bits, signed, register(64, value));
                assert_eq!(plain[i], register(bits, wrapped), "cvt.{to}.{from} of {x:x}");
                assert_eq!(clamped[i], register(bits, value.clamp(min, max)), "cvt.sat.{to}.{from} of {x:x}");
            }
        }
    }
}

/// An integral value next to a finite floating-point number, by the definition of the direction.
fn integral(format: Format, x: u64, mode: Mode) -> i128 {
    let value = format.value(x);
    // Beyond this everything is an integer that no destination holds.
    if value.magnitude.compare(&Dyadic::new(1, 70)).is_gt() {
        return if value.negative { i128::MIN } else { i128::MAX };
    }
    let (mut low, mut high) = (0u128, 1 << 71);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if value.magnitude.compare(&Dyadic::new(middle, 0)).is_lt() {
            high = middle - 1
        } else {
            low = middle
        }
    }
    let exact = value.magnitude.compare(&Dyadic::new(low, 0)).is_eq();
    let half = value.magnitude.compare(&Dyadic::new(2 * low + 1, -1));
    let up = match mode {
        Mode::Rn => half.is_gt() || half.is_eq() && low % 2 == 1,
        Mode::Rna => half.is_ge(),
        Mode::Rz => false,
        Mode::Rm => value.negative && !exact,
        Mode::Rp => !value.negative && !exact,
    };
    let magnitude = low as i128 + i128::from(up);
    if value.negative { -magnitude } else { magnitude }
}

#[test]
fn floats_convert_to_integers() {
    for (from, format) in FLOATS {
        let columns = to_integer_samples(format);
        for (modifier, mode) in MODES {
            let exact: Vec<Option<i128>> =
                columns[0].iter().map(|&x| reference_integer(format, x, mode)).collect();
            for (to, bits, signed) in INTEGERS {
                let name = format!("cvt.{modifier}i.{to}.{from}");
                let results = Instruction::new(&name).values(&slices(&columns));
                let (min, max) = range(bits, signed);
                let nan = if from == "f64" || bits == 64 {
                    register(bits, integer(bits, signed, 1 << (bits - 1)))
                } else {
                    0
                };
                for (i, &result) in results.iter().enumerate() {
                    let expected = exact[i].map_or(nan, |value| register(bits, value.clamp(min, max)));
                    assert_eq!(result, expected, "{name} of {:x}", columns[0][i]);
                }
            }
        }
    }
    assert_eq!(once("cvt.rpi.s32.f32", &[1]), 1);
    assert_eq!(once("cvt.rpi.ftz.s32.f32", &[1]), 0);
    assert_eq!(once("cvt.rmi.ftz.s32.f32", &[0x807f_ffff]), 0);
}

/// `None` for NaN.
fn reference_integer(format: Format, x: u64, mode: Mode) -> Option<i128> {
    match x {
        _ if format.is_nan(x) => None,
        _ if format.is_infinite(x) && format.is_negative(x) => Some(i128::MIN),
        _ if format.is_infinite(x) => Some(i128::MAX),
        _ => Some(integral(format, x, mode)),
    }
}

/// All values of small formats; for the others also values around those of integers.
fn to_integer_samples(format: Format) -> Vec<Vec<u64>> {
    if format.bits == 16 {
        return vec![(0..=0xffff).collect()];
    }
    let mut columns = floats(format, 1, 32);
    columns[0].truncate(COUNT / 2);
    let mut random = Random::new(33);
    for _ in 0..COUNT {
        // Exponents from -3 to 66.
        let unit = 1u64 << (format.precision - 1);
        let field = format.one() / unit - 3 + random.next() % 70;
        let sparse = !0 << (random.next() % u64::from(format.precision));
        let sign = if random.coin() { format.sign() } else { 0 };
        let magnitude = field * unit + (random.next() & sparse & (unit - 1));
        columns[0].push(magnitude | sign);
    }
    columns
}

#[test]
fn integers_convert_to_floats() {
    for (from, from_bits, signed) in INTEGERS {
        let mut columns = integers(&[from_bits.max(16)], 34);
        // Few leading digits and a tail make ties.
        let mut random = Random::new(35);
        for _ in 0..COUNT {
            let value = (random.next() | 1 << 63) & (!0 << (random.next() % 64));
            columns[0].push(value >> (random.next() % 64) & u64::MAX >> (64 - from_bits.max(16)));
        }
        for (to, format) in FLOATS {
            for (modifier, mode) in MODES {
                let name = format!("cvt.{modifier}.{to}.{from}");
                let results = Instruction::new(&name).values(&slices(&columns));
                for (&x, &result) in columns[0].iter().zip(&results) {
                    let value = integer(from_bits, signed, x);
                    let exact = Dyadic::new(value.unsigned_abs(), 0);
                    let right = if value == 0 {
                        result == 0
                    } else {
                        format.is_rounded(result, value < 0, mode, |y| exact.compare(y))
                    };
                    assert!(right, "{name} of {x:x}: {result:x}");
                }
            }
        }
    }
    assert_eq!(once("cvt.rn.sat.f32.s32", &[7]), F32.one());
    assert_eq!(once("cvt.rn.sat.f64.s32", &[0xffff_ffff]), 0);
    assert_eq!(once("cvt.rz.sat.f16.u32", &[70_000]), F16.one());
}

/// All values of a 16-bit format, or edges, random ones and ties of the destination.
pub fn samples(from: Format, to: Format) -> Vec<Vec<u64>> {
    if from.bits == 16 {
        return vec![(0..=0xffff).collect()];
    }
    let mut columns = floats(from, 1, 36);
    if to.bits < from.bits {
        // Around all values and midpoints of the destination that the source has, or random ones of them.
        let mut random = Random::new(37);
        let count = if to.bits <= 19 { 1 << to.bits.min(17) } else { COUNT as u64 };
        for i in 0..count {
            let encoding = if to.bits <= 17 { i } else { random.next() & to.mask() };
            for tie in [false, true] {
                let Some(value) = widened(to, encoding, tie, from) else { continue };
                columns[0].extend([value - 1, value, value + 1]);
            }
        }
    }
    columns
}

/// A finite value of `narrow`, or the midpoint above it, as an encoding of `wide`, a format of the host.
fn widened(narrow: Format, encoding: u64, tie: bool, wide: Format) -> Option<u64> {
    let magnitude = narrow.magnitude(encoding);
    if magnitude >= narrow.infinity() || magnitude == 0 {
        return None;
    }
    let unit = 1u64 << (narrow.precision - 1);
    let field = magnitude / unit;
    let digits = if field == 0 { magnitude } else { unit + magnitude % unit };
    let bias = (narrow.one() / unit) as i32;
    let exponent = field.max(1) as i32 - bias - narrow.precision as i32;
    let value = (2 * digits + u64::from(tie)) as f64 * 2f64.powi(exponent);
    let value = if narrow.is_negative(encoding) { -value } else { value };
    Some(if wide == F32 { (value as f32).to_bits().into() } else { value.to_bits() })
}

pub fn check_conversion(from: Format, to: Format, mode: Mode, x: u64, result: u64, name: &str) {
    let sign = if from.is_negative(x) { to.sign() } else { 0 };
    let right = match from.magnitude(x) {
        0 => result == sign,
        _ if from.is_nan(x) => result == to.sign() - 1,
        _ if from.is_infinite(x) => result == to.infinity() | sign,
        _ => {
            let exact = from.value(x);
            to.is_rounded(result, exact.negative, mode, |y| exact.magnitude.compare(y))
        }
    };
    assert!(right, "{name} of {x:x}: {result:x}");
}

#[test]
fn floats_convert_to_narrower_floats() {
    let pairs = [
        ("f32", F32, "f64", F64),
        ("f16", F16, "f64", F64),
        ("bf16", BF16, "f64", F64),
        ("f16", F16, "f32", F32),
        ("bf16", BF16, "f32", F32),
        ("f16", F16, "bf16", BF16),
        ("bf16", BF16, "f16", F16),
    ];
    for (to, to_format, from, from_format) in pairs {
        let columns = samples(from_format, to_format);
        for (modifier, mode) in MODES {
            let name = format!("cvt.{modifier}.{to}.{from}");
            let results = Instruction::new(&name).values(&slices(&columns));
            for (&x, &result) in columns[0].iter().zip(&results) {
                check_conversion(from_format, to_format, mode, x, result, &name);
            }
        }
    }
}

#[test]
fn floats_convert_to_wider_floats_exactly() {
    for (to, to_format, from, from_format) in [
        ("f64", F64, "f32", F32),
        ("f64", F64, "f16", F16),
        ("f64", F64, "bf16", BF16),
        ("f32", F32, "f16", F16),
        ("f32", F32, "bf16", BF16),
    ] {
        let columns = samples(from_format, to_format);
        let name = format!("cvt.{to}.{from}");
        let results = Instruction::new(&name).values(&slices(&columns));
        for (&x, &result) in columns[0].iter().zip(&results) {
            check_conversion(from_format, to_format, Mode::Rz, x, result, &name);
            check_conversion(from_format, to_format, Mode::Rp, x, result, &name);
        }
    }
    assert_eq!(once("cvt.ftz.f64.f32", &[0x8000_0001]), 1 << 63);
    assert_eq!(once("cvt.ftz.f32.bf16", &[0x0001]), 0);
    assert_eq!(once("cvt.sat.f32.f16", &[0x4000]), F32.one());
    assert_eq!(once("cvt.rn.ftz.f32.f64", &[1e-40f64.to_bits()]), 0);
    assert_eq!(once("cvt.rn.sat.f32.f64", &[(-1e-40f64).to_bits()]), 0);
    assert_eq!(once("cvt.rn.sat.f16.f32", &[3f32.to_bits().into()]), F16.one());
    assert_eq!(once("cvt.rp.ftz.f16.f32", &[1]), 0);
}

#[test]
fn pairs_of_singles_pack_the_first_one_above() {
    for (to, format) in [("f16", F16), ("bf16", BF16)] {
        let columns = samples(F32, format);
        let reversed: Vec<u64> = columns[0].iter().rev().copied().collect();
        for mode in ["rn", "rz"] {
            for flags in ["", ".relu", ".satfinite", ".relu.satfinite"] {
                let single = Instruction::new(&format!("cvt.{mode}{flags}.{to}.f32"));
                let (high, low) = (single.values(&[&columns[0]]), single.values(&[&reversed]));
                let pairs = Instruction::new(&format!("cvt.{mode}{flags}.{to}x2.f32"));
                for (i, &result) in pairs.values(&[&columns[0], &reversed]).iter().enumerate() {
                    assert_eq!(result, high[i] << 16 | low[i], "{}", pairs.name);
                }
            }
        }
    }
}

/// `.relu` and `.satfinite` against the plain conversion.
#[test]
fn modifiers_are_about_results() {
    for (to, format) in [("f16", F16), ("bf16", BF16)] {
        let columns = samples(F32, format);
        for (mode, _) in MODES {
            let run = |flags: &str| {
                Instruction::new(&format!("cvt.{mode}{flags}.{to}.f32")).values(&slices(&columns))
            };
            let (plain, relu, finite) = (run(""), run(".relu"), run(".satfinite"));
            let both = run(".relu.satfinite");
            for (i, &x) in plain.iter().enumerate() {
                let rectified = if format.is_negative(x) { 0 } else { x };
                let bounded = if format.is_infinite(x) { x - 1 } else { x };
                assert_eq!(relu[i], rectified);
                assert_eq!(finite[i], bounded);
                assert_eq!(both[i], if format.is_negative(x) { 0 } else { bounded });
            }
        }
    }
}

#[test]
fn floats_round_to_integral_values() {
    for (kind, format) in FLOATS {
        let columns = to_integer_samples(format);
        for (modifier, mode) in MODES {
            let name = format!("cvt.{modifier}i.{kind}.{kind}");
            let results = Instruction::new(&name).values(&slices(&columns));
            for (&x, &result) in columns[0].iter().zip(&results) {
                if format.is_nan(x) {
                    let expected = if kind == "f64" { x | 1 << 51 } else { format.sign() - 1 };
                    assert_eq!(result, expected, "{name} of {x:x}");
                    continue;
                }
                assert_eq!(result & format.sign(), x & format.sign(), "{name} of {x:x}");
                let integral = reference_integer(format, x, mode).unwrap_or_default();
                if integral == i128::MAX || integral == i128::MIN {
                    assert_eq!(result, x, "{name}");
                    continue;
                }
                let expected = Dyadic::new(integral.unsigned_abs(), 0);
                assert!(
                    format.value(result).magnitude.compare(&expected).is_eq(),
                    "{name} of {x:x}: {result:x}"
                );
            }
        }
    }
    assert_eq!(once("cvt.rpi.ftz.f32.f32", &[1]), 0);
    assert_eq!(once("cvt.sat.f32.f32", &[0x7fc0_0000]), 0);
    assert_eq!(once("cvt.sat.f64.f64", &[(-2f64).to_bits()]), 0);
    assert_eq!(once("cvt.ftz.f32.f32", &[0x8000_0001]), 0x8000_0000);
}

#[test]
fn packing_clamps_and_shifts() {
    let columns = integers(&[32, 32, 32], 39);
    let types = [
        ("u8", 8, false),
        ("s8", 8, true),
        ("u4", 4, false),
        ("s4", 4, true),
        ("u2", 2, false),
        ("s2", 2, true),
    ];
    for (to, bits, signed) in types {
        let name = format!("cvt.pack.sat.{to}.s32.b32");
        let results = Instruction::new(&name).values(&slices(&columns));
        for (i, &result) in results.iter().enumerate() {
            let field = |j: usize| clamped_field(bits, signed, columns[j][i]);
            let expected = (columns[2][i] << (2 * bits) | field(0) << bits | field(1)) & 0xffff_ffff;
            assert_eq!(result, expected, "{name}");
        }
    }
    for (to, signed) in [("u16", false), ("s16", true)] {
        let name = format!("cvt.pack.sat.{to}.s32");
        let results = Instruction::new(&name).values(&slices(&columns[..2]));
        for (i, &result) in results.iter().enumerate() {
            let field = |j: usize| clamped_field(16, signed, columns[j][i]);
            assert_eq!(result, field(0) << 16 | field(1), "{name}");
        }
    }
}

fn clamped_field(bits: u32, signed: bool, x: u64) -> u64 {
    let (min, max) = range(bits, signed);
    (integer(32, true, x).clamp(min, max) & ((1 << bits) - 1)) as u64
}
