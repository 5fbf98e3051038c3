//! `wgmma` on matrices that were written to shared memory by layout formulas of their own.

use crate::common::{Random, Type, accumulator_bits, dot, get, put};
use crate::mma::{Shape, place_a};
use cuda_emulator::tensor::descriptor::{Major, MatrixDescriptor};
use cuda_emulator::tensor::swizzle::Swizzle;
use cuda_emulator::tensor::wgmma::{A_ROWS, Operands, OutOfShared, Source, WgmmaOp, lookup};
use cuda_emulator_alu::row::Row;
use std::collections::HashSet;

const SHARED: usize = 160 << 10;

/// How a matrix lies in shared memory: one instruction's part of a tile with `steps` times as much K, the
/// part being number `step`.
#[derive(Clone, Copy, Debug)]
struct Layout {
    major: Major,
    swizzle: Swizzle,
    base: usize,
    step: usize,
}

const STEPS: usize = 2;

impl Layout {
    fn span(self) -> usize {
        [16, 32, 64, 128][self.swizzle as usize]
    }

    /// Swaps chunks: bits 4 to 6 of the address take bits 7 to 9 on, as many as the mode has, counted from
    /// where the tile starts.
    fn swizzled(self, offset: usize) -> usize {
        let mask = self.span() / 16 - 1;
        self.base + (offset ^ (((offset / 128) & mask) * 16))
    }

    /// Byte address of element (`line`, `k`), `line` being a row of A or a column of B, of `lines` in all.
    fn address(self, lines: usize, bits: usize, line: usize, k: usize) -> usize {
        let k_bytes = (k * bits / 8) + 32 * self.step;
        let all_k = 16 * STEPS;
        match (self.major, self.swizzle) {
            // Cores of eight lines by 16 bytes: first all lines, then the next 16 bytes.
            (Major::K, Swizzle::None) => {
                self.base + k_bytes / 16 * (lines / 8 * 128) + line / 8 * 128 + line % 8 * 16 + k_bytes % 16
            }
            // Rows of a span, as a tensor copy writes them; 32 bytes of K are a part of a span.
            (Major::K, _) => {
                let panel = k_bytes / self.span();
                self.swizzled(panel * lines * self.span() + line * self.span() + k_bytes % self.span())
            }
            // Cores of eight lines (along a chunk) by eight k: first all k, then the next lines.
            (Major::Mn, Swizzle::None) => {
                let k = k + 16 * self.step;
                self.base + line / 8 * (all_k / 8 * 128) + k / 8 * 128 + k % 8 * 16 + line % 8 * 2
            }
            // Panels of a span of lines by all k.
            (Major::Mn, _) => {
                let k = k + 16 * self.step;
                let panel = line * 2 / self.span();
                self.swizzled(panel * all_k * self.span() + k * self.span() + line * 2 % self.span())
            }
        }
    }

    /// The descriptor of that, as bits: start, leading and stride offset.
    fn descriptor(self, lines: usize) -> u64 {
        let (span, all_k) = (self.span(), 16 * STEPS);
        let (start, leading, stride) = match (self.major, self.swizzle) {
            (Major::K, Swizzle::None) => (self.step * 2 * lines * 16, lines * 16, 128),
            // The leading offset is not used; Triton leaves it zero, others write one.
            (Major::K, _) => (32 * self.step / span * lines * span + 32 * self.step % span, 16, 8 * span),
            (Major::Mn, Swizzle::None) => (self.step * 256, 128, all_k * 16),
            (Major::Mn, _) => (self.step * 16 * span, all_k * span, 8 * span),
        };
        let code = [0, 3, 2, 1][self.swizzle as usize];
        let base_offset = if self.swizzle == Swizzle::None { 0 } else { (self.base % (8 * span)) / 128 };
        encode(self.base + start)
            | encode(leading) << 16
            | encode(stride) << 32
            | (base_offset as u64) << 49
            | code << 62
    }
}

fn encode(bytes: usize) -> u64 {
    assert_eq!(bytes % 16, 0);
    (bytes & 0x3ffff) as u64 >> 4
}

