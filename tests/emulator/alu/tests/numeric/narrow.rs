//! `cvt` to and from `.tf32` and the 8-bit formats.

use crate::convert::{check_conversion, samples};
use crate::exact::{E5M2, F32, Mode, TF32};
use crate::machine::{Instruction, once};
use crate::samples::{COUNT, Random, slices};

#[test]
fn tf32_is_rounded_to_its_precision() {
    let columns = samples(F32, TF32);
    for (modifier, mode) in [("rna", Mode::Rna), ("rn", Mode::Rn), ("rz", Mode::Rz)] {
        let name = format!("cvt.{modifier}.tf32.f32");
        let results = Instruction::new(&name).values(&slices(&columns));
        let finite =
            Instruction::new(&format!("cvt.{modifier}.satfinite.tf32.f32")).values(&slices(&columns));
        for (i, &x) in columns[0].iter().enumerate() {
            if F32.is_nan(x) {
                assert_eq!(results[i], 0x7fff_ffff);
                assert_eq!(finite[i], 0x7fff_ffff);
                continue;
            }
            assert_eq!(results[i] & 0x1fff, 0, "{name} of {x:x}");
            check_conversion(F32, TF32, mode, x, results[i] >> 13, &name);
            let bounded = if F32.is_infinite(results[i]) { results[i] - 0x2000 } else { results[i] };
            assert_eq!(finite[i], bounded, "{name} with .satfinite of {x:x}");
        }
    }
    let relu = Instruction::new("cvt.rn.relu.tf32.f32").values(&slices(&columns));
    let plain = Instruction::new("cvt.rn.tf32.f32").values(&slices(&columns));
    for (&relu, &plain) in relu.iter().zip(&plain) {
        assert_eq!(relu, if F32.is_negative(plain) { 0 } else { plain });
    }
}

/// The finite values of `.e4m3` in order: eights of a power of two from 2^-6 up, and multiples of 2^-9 below.
fn e4m3_values() -> Vec<f64> {
    (0..0x7f)
        .map(|code: i32| match code / 8 {
            0 => f64::from(code) * 2f64.powi(-9),
            exponent => f64::from(8 + code % 8) * 2f64.powi(exponent - 10),
        })
        .collect()
}

/// The nearest finite value of `.e4m3`, ties to even encodings.
fn nearest_e4m3(values: &[f64], x: f64) -> u64 {
    let distance = |code: usize| (values[code] - x.abs()).abs();
    let mut best = 0;
    for code in 1..values.len() {
        let closer = distance(code) < distance(best);
        if closer || distance(code) == distance(best) && code % 2 == 0 {
            best = code;
        }
    }
    best as u64 | if x.is_sign_negative() { 0x80 } else { 0 }
}

fn byte_samples() -> Vec<u64> {
    let mut samples = Vec::new();
    // All values of binary16, which has those of the 8-bit formats and the midpoints, and their neighbours.
    for x in 0..=0xffffu64 {
        let wide = once_f32(x);
        samples.extend([wide.wrapping_sub(1) & 0xffff_ffff, wide, (wide + 1) & 0xffff_ffff]);
    }
    let mut random = Random::new(38);
    samples.extend((0..COUNT).map(|_| random.next() & 0xffff_ffff));
    samples
}

/// binary16 in binary32 by arithmetic.
fn once_f32(x: u64) -> u64 {
    let value = match x >> 10 & 31 {
        0 => (x & 1023) as f64 * 2f64.powi(-24),
        31 if x & 1023 == 0 => f64::INFINITY,
        31 => f64::NAN,
        field => ((x & 1023) + 1024) as f64 * 2f64.powi(field as i32 - 25),
    };
    u64::from((value as f32).to_bits()) | (x & 0x8000) << 16
}

#[test]
fn singles_convert_to_bytes() {
    let samples = byte_samples();
    let values = e4m3_values();
    let zeros = vec![0; samples.len()];
    let run = |name: &str, high: &[u64], low: &[u64]| Instruction::new(name).values(&[high, low]);
    let e4m3 = run("cvt.rn.satfinite.e4m3x2.f32", &samples, &zeros);
    let e4m3_low = run("cvt.rn.satfinite.e4m3x2.f32", &zeros, &samples);
    let e4m3_relu = run("cvt.rn.satfinite.relu.e4m3x2.f32", &samples, &zeros);
    let e5m2 = run("cvt.rn.satfinite.e5m2x2.f32", &samples, &zeros);
    let e5m2_relu = run("cvt.rn.satfinite.relu.e5m2x2.f32", &zeros, &samples);
    for (i, &x) in samples.iter().enumerate() {
        let value = f32::from_bits(x as u32);
        let expected = if value.is_nan() { 0x7f } else { nearest_e4m3(&values, value.into()) };
        assert_eq!(e4m3[i], expected << 8, "e4m3 of {x:x}");
        assert_eq!(e4m3_low[i], expected, "e4m3 of {x:x}");
        let negative = value.is_sign_negative() && !value.is_nan();
        assert_eq!(e4m3_relu[i], if negative { 0 } else { expected << 8 }, "e4m3 with .relu of {x:x}");
        let byte = e5m2[i] >> 8;
        assert_eq!(e5m2_relu[i], if negative { 0 } else { byte }, "e5m2 with .relu of {x:x}");
        if value.abs() >= 57344.0 {
            assert_eq!(byte, 0x7b | if negative { 0x80 } else { 0 }, "e5m2 of {x:x}");
        } else {
            check_conversion(F32, E5M2, Mode::Rn, x, byte, "e5m2");
        }
    }
}

#[test]
fn bytes_convert_to_halves_and_back() {
    let values = e4m3_values();
    for high in 0..=0xffu64 {
        for low in [0, 1, 7, 8, 0x38, 0x7e, 0x7f, 0x80, 0x81, 0xff] {
            let pair = high << 8 | low;
            let e4m3 = |code: u64| match code & 0x7f {
                0x7f => 0x7fff,
                magnitude => {
                    let value = half_of(values[magnitude as usize]);
                    value | (code & 0x80) << 8
                }
            };
            assert_eq!(once("cvt.rn.f16x2.e4m3x2", &[pair]), e4m3(high) << 16 | e4m3(low), "{pair:x}");
            let e5m2 = |code: u64| if code & 0x7f > 0x7c { 0x7fff } else { code << 8 };
            let expected = e5m2(high) << 16 | e5m2(low);
            assert_eq!(once("cvt.rn.f16x2.e5m2x2", &[pair]), expected, "{pair:x}");
            let relu = |x: u64| if x & 0x8000 != 0 { 0 } else { x };
            assert_eq!(
                once("cvt.rn.relu.f16x2.e5m2x2", &[pair]),
                relu(e5m2(high)) << 16 | relu(e5m2(low)),
                "{pair:x}"
            );
            for kind in ["e4m3x2", "e5m2x2"] {
                let halves = once(&format!("cvt.rn.f16x2.{kind}"), &[pair]);
                let back = once(&format!("cvt.rn.satfinite.{kind}.f16x2"), &[halves]);
                let singles = [once_f32(halves >> 16), once_f32(halves & 0xffff)];
                assert_eq!(back, once(&format!("cvt.rn.satfinite.{kind}.f32"), &singles), "{kind} {pair:x}");
            }
        }
    }
}

/// The binary16 encoding of a normal value or zero.
fn half_of(value: f64) -> u64 {
    if value == 0.0 {
        return 0;
    }
    let exponent = value.log2().floor() as i32;
    let fraction = (value / 2f64.powi(exponent) - 1.0) * 1024.0;
    ((exponent + 15) as u64) << 10 | fraction as u64
}
