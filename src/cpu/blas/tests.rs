//! Against a naive product in f64, over shapes, transposes, types, strides and factors; and thread-count
//! independence.

use super::*;
use half::{bf16, f16};

/// Uniform in [-1, 1) from a counter, so that failures repeat.
fn random(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F32,
    Bf16,
    F16,
}
const TYPES: [Type; 3] = [Type::F32, Type::Bf16, Type::F16];

/// An operand `[rows, cols]` as seen by the product, in memory transposed or not, with gaps of NaN between
/// rows.
struct Operand {
    f32s: Vec<f32>,
    bf16s: Vec<bf16>,
    f16s: Vec<f16>,
    rows: usize,
    cols: usize,
    gap: usize,
    transposed: bool,
    dtype: Type,
}

impl Operand {
    fn new(rows: usize, cols: usize, gap: usize, transposed: bool, dtype: Type, seed: u64) -> Self {
        let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
        let mut f32s: Vec<f32> = random(seed).take(r * (c + gap)).collect();
        if gap > 0 {
            f32s.chunks_mut(c + gap).for_each(|row| row[c..].fill(f32::NAN));
        }
        let bf16s: Vec<bf16> = f32s.iter().map(|&x| bf16::from_f32(x)).collect();
        let f16s: Vec<f16> = f32s.iter().map(|&x| f16::from_f32(x)).collect();
        match dtype {
            Type::F32 => {}
            Type::Bf16 => f32s = bf16s.iter().map(|x| x.to_f32()).collect(),
            Type::F16 => f32s = f16s.iter().map(|x| x.to_f32()).collect(),
        }
        Self { f32s, bf16s, f16s, rows, cols, gap, transposed, dtype }
    }

    fn view(&self) -> MatRef<'_> {
        let (r, c) = if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let data = match self.dtype {
            Type::F32 => Elems::F32(&self.f32s),
            Type::Bf16 => Elems::Bf16(&self.bf16s),
            Type::F16 => Elems::F16(&self.f16s),
        };
        let stored = MatRef::strided(data, r, c, c + self.gap);
        if self.transposed { stored.t() } else { stored }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        let stride = self.gap + if self.transposed { self.rows } else { self.cols };
        let (r, c) = if self.transposed { (col, row) } else { (row, col) };
        f64::from(self.f32s[r * stride + c])
    }
}

/// Runs one product and compares every element, and that gaps in C are untouched.
fn check(a: &Operand, b: &Operand, alpha: f32, beta: f32, gap: usize) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let stride = n + gap;
    let before: Vec<f32> =
        if beta == 0.0 { vec![f32::NAN; m * stride] } else { random(7).take(m * stride).collect() };
    let mut c = before.clone();
    gemm(MatMut::strided(&mut c, m, n, stride), a.view(), b.view(), alpha, beta);
    let what = format!(
        "[{m},{k}]x[{k},{n}] a {:?} t={} b {:?} t={} alpha {alpha} beta {beta}",
        a.dtype, a.transposed, b.dtype, b.transposed
    );
    for i in 0..m {
        for j in 0..n {
            let products = (0..k).map(|p| a.at(i, p) * b.at(p, j));
            let (dot, size) = products.fold((0.0, 0.0), |(dot, size), x| (dot + x, size + x.abs()));
            let old = if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(before[i * stride + j]) };
            let expected = f64::from(alpha) * dot + old;
            // Rounding: at most k roundings of partial sums no larger than `size`, and three of the update.
            let bound = f64::from(f32::EPSILON)
                * (f64::from(alpha.abs()) * size * (k as f64 + 2.0) + old.abs() * 2.0 + expected.abs());
            let found = f64::from(c[i * stride + j]);
            assert!((found - expected).abs() <= bound, "{what}: ({i},{j}) is {found}, expected {expected}");
        }
        let gap = i * stride + n..(i + 1) * stride;
        let same = c[gap.clone()].iter().zip(&before[gap]).all(|(x, y)| x.to_bits() == y.to_bits());
        assert!(same, "{what}: wrote past row {i}");
    }
}