struct Case {
    d: &'static str,
    types: (Type, Type),
    n: usize,
    satfinite: bool,
    /// `None`: A in registers.
    a: Option<Layout>,
    b: Layout,
    scale_d: bool,
    scales: (i64, i64),
}

/// Matrices of bits: A (64 by k), B (k by n), C (64 by n).
type Matrices = [Vec<u64>; 3];

impl Case {
    fn bits(&self) -> usize {
        self.types.0.bits()
    }

    fn k(&self) -> usize {
        256 / self.bits()
    }

    fn op(&self) -> WgmmaOp {
        let satfinite = if self.satfinite { "satfinite." } else { "" };
        let (n, k, a, b) = (self.n, self.k(), self.types.0.name(), self.types.1.name());
        let name = format!("mma_async.sync.aligned.m64n{n}k{k}.{satfinite}{}.{a}.{b}", self.d);
        lookup(&name.split('.').collect::<Vec<_>>()).unwrap_or_else(|| panic!("{name}"))
    }

    fn inputs(&self, random: &mut Random) -> Matrices {
        let k = self.k();
        let a = (0..64 * k).map(|_| self.types.0.random(random)).collect();
        let b = (0..k * self.n).map(|_| self.types.1.random(random)).collect();
        let c = (0..64 * self.n).map(|_| match self.d {
            "f16" => u64::from(half::f16::from_f64(random.real()).to_bits()),
            "f32" => u64::from((random.real() as f32).to_bits()),
            _ => u64::from(random.bits() as u32),
        });
        [a, b, c.collect()]
    }

    /// Shared memory with noise wherever the matrices are not, and the addresses of their chunks.
    fn shared(&self, [a, b, _]: &Matrices, random: &mut Random) -> (Vec<u8>, HashSet<u32>, HashSet<u32>) {
        let (bits, k) = (self.bits(), self.k());
        let mut shared: Vec<u8> = (0..SHARED).map(|_| random.bits() as u8).collect();
        let mut write = |address: usize, value: u64| {
            shared[address..address + bits / 8].copy_from_slice(&value.to_le_bytes()[..bits / 8]);
            (address / 16 * 16) as u32
        };
        let mut a_chunks = HashSet::new();
        if let Some(layout) = self.a {
            for (i, &x) in a.iter().enumerate() {
                a_chunks.insert(write(layout.address(64, bits, i / k, i % k), x));
            }
        }
        let mut b_chunks = HashSet::new();
        for (i, &x) in b.iter().enumerate() {
            b_chunks.insert(write(self.b.address(self.n, bits, i % self.n, i / self.n), x));
        }
        (shared, a_chunks, b_chunks)
    }

    /// A's fragment of one warp.
    fn registers(&self, a: &[u64], warp: usize) -> Vec<Row> {
        let (bits, k) = (self.bits(), self.k());
        let mut rows = vec![Row::ZERO; A_ROWS];
        for lane in 0..32 {
            for i in 0..128 / bits {
                let (row, column) = place_a(Shape { m: 16, k }, bits, lane, i);
                put(&mut rows, 32, lane, i * bits, bits, a[(16 * warp + row) * k + column]);
            }
        }
        rows
    }

    fn immediates(&self) -> Vec<i64> {
        let trans = |layout: Layout| i64::from(layout.major == Major::Mn);
        let scales = if self.d == "s32" { vec![] } else { vec![self.scales.0, self.scales.1] };
        let transpositions = match (self.bits(), self.a) {
            (16, Some(a)) => vec![trans(a), trans(self.b)],
            (16, None) => vec![trans(self.b)],
            _ => vec![],
        };
        [scales, transpositions].concat()
    }

