//! `mma.sync` against the fragment layouts and the documented order of summation.

use crate::common::{Random, Type, accumulator_bits, decode, dot, get, put};
use cuda_emulator::tensor::mma::{MmaOp, lookup};
use cuda_emulator_alu::row::Row;
use half::f16;

/// Matrix shape.
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub k: usize,
}

/// Row and column of element `i` of A that a lane holds, as the tables of the PTX ISA state them.
pub fn place_a(shape: Shape, bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (bits, shape.m) {
        (_, 8) => (group, thread * (32 / bits.min(32)) + i),
        // m16n8k8, m16n8k16
        (16, _) => {
            (if i % 4 < 2 { group } else { group + 8 }, thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        // m16n8k16, m16n8k32
        (8, _) => (
            if i < 4 || (8..12).contains(&i) { group } else { group + 8 },
            thread * 4 + (i & 3) + if i >= 8 { 16 } else { 0 },
        ),
        // tf32 and f64
        _ => (if i.is_multiple_of(2) { group } else { group + 8 }, i / 2 * 4 + thread),
    }
}

/// Row (k) and column (n) of element `i` of B.
fn place_b(bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = match bits {
        16 => thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
        8 => thread * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
        _ => thread + 4 * i,
    };
    (row, group)
}

/// Row and column of element `i` of C and D.
fn place_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn name(shape: Shape, d: &str, a: Type, b: Type, satfinite: bool) -> Vec<String> {
    let mut parts = vec!["sync".into(), "aligned".into(), format!("m{}n8k{}", shape.m, shape.k)];
    parts.extend(["row".into(), "col".into()]);
    parts.extend(satfinite.then(|| "satfinite".into()));
    parts.extend([d.into(), a.name(), b.name(), d.into()]);
    parts
}

fn find(name: &[String]) -> Option<MmaOp> {
    lookup(&name.iter().map(String::as_str).collect::<Vec<_>>())
}

/// All that exists: shapes by accumulator and element types.
fn shapes(d: &str, a: Type, b: Type) -> &'static [(usize, usize)] {
    let floats8 = [Type::E4m3, Type::E5m2];
    let integers = [Type::S8, Type::U8];
    match d {
        "f32" | "f16" if floats8.contains(&a) && floats8.contains(&b) => &[(16, 16), (16, 32)],
        "s32" if integers.contains(&a) && integers.contains(&b) => &[(8, 16), (16, 16), (16, 32)],
        _ if a != b => &[],
        "f32" if a == Type::Bf16 => &[(16, 8), (16, 16)],
        "f32" | "f16" if a == Type::F16 => &[(16, 8), (16, 16)],
        "f32" if a == Type::Tf32 => &[(16, 4), (16, 8)],
        "f64" if a == Type::F64 => &[(8, 4), (16, 4), (16, 8), (16, 16)],
        _ => &[],
    }
}

const ACCUMULATORS: [&str; 4] = ["f32", "f16", "s32", "f64"];

struct Case {
    shape: Shape,
    d: &'static str,
    types: (Type, Type),
    satfinite: bool,
}

impl Case {
    /// Matrices of bits, row major: A, B (k by n), C.
    fn inputs(&self, random: &mut Random) -> [Vec<u64>; 3] {
        let Shape { m, k } = self.shape;
        let a = (0..m * k).map(|_| self.types.0.random(random)).collect();
        let b = (0..k * 8).map(|_| self.types.1.random(random)).collect();
        let c = (0..m * 8).map(|_| match self.d {
            "f32" => u64::from((random.real() as f32 * 8.0).to_bits()),
            "f16" => u64::from(f16::from_f64(random.real()).to_bits()),
            "f64" => random.real().to_bits(),
            // Large enough to overflow now and then.
            _ => u64::from(random.bits() as u32 | 0x7fff_0000 & !(random.bits() as u32 & 1)),
        });
        [a, b, c.collect()]
    }

    /// Runs the instruction on matrices laid out by the formulas above; D comes back row major.
    fn run(&self, [a, b, c]: &[Vec<u64>; 3]) -> Vec<u64> {
        let Shape { m, k } = self.shape;
        let op =
            find(&name(self.shape, self.d, self.types.0, self.types.1, self.satfinite)).expect("supported");
        let (bits, c_bits) = (self.types.0.bits(), accumulator_bits(self.d));
        let (registers, c_registers) = (bits.max(32), c_bits.max(32));
        assert_eq!(op.flops, 2 * (m * 8 * k) as u64);
        assert_eq!(
            [op.a, op.b, op.c, op.d],
            [m * k * bits, 8 * k * bits, m * 8 * c_bits, m * 8 * c_bits].map(|x| x / 1024)
        );
        let [mut ra, mut rb, mut rc] = [op.a, op.b, op.c].map(|n| vec![Row::ZERO; n]);
        for lane in 0..32 {
            for i in 0..m * k / 32 {
                let (row, column) = place_a(self.shape, bits, lane, i);
                put(&mut ra, registers, lane, i * bits, bits, a[row * k + column]);
            }
            for i in 0..k * 8 / 32 {
                let (row, column) = place_b(bits, lane, i);
                put(&mut rb, registers, lane, i * bits, bits, b[row * 8 + column]);
            }
            for i in 0..m * 8 / 32 {
                let (row, column) = place_c(lane, i);
                put(&mut rc, c_registers, lane, i * c_bits, c_bits, c[row * 8 + column]);
            }
        }
        let mut rd = vec![Row([0xdead_beef; 32]); op.d];
        (op.run)(&mut rd, &ra, &rb, &rc);
        let mut d = vec![0; m * 8];
        for lane in 0..32 {
            for i in 0..m * 8 / 32 {
                let (row, column) = place_c(lane, i);
                d[row * 8 + column] = get(&rd, c_registers, lane, i * c_bits, c_bits);
            }
        }
        d
    }

    fn expected(&self, [a, b, c]: &[Vec<u64>; 3]) -> Vec<u64> {
        let k = self.shape.k;
        let element = |i: usize| {
            let row: Vec<f64> = (0..k).map(|x| self.types.0.value(a[i / 8 * k + x])).collect();
            let column: Vec<f64> = (0..k).map(|x| self.types.1.value(b[x * 8 + i % 8])).collect();
            dot(self.d, self.satfinite, &row, &column, c[i])
        };
        (0..c.len()).map(element).collect()
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for d in ACCUMULATORS {
        for a in Type::ALL {
            for b in Type::ALL {
                for &(m, k) in shapes(d, a, b) {
                    for satfinite in [false, true] {
                        if d == "s32" || !satfinite {
                            cases.push(Case { shape: Shape { m, k }, d, types: (a, b), satfinite });
                        }
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_form_matches_layout_and_order() {
    let mut random = Random::new(1);
    let cases = cases();
    assert_eq!(cases.len(), 2 + 4 + 2 + 16 + 24 + 4);
    for case in cases {
        for _ in 0..4 {
            let inputs = case.inputs(&mut random);
            let label = name(case.shape, case.d, case.types.0, case.types.1, case.satfinite).join(".");
            assert_eq!(case.run(&inputs), case.expected(&inputs), "{label}");
        }
    }
}

#[test]
fn f32_sums_stay_within_their_rounding_error() {
    let case =
        Case { shape: Shape { m: 16, k: 16 }, d: "f32", types: (Type::Bf16, Type::Bf16), satfinite: false };
    let mut random = Random::new(2);
    let inputs = case.inputs(&mut random);
    let [a, b, c] = &inputs;
    for (i, &got) in case.run(&inputs).iter().enumerate() {
        let products =
            (0..16).map(|k| Type::Bf16.value(a[i / 8 * 16 + k]) * Type::Bf16.value(b[k * 8 + i % 8]));
        let terms: Vec<f64> = products.chain([decode("f32", c[i])]).collect();
        let magnitude: f64 = terms.iter().map(|t| t.abs()).sum();
        let error = (decode("f32", got) - terms.iter().sum::<f64>()).abs();
        assert!(error <= 16.0 * magnitude * f64::from(f32::EPSILON) / 2.0, "element {i}: {error:e}");
    }
}

#[test]
fn satfinite_and_wrapping_overflow_differ() {
    let case =
        |satfinite| Case { shape: Shape { m: 16, k: 32 }, d: "s32", types: (Type::U8, Type::S8), satfinite };
    let mut inputs = case(false).inputs(&mut Random::new(3));
    inputs[0].fill(255);
    inputs[1].fill(127);
    inputs[2].fill(u64::from(i32::MAX as u32));
    assert!(case(true).run(&inputs).iter().all(|&d| d == 0x7fff_ffff));
    assert!(
        case(false).run(&inputs).iter().all(|&d| d as u32 as i32 == i32::MAX.wrapping_add(255 * 127 * 32))
    );
    inputs[1].fill(0x80);
    inputs[2].fill(u64::from(i32::MIN as u32));
    assert!(case(true).run(&inputs).iter().all(|&d| d == 0x8000_0000));
}

#[test]
fn special_values_follow_ieee() {
    let case =
        Case { shape: Shape { m: 16, k: 16 }, d: "f32", types: (Type::Bf16, Type::Bf16), satfinite: false };
    let mut inputs = case.inputs(&mut Random::new(4));
    inputs.iter_mut().for_each(|m| m.fill(0));
    let (one, infinity, tiny) = (0x3f80, 0x7f80, 0x0001);
    // Row 0: 1 * inf. Row 1: inf * 0. Row 2: a subnormal times one. Row 3: C is a NaN with another payload.
    // Row 4: -inf and inf cancel.
    inputs[1][..8].fill(one);
    inputs[0][0] = infinity;
    inputs[0][16 + 1] = infinity;
    inputs[0][2 * 16] = tiny;
    inputs[2][3 * 8..4 * 8].fill(0xffc0_1234);
    inputs[0][4 * 16] = infinity;
    inputs[2][4 * 8..5 * 8].fill(0xff80_0000);
    let d = case.run(&inputs);
    let rows: Vec<u64> = d.chunks(8).map(|row| row[0]).collect();
    assert!(d.chunks(8).all(|row| row.iter().all(|x| x == &row[0])));
    assert_eq!(rows[..6], [0x7f80_0000, 0x7fff_ffff, 0x0001_0000, 0x7fff_ffff, 0x7fff_ffff, 0]);
}

#[test]
fn f16_accumulators_overflow_to_infinity_and_keep_subnormals() {
    let case =
        Case { shape: Shape { m: 16, k: 8 }, d: "f16", types: (Type::F16, Type::F16), satfinite: false };
    let mut inputs = case.inputs(&mut Random::new(5));
    inputs.iter_mut().for_each(|m| m.fill(0));
    inputs[0][0] = 0x7bff;
    inputs[1][0] = 0x4000;
    inputs[2][8..16].fill(0x0001);
    inputs[2][16] = 0xfe01;
    let d = case.run(&inputs);
    assert_eq!((d[0], d[1], d[8], d[16]), (0x7c00, 0, 0x0001, 0x7fff));
}

#[test]
fn other_forms_are_refused() {
    for refused in [
        "sync.aligned.m8n8k4.row.col.f32.f16.f16.f32",
        "sync.aligned.m8n8k4.row.row.f16.f16.f16.f16",
        "sync.aligned.m16n8k16.row.row.f32.bf16.bf16.f32",
        "sync.aligned.m16n8k16.row.col.f32.f16.f16.f16",
        "sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16",
        "sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32",
        "sync.aligned.m16n8k16.row.col.f32.bf16.f16.f32",
        "sync.aligned.m16n8k64.row.col.s32.s4.s4.s32",
        "sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc",
        "sync.aligned.m16n8k16.row.col.satfinite.f32.bf16.bf16.f32",
        "sp.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32",
        "sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e4m3.f32",
        "sync.m16n8k16.row.col.f32.bf16.bf16.f32",
    ] {
        assert!(lookup(&refused.split('.').collect::<Vec<_>>()).is_none(), "{refused}");
    }
}