#[test]
fn odd_shapes_transposes_and_types() {
    let sizes = [1, 2, 5, 7, 8, 13, 16, 17, 33, 41, 48, 70];
    let mut pick = random(3).map(|x| ((x + 1.0) * 6.0) as usize % 12);
    let mut size = || sizes[pick.next().unwrap()];
    for case in 0..400 {
        let (m, n, k) = (size(), size(), size());
        let gap = [0, 3, 9][case % 3];
        let a = Operand::new(m, k, gap, case & 1 == 1, TYPES[case / 4 % 3], case as u64 + 1);
        let b = Operand::new(k, n, gap, case & 2 == 2, TYPES[case / 12 % 3], case as u64 + 1000);
        let (alpha, beta) = [(1.0, 0.0), (1.0, 1.0), (-0.5, 2.0), (2.0, 0.0)][case / 36 % 4];
        check(&a, &b, alpha, beta, gap);
    }
}

#[test]
fn several_blocks_of_every_dimension() {
    for (m, n, k) in
        [(530, 70, 700), (17, 1100, 330), (33, 18, 5000), (600, 40, 40), (3, 700, 1500), (2, 50, 9001)]
    {
        for transposes in 0..4 {
            let a = Operand::new(m, k, 1, transposes & 1 == 1, Type::F32, 11);
            let b = Operand::new(k, n, 2, transposes & 2 == 2, Type::Bf16, 12);
            check(&a, &b, 0.5, 1.0, 5);
            check(&a, &b, 1.0, 0.0, 0);
        }
    }
}

#[test]
fn empty_dimensions() {
    for (m, n, k) in [(0, 4, 4), (4, 0, 4), (0, 0, 0), (40, 40, 0), (4, 4, 0), (40, 0, 40)] {
        let a = Operand::new(m, k, 0, false, Type::F32, 1);
        let b = Operand::new(k, n, 0, true, Type::Bf16, 2);
        check(&a, &b, 1.0, 0.0, 2);
        check(&a, &b, 1.0, 0.5, 0);
    }
}

#[test]
fn zero_alpha_reads_no_operand() {
    let nan = [f32::NAN; 4];
    let mut c = [1.0, 2.0, 3.0, 4.0];
    gemm(MatMut::new(&mut c, 2, 2), MatRef::new(&nan[..], 2, 2), MatRef::new(&nan[..], 2, 2), 0.0, 2.0);
    assert_eq!(c, [2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn bits_do_not_depend_on_threads() {
    let shapes = [(530, 250, 700), (64, 3000, 576), (3, 4000, 576), (5000, 16, 300), (16, 576, 2600)];
    for (m, n, k) in shapes {
        for transposes in 0..4 {
            let a = Operand::new(m, k, 0, transposes & 1 == 1, Type::F32, 21);
            let b = Operand::new(k, n, 0, transposes & 2 == 2, Type::Bf16, 22);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut c: Vec<f32> = random(5).take(m * n).collect();
                pool.install(|| gemm(MatMut::new(&mut c, m, n), a.view(), b.view(), 0.7, 0.3));
                c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = run(1);
            assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one), "[{m},{k}]x[{k},{n}]");
        }
    }
}

#[test]
fn the_portable_set_agrees() {
    /// Packs 70 depths of 13 lines, 16 wide.
    struct Pack<'a>(&'a Lines<'a, bf16>, &'a mut [f32]);
    impl simd::Kernel<()> for Pack<'_> {
        #[inline(always)]
        unsafe fn run<S: simd::Simd>(self) {
            assert_eq!(self.1.len(), 16 * 70);
            // SAFETY: the panel was just measured, and the lines have 70 depths.
            unsafe { pack::pack::<S::Narrow, bf16>(self.1.as_mut_ptr(), 16, self.0, 0, 0..70) }
        }
    }
    for transposed in [false, true] {
        let operand = Operand::new(13, 70, 0, transposed, Type::Bf16, 31);
        let lines = operand.view().lines_of_rows(&operand.bf16s);
        let (mut native, mut portable) = (vec![f32::NAN; 16 * 70], vec![f32::NAN; 16 * 70]);
        simd::run_narrow(Pack(&lines, &mut native));
        // SAFETY: `Portable` needs no feature.
        unsafe { simd::Kernel::run::<simd::Portable>(Pack(&lines, &mut portable)) };
        assert_eq!(native, portable);
    }
}

#[test]
#[should_panic(expected = "does not fit")]
fn short_data_is_refused() {
    MatRef::new(&[0.0f32; 5][..], 2, 3);
}

#[test]
#[should_panic(expected = "B has 4 rows")]
fn disagreeing_shapes_are_refused() {
    let data = [0.0f32; 12];
    gemm(
        MatMut::new(&mut [0.0; 9], 3, 3),
        MatRef::new(&data[..], 3, 3),
        MatRef::new(&data[..], 4, 3),
        1.0,
        0.0,
    );
}
