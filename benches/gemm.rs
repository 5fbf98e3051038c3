//! GEMM of the CPU backend (`cpu::blas`) beside the crates `gemm` and `matrixmultiply`.
//!
//! `cargo bench --bench gemm`; throughput is in FLOP (two per multiply-add), for `stream` in bytes of weight
//! read. The crates know f32 only: for a bf16 weight, `gemm` is given blocks of it widened to f32. Set
//! `MATMUL_NUM_THREADS` to give `matrixmultiply` more than one thread.

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use deepguard::cpu::blas::{MatMut, MatRef, gemm};
use half::bf16;
use rayon::prelude::*;
use std::time::Duration;

/// Which operands are stored transposed: `y = x Wᵀ`, `dx = dy W`, `dW = dyᵀ x`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Nt,
    Nn,
    Tn,
}
use Kind::{Nn, Nt, Tn};

/// `(kind, m, n, k)`: the layers of a 135 M model, its head, a 7 B model's attention, and LoRA of rank 16.
const SHAPES: [(Kind, usize, usize, usize); 15] = [
    (Nt, 1024, 576, 576),
    (Nt, 1024, 1536, 576),
    (Nt, 1024, 576, 1536),
    (Nt, 512, 49152, 576),
    (Nt, 2048, 3584, 3584),
    (Nn, 1024, 576, 576),
    (Nn, 1024, 1536, 576),
    (Nn, 1024, 576, 1536),
    (Nn, 512, 576, 49152),
    (Nn, 2048, 3584, 3584),
    (Tn, 576, 1536, 2600),
    (Tn, 16, 576, 2600),
    (Nt, 2600, 16, 576),
    (Nn, 2600, 576, 16),
    (Nt, 64, 1536, 576),
];

/// Lines of a bf16 weight widened at a time for a crate.
const WIDENED: usize = 1024;

struct Case {
    kind: Kind,
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    b_bf16: Vec<bf16>,
    c: Vec<f32>,
    widened: Vec<f32>,
}

impl Case {
    fn new((kind, m, n, k): (Kind, usize, usize, usize)) -> Self {
        let b = values(k * n);
        let b_bf16 = b.iter().map(|&x| bf16::from_f32(x)).collect();
        let line = if kind == Nt { k } else { n };
        Self {
            kind,
            m,
            n,
            k,
            a: values(m * k),
            b,
            b_bf16,
            c: vec![0.0; m * n],
            widened: vec![0.0; WIDENED * line],
        }
    }

    fn a(&self) -> MatRef<'_> {
        match self.kind {
            Tn => MatRef::new(&self.a[..], self.k, self.m).t(),
            _ => MatRef::new(&self.a[..], self.m, self.k),
        }
    }

    /// Row and column strides of A.
    fn a_strides(&self) -> (isize, isize) {
        if self.kind == Tn { (1, self.m as isize) } else { (self.k as isize, 1) }
    }

    /// Row and column strides of B.
    fn b_strides(&self) -> (isize, isize) {
        if self.kind == Nt { (1, self.k as isize) } else { (self.n as isize, 1) }
    }

    fn ours(&mut self) {
        let mut c = std::mem::take(&mut self.c);
        let b = match self.kind {
            Nt => MatRef::new(&self.b[..], self.n, self.k).t(),
            _ => MatRef::new(&self.b[..], self.k, self.n),
        };
        gemm(MatMut::new(&mut c, self.m, self.n), self.a(), b, 1.0, 0.0);
        self.c = c;
    }

    fn ours_bf16(&mut self) {
        let mut c = std::mem::take(&mut self.c);
        let b = match self.kind {
            Nt => MatRef::new(&self.b_bf16[..], self.n, self.k).t(),
            _ => MatRef::new(&self.b_bf16[..], self.k, self.n),
        };
        gemm(MatMut::new(&mut c, self.m, self.n), self.a(), b, 1.0, 0.0);
        self.c = c;
    }

    fn gemm_crate(&mut self) {
        let b = self.b.as_ptr();
        self.gemm_crate_part(b, 0..self.n, 0..self.k);
    }

    /// A bf16 weight in blocks of its rows: columns of the product for NT, summed dimension otherwise.
    fn gemm_crate_bf16(&mut self) {
        let (lines, line) = if self.kind == Nt { (self.n, self.k) } else { (self.k, self.n) };
        for start in (0..lines).step_by(WIDENED) {
            let end = lines.min(start + WIDENED);
            let widened = &mut self.widened[..(end - start) * line];
            let source = &self.b_bf16[start * line..end * line];
            widened.par_chunks_mut(line).zip(source.par_chunks(line)).for_each(|(to, from)| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
            });
            let b = self.widened.as_ptr();
            if self.kind == Nt {
                self.gemm_crate_part(b, start..end, 0..self.k);
            } else {
                self.gemm_crate_part(b, 0..self.n, start..end);
            }
        }
    }

    /// Columns `cols` of C from depths `depths`, added to what is there unless the depths start at 0.
    fn gemm_crate_part(
        &mut self,
        b: *const f32,
        cols: std::ops::Range<usize>,
        depths: std::ops::Range<usize>,
    ) {
        let (a_row, a_col) = self.a_strides();
        let (b_row, b_col) = self.b_strides();
        let (n, add) = (self.n as isize, depths.start > 0);
        // SAFETY: `b` holds the block of `depths × cols` with these strides; the other pointers are offset to
        // that block inside operands that `Case::new` sized.
        unsafe {
            let c = self.c.as_mut_ptr().add(cols.start);
            let a = self.a.as_ptr().offset(depths.start as isize * a_col);
            gemm::gemm(
                self.m,
                cols.len(),
                depths.len(),
                c,
                1,
                n,
                add,
                a,
                a_col,
                a_row,
                b,
                b_col,
                b_row,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    }

    fn matrixmultiply(&mut self) {
        let (a_row, a_col) = self.a_strides();
        let (b_row, b_col) = self.b_strides();
        let (a, b, c, n) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr(), self.n as isize);
        // SAFETY: the strides describe operands that `Case::new` sized.
        unsafe {
            matrixmultiply::sgemm(
                self.m, self.k, self.n, 1.0, a, a_row, a_col, b, b_row, b_col, 0.0, c, n, 1,
            );
        }
    }
}