    /// Runs all four warps; D comes back row major.
    fn run(&self, inputs: &Matrices, random: &mut Random) -> Vec<u64> {
        let op = self.op();
        let (shared, a_chunks, b_chunks) = self.shared(inputs, random);
        let immediates = op.immediates(self.a.is_none(), &self.immediates()).unwrap();
        let b = MatrixDescriptor::decode(self.b.descriptor(self.n)).unwrap();
        assert_eq!(op.b_chunks(b, immediates.b_major).collect::<HashSet<_>>(), b_chunks, "{:?}", self.b);
        let (bits, mut all_a, mut out) = (accumulator_bits(self.d), HashSet::new(), vec![0; 64 * self.n]);
        assert_eq!(op.d, 16 * self.n * bits / 1024);
        assert_eq!(4 * op.flops, 2 * (64 * self.n * self.k()) as u64);
        for warp in 0..4 {
            let registers = self.registers(&inputs[0], warp);
            let a = match self.a {
                None => Source::Registers(&registers),
                Some(layout) => Source::Shared(MatrixDescriptor::decode(layout.descriptor(64)).unwrap()),
            };
            if let Source::Shared(a) = a {
                let chunks: Vec<u32> = op.a_chunks(a, immediates.a_major, warp as u32).collect();
                assert_eq!(chunks.len(), 32);
                all_a.extend(chunks);
            }
            let mut d = vec![Row::ZERO; op.d];
            self.each_accumulator(warp, |lane, i, at| put(&mut d, 32, lane, i * bits, bits, inputs[2][at]));
            let operands = Operands { a, b, scale_d: self.scale_d, immediates };
            op.run(&operands, warp as u32, &shared, &mut d).unwrap();
            self.each_accumulator(warp, |lane, i, at| out[at] = get(&d, 32, lane, i * bits, bits));
        }
        assert_eq!(all_a, a_chunks);
        out
    }

    /// Lane, element in the lane, and place in the row-major matrix.
    fn each_accumulator(&self, warp: usize, mut visit: impl FnMut(usize, usize, usize)) {
        for lane in 0..32 {
            for i in 0..self.n / 2 {
                let row = 16 * warp + lane / 4 + if i % 4 < 2 { 0 } else { 8 };
                let column = i / 4 * 8 + lane % 4 * 2 + i % 2;
                visit(lane, i, row * self.n + column);
            }
        }
    }

    fn expected(&self, [a, b, c]: &Matrices) -> Vec<u64> {
        let (k, n) = (self.k(), self.n);
        let sign = if self.d == "s32" { 1.0 } else { (self.scales.0 * self.scales.1) as f64 };
        let element = |i: usize| {
            let row: Vec<f64> = (0..k).map(|x| sign * self.types.0.value(a[i / n * k + x])).collect();
            let column: Vec<f64> = (0..k).map(|x| self.types.1.value(b[x * n + i % n])).collect();
            dot(self.d, self.satfinite, &row, &column, if self.scale_d { c[i] } else { 0 })
        };
        (0..c.len()).map(element).collect()
    }

    fn check(&self, random: &mut Random) {
        let inputs = self.inputs(random);
        let label = format!("{} {:?} n{} a {:?} b {:?}", self.d, self.types, self.n, self.a, self.b);
        assert!(self.run(&inputs, random) == self.expected(&inputs), "{label}");
    }
}

const SWIZZLES: [Swizzle; 4] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128];

/// Every layout that elements of that many bits may have.
fn layouts(bits: usize, base: usize) -> Vec<Layout> {
    let mut layouts = vec![];
    for swizzle in SWIZZLES {
        for major in [Major::K, Major::Mn] {
            for step in 0..STEPS {
                if major == Major::K || bits == 16 {
                    layouts.push(Layout { major, swizzle, base, step });
                }
            }
        }
    }
    layouts
}

/// N that the layout can hold: whole spans of columns.
fn fits(n: usize, b: Layout) -> bool {
    b.major == Major::K || (n * 2).is_multiple_of(b.span())
}

const A_BASE: usize = 1024;
const B_BASE: usize = 32 << 10;

