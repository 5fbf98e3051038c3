//! Reductions against arithmetic in wider types.

use crate::common::Random;
use cuda_emulator::tensor::reduce::{for_tensor, lookup};
use cuda_emulator::tensor::tensor_map::DataType;
use half::{bf16, f16};

const OPERATIONS: [&str; 8] = ["add", "min", "max", "inc", "dec", "and", "or", "xor"];

/// What integers do, in 128 bits.
fn integer(operation: &str, old: i128, new: i128) -> i128 {
    match operation {
        "add" => old + new,
        "min" => old.min(new),
        "max" => old.max(new),
        "inc" => {
            if old >= new {
                0
            } else {
                old + 1
            }
        }
        "dec" => {
            if old == 0 || old > new {
                new
            } else {
                old - 1
            }
        }
        "and" => old & new,
        "or" => old | new,
        _ => old ^ new,
    }
}

#[test]
fn integers() {
    let widths = [("u32", 4, false), ("s32", 4, true), ("u64", 8, false), ("s64", 8, true)];
    let bits = [("b32", 4, false), ("b64", 8, false)];
    let mut random = Random::new(1);
    let mut found = 0;
    for operation in OPERATIONS {
        for (name, bytes, signed) in widths.into_iter().chain(bits) {
            let Some(reduction) = lookup(operation, name) else { continue };
            found += 1;
            assert_eq!(reduction.bytes, bytes);
            let mask = u64::MAX >> (64 - 8 * bytes);
            let value = |bits: u64| match (signed, bytes) {
                (true, 4) => i128::from(bits as u32 as i32),
                (true, _) => i128::from(bits as i64),
                _ => i128::from(bits),
            };
            let edges = [0, 1, mask, mask >> 1, (mask >> 1) + 1, 7, 8];
            let random: Vec<u64> = (0..50).map(|_| random.bits() & mask).collect();
            let all: Vec<u64> = edges.into_iter().chain(random).collect();
            for &old in &all {
                for &new in &all {
                    let wanted = integer(operation, value(old), value(new)) as u64 & mask;
                    assert_eq!((reduction.apply)(old, new), wanted, "{operation}.{name} {old:#x} {new:#x}");
                }
            }
        }
    }
    assert_eq!(found, 3 + 4 + 4 + 1 + 1 + 6);
}

#[test]
fn sixteen_bit_floats_round_once() {
    let mut random = Random::new(2);
    let mut pairs: Vec<(u16, u16)> =
        (0..20_000).map(|_| (random.bits() as u16, random.bits() as u16)).collect();
    pairs.extend([(0x0001, 0x0001), (0x8000, 0x0000), (0x0000, 0x8000), (0x7bff, 0x7bff), (0x7c00, 0xfc00)]);
    for (a, b) in pairs {
        let apply = |operation: &str, name: &str| {
            let reduction = lookup(operation, name).unwrap();
            assert_eq!(reduction.bytes, 2);
            (reduction.apply)(a.into(), b.into())
        };
        // The sum of two of either type is exact in f64.
        let (x, y) = (f16::from_bits(a).to_f64(), f16::from_bits(b).to_f64());
        let bits = |v: f64| if v.is_nan() { 0x7fff } else { u64::from(f16::from_f64(v).to_bits()) };
        assert_eq!(apply("add", "f16"), bits(x + y), "{a:#x} {b:#x}");
        assert_eq!([apply("min", "f16"), apply("max", "f16")], extremes(x, y).map(bits), "{a:#x} {b:#x}");
        let (x, y) = (bf16::from_bits(a).to_f64(), bf16::from_bits(b).to_f64());
        let bits = |v: f64| if v.is_nan() { 0x7fff } else { u64::from(bf16::from_f64(v).to_bits()) };
        assert_eq!([apply("min", "bf16"), apply("max", "bf16")], extremes(x, y).map(bits), "{a:#x} {b:#x}");
        // A sum of bf16 is exact in f64 only if the exponents are near.
        if x == 0.0 || y == 0.0 || (x / y).abs().log2().abs() < 40.0 {
            assert_eq!(apply("add", "bf16"), bits(x + y), "{a:#x} {b:#x}");
        }
    }
}

/// Smaller and larger, numbers before NaN and -0 before +0.
fn extremes(x: f64, y: f64) -> [f64; 2] {
    if x.is_nan() || y.is_nan() {
        return [if x.is_nan() { y } else { x }; 2];
    }
    let mut sorted = [x, y];
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[test]
fn wide_floats() {
    let add = |a: f32, b: f32| {
        f32::from_bits((lookup("add", "f32").unwrap().apply)(a.to_bits().into(), b.to_bits().into()) as u32)
    };
    assert_eq!(add(1.5, -0.25), 1.25);
    assert_eq!(add(1.0, f32::EPSILON / 2.0), 1.0);
    assert_eq!(add(f32::INFINITY, f32::NEG_INFINITY).to_bits(), 0x7fff_ffff);
    // Subnormals are flushed: of inputs, and of results.
    assert_eq!(add(1e-40, f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    assert_eq!(add(-1e-40, -1e-40).to_bits(), 0x8000_0000);
    assert_eq!(add(-1.5 * f32::MIN_POSITIVE, f32::MIN_POSITIVE).to_bits(), 0x8000_0000);
    let double = lookup("add", "f64").unwrap();
    assert_eq!((double.apply)(1.5f64.to_bits(), 1e-310f64.to_bits()), 1.5f64.to_bits());
    assert_eq!((double.apply)(0, 1e-310f64.to_bits()), 1e-310f64.to_bits());
}

#[test]
fn combinations_that_do_not_exist() {
    for (operation, name) in [
        ("inc", "s32"),
        ("dec", "u64"),
        ("add", "s64"),
        ("add", "b32"),
        ("and", "u32"),
        ("min", "f32"),
        ("max", "f64"),
        ("add", "u8"),
        ("exch", "b32"),
    ] {
        assert!(lookup(operation, name).is_none(), "{operation}.{name}");
    }
    for operation in OPERATIONS {
        for data_type in [DataType::U8, DataType::U16, DataType::F64] {
            assert!(for_tensor(operation, data_type).is_none());
        }
    }
    assert!(for_tensor("and", DataType::F32).is_none());
    assert_eq!((for_tensor("and", DataType::S64).unwrap().apply)(12, 10), 8);
    assert_eq!((for_tensor("max", DataType::S32).unwrap().apply)(0xffff_ffff, 1), 1);
    assert_eq!((for_tensor("max", DataType::U32).unwrap().apply)(0xffff_ffff, 1), 0xffff_ffff);
}
