use deepguard::ops::Backend;
use deepguard::ops::matrix::{Matrix, MatrixMut};

use super::bench::{Bench, TestDropout};

/// Columns `column .. column + cols` of a matrix of `rows` rows that lie `stride` elements apart.
#[derive(Clone, Copy)]
struct Part {
    rows: usize,
    stride: usize,
    column: usize,
    cols: usize,
}

impl Part {
    fn len(self) -> usize {
        self.rows * self.stride
    }

    /// What an operation leaves of the values before it, `new(element of the matrix, element of the part)`
    /// in the part itself.
    fn with(self, before: &[f64], new: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let mut after = before.to_vec();
        for (row, column) in (0..self.rows).flat_map(|row| (0..self.cols).map(move |column| (row, column))) {
            let i = row * self.stride + self.column + column;
            after[i] = new(i, row * self.cols + column);
        }
        after
    }
}

/// Rows that start on multiples of 16 bytes and others, a width that ends amid a group of the dropout's mask,
/// more columns than a block has threads for, a row by itself.
const PARTS: [Part; 6] = [
    Part { rows: 5, stride: 40, column: 8, cols: 16 },
    Part { rows: 3, stride: 37, column: 5, cols: 21 },
    Part { rows: 2, stride: 24, column: 0, cols: 20 },
    Part { rows: 2, stride: 2064, column: 16, cols: 2044 },
    Part { rows: 2, stride: 531, column: 2, cols: 529 },
    Part { rows: 1, stride: 8, column: 0, cols: 8 },
];

/// With the masks of a dropout, and without one.
fn each<B: Backend>(backend: &B, case: impl Fn(Bench<'_, B>, Part, Option<&TestDropout<B>>)) {
    for part in PARTS {
        let dropout = TestDropout::new(&Bench::new(backend), part.rows);
        case(Bench::new(backend), part, None);
        case(Bench::new(backend), part, Some(&dropout));
    }
}

fn factors<B: Backend>(dropout: Option<&TestDropout<B>>, part: Part) -> Vec<f64> {
    dropout.map_or(vec![1.0; part.rows * part.cols], |dropout| dropout.factors(part.cols))
}

/// Each element within `tolerance` of its own size; what is expected to be 0 is 0.
#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&x, y)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(x) - y).abs() <= tolerance * y.abs(), "{what}[{i}]: found {x:e}, expected {y:e}");
    }
}

pub fn place<B: Backend>(backend: &B) {
    // One rounding to what the device computes with.
    let tolerance = if size_of::<B::Act>() == 2 { 1.01 / 256.0 } else { 1e-6 };
    each(backend, |mut bench, part, dropout| {
        let (from, mut kv) = (bench.act(part.len(), 1.0), bench.act(part.len(), 1.0));
        let factors = factors(dropout, part);
        let expected = part.with(&kv.host, |i, of_part| from.host[i] * factors[of_part]);
        backend.place_prefix(
            MatrixMut::new(kv.view_mut(), part.rows, part.stride).columns(part.column, part.cols),
            Matrix::new(from.view(), part.rows, part.stride).columns(part.column, part.cols),
            dropout.map(TestDropout::argument),
        );
        bench.finish();
        close("kv", &backend.download_act(kv.view()), &expected, tolerance);
    });
}

/// The gradient is added and then taken from its rows; what lies beside them stays.
pub fn backward<B: Backend>(backend: &B) {
    each(backend, |mut bench, part, dropout| {
        let (mut to, mut dkv) = (bench.f32(part.len(), 1.0), bench.act(part.len(), 1.0));
        // Of one sign: no sum cancels.
        let shifted: Vec<f64> = to.host.iter().zip(&dkv.host).map(|(to, d)| to.abs().copysign(*d)).collect();
        to = bench.f32_of(&shifted);
        let factors = factors(dropout, part);
        let sums = part.with(&to.host, |i, of_part| to.host[i] + dkv.host[i] * factors[of_part]);
        let left = part.with(&dkv.host, |_, _| 0.0);
        backend.prefix_backward(
            MatrixMut::new(to.view_mut(), part.rows, part.stride).columns(part.column, part.cols),
            MatrixMut::new(dkv.view_mut(), part.rows, part.stride).columns(part.column, part.cols),
            dropout.map(TestDropout::argument),
        );
        bench.finish();
        close("dprefix", &backend.to_host(to.view()), &sums, 1e-6);
        close("dkv", &backend.download_act(dkv.view()), &left, 0.0);
    });
}