#[test]
fn every_pair_of_layouts_of_sixteen_bits() {
    let mut random = Random::new(1);
    for b in layouts(16, B_BASE) {
        for a in layouts(16, A_BASE).into_iter().map(Some).chain([None]) {
            for n in [24, 128].into_iter().filter(|&n| fits(n, b)) {
                let types = (Type::Bf16, Type::Bf16);
                let case = Case { d: "f32", types, n, satfinite: false, a, b, scale_d: true, scales: (1, 1) };
                case.check(&mut random);
            }
        }
    }
}

#[test]
fn every_type_and_accumulator() {
    let mut random = Random::new(2);
    let float8 = [Type::E4m3, Type::E5m2];
    let integer = [Type::S8, Type::U8];
    let pairs = |types: [Type; 2]| types.map(|a| types.map(|b| (a, b))).concat();
    let mut forms = vec![("f32", (Type::Bf16, Type::Bf16)), ("f32", (Type::Tf32, Type::Tf32))];
    forms.extend(["f32", "f16"].map(|d| (d, (Type::F16, Type::F16))));
    forms
        .extend(["f32", "f16"].map(|d| pairs(float8).into_iter().map(move |p| (d, p))).into_iter().flatten());
    forms.extend(pairs(integer).into_iter().map(|p| ("s32", p)));
    assert_eq!(forms.len(), 2 + 2 + 8 + 4);
    for (d, types) in forms {
        for (i, b) in layouts(types.0.bits(), B_BASE).into_iter().enumerate() {
            let a = layouts(types.0.bits(), A_BASE).into_iter().rev().nth(i).filter(|_| i % 3 != 0);
            let n = 64;
            for satfinite in [false, true].into_iter().filter(|s| !s || d == "s32") {
                for scale_d in [false, true] {
                    let scales = (if i % 2 == 0 { 1 } else { -1 }, if i % 4 < 2 { 1 } else { -1 });
                    Case { d, types, n, satfinite, a, b, scale_d, scales }.check(&mut random);
                }
            }
        }
    }
}

#[test]
fn every_width() {
    let mut random = Random::new(3);
    for n in (8..=256).step_by(8) {
        let b = Layout { major: Major::K, swizzle: Swizzle::B128, base: B_BASE, step: 1 };
        let types = (Type::F16, Type::F16);
        let d = if n % 16 == 0 { "f16" } else { "f32" };
        Case { d, types, n, satfinite: false, a: None, b, scale_d: true, scales: (1, -1) }.check(&mut random);
    }
}

#[test]
fn a_pattern_may_start_at_any_line_if_the_descriptor_says_so() {
    let mut random = Random::new(4);
    for swizzle in SWIZZLES {
        for major in [Major::K, Major::Mn] {
            for line in 0..8 {
                let b = Layout { major, swizzle, base: B_BASE + 128 * line, step: 1 };
                let types = (Type::Bf16, Type::Bf16);
                let case = Case {
                    d: "f32",
                    types,
                    n: 64,
                    satfinite: false,
                    a: None,
                    b,
                    scale_d: true,
                    scales: (1, 1),
                };
                case.check(&mut random);
            }
        }
    }
}

#[test]
fn a_wrong_descriptor_gives_a_wrong_product() {
    let mut random = Random::new(5);
    let types = (Type::Bf16, Type::Bf16);
    let b = Layout { major: Major::Mn, swizzle: Swizzle::B128, base: B_BASE, step: 0 };
    let case = Case { d: "f32", types, n: 128, satfinite: false, a: None, b, scale_d: true, scales: (1, 1) };
    let inputs = case.inputs(&mut random);
    let (shared, ..) = case.shared(&inputs, &mut random);
    let (op, registers) = (case.op(), case.registers(&inputs[0], 0));
    let right = b.descriptor(case.n);
    let product = |bits: u64, trans: i64| {
        let mut d = vec![Row::ZERO; op.d];
        let immediates = op.immediates(true, &[1, 1, trans]).unwrap();
        let b = MatrixDescriptor::decode(bits).unwrap();
        let operands = Operands { a: Source::Registers(&registers), b, scale_d: false, immediates };
        op.run(&operands, 0, &shared, &mut d).unwrap();
        d
    };
    let wanted = product(right, 1);
    // Start, leading, stride, base offset, swizzle, transposition.
    for mutated in [right + 8, right + (8 << 16), right + (8 << 32), right + (1 << 49), right ^ 1 << 63] {
        assert_ne!(product(mutated, 1), wanted, "{mutated:#x}");
    }
    assert_ne!(product(right, 0), wanted);
    assert_eq!(product(right, 1), wanted);
}