type Contender = (&'static str, fn(&mut Case));

/// Uniform in [-1, 1), the same every time.
fn values(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn group<'a>(c: &'a mut Criterion, name: &str, throughput: Throughput) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(throughput).sample_size(10);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn products(c: &mut Criterion) {
    for shape in SHAPES {
        let (kind, m, n, k) = shape;
        let mut case = Case::new(shape);
        let name = format!("{kind:?} {m}x{n}x{k}");
        let mut group = group(c, &name, Throughput::Elements(2 * (m * n * k) as u64));
        let contenders: [Contender; 5] = [
            ("ours f32", Case::ours),
            ("ours bf16", Case::ours_bf16),
            ("gemm f32", Case::gemm_crate),
            ("gemm widened bf16", Case::gemm_crate_bf16),
            ("matrixmultiply f32", Case::matrixmultiply),
        ];
        for (name, run) in contenders {
            group.bench_function(name, |b| b.iter(|| run(&mut case)));
        }
    }
}

/// A 300 MB bf16 weight against few rows, beside a plain read of it.
fn stream(c: &mut Criterion) {
    let (n, k) = (260_000, 576);
    let weight: Vec<bf16> = values(n).into_iter().map(bf16::from_f32).cycle().take(n * k).collect();
    let mut group = group(c, "stream", Throughput::Bytes(2 * (n * k) as u64));
    let words: &[u64] = bytemuck::cast_slice(&weight);
    group.bench_function("plain read", |b| {
        b.iter(|| {
            words.par_chunks(1 << 17).map(|part| part.iter().fold(0, |x, y| x ^ y)).reduce(|| 0, |x, y| x ^ y)
        })
    });
    for m in [1, 2, 4, 8, 16, 32, 48] {
        let (x, mut y) = (values(m * k), vec![0.0; m * n]);
        let (x, w) = (MatRef::new(&x[..], m, k), MatRef::new(&weight[..], n, k).t());
        group.bench_function(format!("{m} rows"), |b| {
            b.iter(|| gemm(MatMut::new(&mut y, m, n), x, w, 1.0, 0.0))
        });
    }
}

/// One row through a layer's weight that is not in cache, as in decoding: a ring of copies, 200 MB in all.
fn decode(c: &mut Criterion) {
    for (n, k) in [(192, 576), (576, 576), (1536, 576), (576, 1536)] {
        let copies = (200 << 20) / (2 * n * k);
        let ring: Vec<bf16> =
            values(n * k).into_iter().map(bf16::from_f32).cycle().take(copies * n * k).collect();
        let (x, mut y, mut turn) = (values(k), vec![0.0; n], 0);
        let mut step = move || {
            turn = (turn + 1) % copies;
            let w = MatRef::new(&ring[turn * n * k..][..n * k], n, k).t();
            gemm(MatMut::new(&mut y, 1, n), MatRef::new(&x[..], 1, k), w, 1.0, 0.0);
        };
        let mut group = group(c, &format!("decode {n}x{k}"), Throughput::Bytes(2 * (n * k) as u64));
        group.bench_function("called from outside the pool", |b| b.iter(&mut step));
        let pool = rayon::ThreadPoolBuilder::new().build().expect("a thread pool");
        let step = std::sync::Mutex::new(step);
        group.bench_function("called inside the pool", |b| {
            b.iter_custom(|times| {
                pool.install(|| {
                    let mut step = step.lock().expect("no panic holds it");
                    let start = std::time::Instant::now();
                    (0..times).for_each(|_| step());
                    start.elapsed()
                })
            })
        });
    }
}

criterion_group!(benches, products, stream, decode);
criterion_main!(benches);