#[test]
fn descriptors_as_triton_builds_them() {
    // K major, 128-byte swizzle, from 0xc000.
    let a = MatrixDescriptor::decode(4_611_686_293_305_294_848 | 0xc000 >> 4).unwrap();
    let expected =
        MatrixDescriptor { start: 0xc000, leading: 0, stride: 1024, base_offset: 0, swizzle: Swizzle::B128 };
    assert_eq!(a, expected);
    // M or N major: a panel of 64 columns by 64 k is 8192 bytes.
    let b = MatrixDescriptor::decode(4_611_686_293_305_294_848 | 33_554_432 | 0x400 >> 4).unwrap();
    assert_eq!(b, MatrixDescriptor { start: 0x400, leading: 8192, ..expected });
    assert!(MatrixDescriptor::decode(1 << 14).unwrap_err().contains("reserved"));
    assert!(MatrixDescriptor::decode(1 << 61).unwrap_err().contains("reserved"));
}

#[test]
fn chunks_outside_shared_memory_are_reported() {
    let op = lookup(&["mma_async", "sync", "aligned", "m64n8k16", "f32", "bf16", "bf16"]).unwrap();
    let immediates = op.immediates(true, &[1, 1, 0]).unwrap();
    let b = MatrixDescriptor::decode(encode(1024) | encode(128) << 16 | encode(128) << 32).unwrap();
    let operands = Operands { a: Source::Registers(&[Row::ZERO; 4]), b, scale_d: false, immediates };
    let mut d = [Row::ZERO; 4];
    assert_eq!(op.run(&operands, 0, &[0; 1024 + 255], &mut d), Err(OutOfShared { offset: 1024 + 240 }));
    assert_eq!(op.run(&operands, 0, &[0; 1024 + 256], &mut d), Ok(()));
}

#[test]
fn immediates_are_counted_and_checked() {
    let find = |name: &str| lookup(&name.split('.').collect::<Vec<_>>());
    let bf16 = find("mma_async.sync.aligned.m64n8k16.f32.bf16.bf16").unwrap();
    let tf32 = find("mma_async.sync.aligned.m64n8k8.f32.tf32.tf32").unwrap();
    let s8 = find("mma_async.sync.aligned.m64n8k32.s32.s8.s8").unwrap();
    assert!(bf16.immediates(false, &[1, 1, 0]).is_err());
    assert!(bf16.immediates(true, &[1, 1, 0, 0]).is_err());
    assert!(bf16.immediates(true, &[2, 1, 0]).is_err());
    assert!(bf16.immediates(true, &[1, 1, 2]).is_err());
    assert!(tf32.immediates(false, &[1, -1]).is_ok());
    assert!(tf32.immediates(false, &[1, -1, 0, 0]).is_err());
    assert!(s8.immediates(false, &[]).is_ok());
    assert!(s8.immediates(false, &[1, 1]).is_err());
    for refused in [
        "mma_async.sync.aligned.m64n264k16.f32.bf16.bf16",
        "mma_async.sync.aligned.m64n12k16.f32.bf16.bf16",
        "mma_async.sync.aligned.m64n0k16.f32.bf16.bf16",
        "mma_async.sync.aligned.m64n8k8.f32.bf16.bf16",
        "mma_async.sync.aligned.m64n8k16.f16.bf16.bf16",
        "mma_async.sync.aligned.m64n40k32.s32.s8.s8",
        "mma_async.sync.aligned.m64n8k32.satfinite.f32.e4m3.e4m3",
        "mma_async.sp.sync.aligned.m64n8k32.f32.bf16.bf16",
        "mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc",
    ] {
        assert!(find(refused).is_none(), "{refused}");
    }
}
