use deepguard::ops::Backend;
use deepguard::ops::matmul::{BiasGradient, Transpose, WeightGradient};
use deepguard::ops::matrix::{Matrix, MatrixMut};

use super::bench::{Act, Bench, add, product, transposed};

/// Columns `from .. from + cols` of a matrix of `width`.
fn columns(x: &[f64], width: usize, from: usize, cols: usize) -> Vec<f64> {
    x.chunks(width).flat_map(|row| row[from..from + cols].to_vec()).collect()
}

/// All transpositions, on columns of wider matrices; nothing outside of the target's columns is touched.
pub fn transpositions<B: Backend>(backend: &B) {
    let (m, n, k) = (13, 7, 21);
    for transpose in [Transpose::None, Transpose::Second, Transpose::First] {
        let mut bench = Bench::new(backend);
        let (a_rows, a_cols) = if transpose == Transpose::First { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if transpose == Transpose::Second { (n, k) } else { (k, n) };
        let (a, b) = (bench.act(a_rows * (a_cols + 5), 1.0), bench.act(b_rows * (b_cols + 2), 1.0));
        let mut c = bench.act(m * (n + 4), 1.0);
        backend.matmul(
            MatrixMut::new(c.view_mut(), m, n + 4).columns(3, n),
            Matrix::new(a.view(), a_rows, a_cols + 5).columns(2, a_cols),
            Matrix::new(b.view(), b_rows, b_cols + 2).columns(1, b_cols),
            transpose,
            0.5,
            2.0,
        );
        let (a, b) = (columns(&a.host, a_cols + 5, 2, a_cols), columns(&b.host, b_cols + 2, 1, b_cols));
        let a = if transpose == Transpose::First { transposed(&a, m) } else { a };
        let b = if transpose == Transpose::Second { b } else { transposed(&b, n) };
        let (sum, mut expected) = (product(&a, &b, k), c.host.clone());
        for (i, sum) in sum.iter().enumerate() {
            let at = i / n * (n + 4) + 3 + i % n;
            expected[at] = 0.5 * sum + 2.0 * expected[at];
        }
        bench.check("c", &c.buffer, &expected);
    }
}

/// With `beta` 0 the target is not read.
pub fn overwrites<B: Backend>(backend: &B) {
    for (m, n, k) in [(1, 1, 1), (3, 40, 17), (70, 65, 130)] {
        let mut bench = Bench::new(backend);
        let (a, b, mut c) = (bench.act(m * k, 1.0), bench.act(n * k, 1.0), bench.act_out(m * n));
        let target = MatrixMut::new(c.view_mut(), m, n);
        let (a_matrix, b_matrix) = (Matrix::new(a.view(), m, k), Matrix::new(b.view(), n, k));
        backend.matmul(target, a_matrix, b_matrix, Transpose::Second, 1.0, 0.0);
        bench.check("c", &c, &product(&a.host, &b.host, k));
    }
}

pub fn weight_gradient<B: Backend>(backend: &B) {
    let (rows, out, input) = (11, 7, 13);
    for weighted in [false, true] {
        let mut bench = Bench::new(backend);
        let (dy, x) = (bench.act(rows * (out + 3), 1.0), bench.act(rows * input, 1.0));
        let (row_weight, mut dw) = (bench.f32(rows, 1.0), bench.f32(out * (input + 2), 1.0));
        backend.weight_gradients(vec![WeightGradient {
            dw_acc: MatrixMut::new(dw.view_mut(), out, input + 2).columns(1, input),
            dy: Matrix::new(dy.view(), rows, out + 3).columns(2, out),
            x: Matrix::new(x.view(), rows, input),
            row_weight: weighted.then(|| row_weight.view()),
        }]);
        let mut dy = columns(&dy.host, out + 3, 2, out);
        if weighted {
            dy.iter_mut().enumerate().for_each(|(i, d)| *d *= row_weight.host[i / out]);
        }
        let sum = product(&transposed(&dy, out), &transposed(&x.host, input), rows);
        let mut expected = dw.host.clone();
        (0..out * input).for_each(|i| expected[i / input * (input + 2) + 1 + i % input] += sum[i]);
        bench.check_f32("dw", &dw.buffer, &expected);
    }
}

pub fn bias_gradient<B: Backend>(backend: &B) {
    let (rows, out) = (11, 7);
    let mut bench = Bench::new(backend);
    let (dy, row_weight, mut db) = (bench.act(rows * out, 1.0), bench.f32(rows, 1.0), bench.f32(out, 1.0));
    let (db_acc, dy_rows) = (db.view_mut(), matrix(&dy, rows, out));
    backend.bias_gradients(vec![BiasGradient { db_acc, dy: dy_rows, row_weight: row_weight.view() }]);
    let sums = product(&transposed(&dy.host, out), &row_weight.host, rows);
    bench.check_f32("db", &db.buffer, &add(&db.host, &sums));
}

/// `a bᵀ + x yᵀ`, added to some columns.
pub fn affine_gradient<B: Backend>(backend: &B) {
    for (m, n, k, beside) in [(5, 9, 21, 3), (130, 136, 264, 8), (64, 40, 1100, 0)] {
        let mut bench = Bench::new(backend);
        let (a, b) = (bench.act_of(&integers(m * k, 5)), bench.act_of(&integers(n * k, 11)));
        let (x, y) = (bench.act_of(&integers(m, 5)), bench.act_of(&integers(n, 11)));
        let mut dw = bench.f32(m * (n + beside), 1.0);
        let dw_acc = MatrixMut::new(dw.view_mut(), m, n + beside).columns(beside, n);
        backend.affine_gradient(dw_acc, matrix(&a, m, k), matrix(&b, n, k), [x.view(), y.view()]);
        let mut expected = dw.host.clone();
        for (i, sum) in product(&a.host, &b.host, k).into_iter().enumerate() {
            expected[i / n * (n + beside) + beside + i % n] += sum + x.host[i / n] * y.host[i % n];
        }
        bench.check_f32(&format!("dw {m} {n} {k}"), &dw.buffer, &expected);
    }
}

/// Less than a tile, a tile, several, each with and without a rest; rows that start on 16 bytes and that do
/// not; more tiles along k than are prefetched; split-K, with small tiles and with large ones; more tiles
/// than a band of the threadblock swizzle.
const SHAPES: [(usize, usize, usize); 11] = [
    (1, 1, 8),
    (5, 24, 16),
    (128, 128, 64),
    (129, 67, 40),
    (3, 257, 136),
    (77, 136, 72),
    (200, 264, 520),
    (72, 131, 328),
    (33, 16, 2100),
    (130, 136, 8480),
    (1100, 70, 16),
];

/// Whatever the rounding, an element in a wrong place shows: sums of small integers are exact.
fn integers(len: usize, step: usize) -> Vec<f64> {
    (0..len).map(|i| if i % 3 == 0 { (i * step / 7 % 3) as f64 - 1.0 } else { 0.0 }).collect()
}

fn matrix<B: Backend>(x: &Act<B>, rows: usize, cols: usize) -> Matrix<'_, B, B::Act> {
    Matrix::new(x.view(), rows, cols)
}

/// Every transposition at many sizes, with a target that is overwritten and one that is added to.
pub fn shapes<B: Backend>(backend: &B) {
    for (m, n, k) in SHAPES {
        let mut bench = Bench::new(backend);
        let (a, b) = (bench.act_of(&integers(m * k, 5)), bench.act_of(&integers(n * k, 11)));
        let sums = product(&a.host, &b.host, k);
        let (at, bt) = (bench.act_of(&transposed(&a.host, k)), bench.act_of(&transposed(&b.host, k)));
        let before = bench.act(m * n, 1.0);
        for transpose in [Transpose::None, Transpose::Second, Transpose::First] {
            let a = if transpose == Transpose::First { matrix(&at, k, m) } else { matrix(&a, m, k) };
            let b = if transpose == Transpose::Second { matrix(&b, n, k) } else { matrix(&bt, k, n) };
            let mut c = bench.act_out(m * n);
            backend.matmul(MatrixMut::new(c.view_mut(), m, n), a, b, transpose, 1.0, 0.0);
            bench.check(&format!("{transpose:?} {m} {n} {k}"), &c, &sums);
            let mut c = bench.act_of(&before.host);
            backend.matmul(MatrixMut::new(c.view_mut(), m, n), a, b, transpose, 0.25, 2.0);
            let expected: Vec<f64> =
                sums.iter().zip(&before.host).map(|(sum, c)| 0.25 * sum + 2.0 * c).collect();
            bench.check(&format!("{transpose:?} {m} {n} {k} added"), &c.buffer, &expected);
        }
    }
}

/// Gradients of several layers at a time: many rows and few, a part of a wider matrix, with weights and
/// without, widths of whole vectors everywhere and not.
pub fn several_gradients<B: Backend>(backend: &B) {
    type Layer = (usize, usize, usize, usize, bool);
    let even: &[Layer] = &[(700, 24, 40, 8, true), (33, 136, 72, 0, false), (1030, 8, 264, 0, true)];
    let odd: &[Layer] = &[(1030, 67, 40, 8, true), (5, 136, 9, 0, false), (64, 8, 16, 3, true)];
    for layers in [even, odd, &even[..1]] {
        let mut bench = Bench::new(backend);
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        for &(rows, out, input, beside, _) in layers {
            let (dy, x) = (bench.act_of(&integers(rows * out, 5)), bench.act_of(&integers(rows * input, 11)));
            let weights: Vec<f64> = (0..rows).map(|i| [1.0, 0.5, 0.0, 2.0][i % 4]).collect();
            inputs.push((dy, x, bench.f32_of(&weights)));
            outputs.push((bench.f32(out * (input + beside), 1.0), bench.f32(out, 1.0)));
        }
        let (mut of_weights, mut of_biases) = (Vec::new(), Vec::new());
        for ((layer, (dy, x, weights)), (dw, db)) in layers.iter().zip(&inputs).zip(&mut outputs) {
            let &(rows, out, input, beside, weighted) = layer;
            let dw_acc = MatrixMut::new(dw.view_mut(), out, input + beside).columns(beside, input);
            let (dy, x) = (matrix(dy, rows, out), matrix(x, rows, input));
            let row_weight = weighted.then(|| weights.view());
            of_weights.push(WeightGradient { dw_acc, dy, x, row_weight });
            of_biases.push(BiasGradient { db_acc: db.view_mut(), dy, row_weight: weights.view() });
        }
        backend.weight_gradients(of_weights);
        backend.bias_gradients(of_biases);
        for ((layer, (dy, x, weights)), (dw, db)) in layers.iter().zip(&inputs).zip(&outputs) {
            let &(rows, out, input, beside, weighted) = layer;
            let row_weight = |i: usize| if weighted { weights.host[i / out] } else { 1.0 };
            let of_rows: Vec<f64> = dy.host.iter().enumerate().map(|(i, d)| d * row_weight(i)).collect();
            let sums = product(&transposed(&of_rows, out), &transposed(&x.host, input), rows);
            let mut expected = dw.host.clone();
            (0..out * input)
                .for_each(|i| expected[i / input * (input + beside) + beside + i % input] += sums[i]);
            bench.check_f32(&format!("dw {layer:?}"), &dw.buffer, &expected);
            let sums = product(&transposed(&dy.host, out), &weights.host, rows);
            bench.check_f32(&format!("db {layer:?}"), &db.buffer, &add(&db.host, &sums));
        }
    }
}

/// `a bᵀ` with a bias or not, with an outer product or not.
pub fn affine<B: Backend>(backend: &B) {
    for (m, n, k) in [(1, 40, 24), (70, 33, 17), (130, 264, 136)] {
        for (biased, outer) in [(true, false), (false, true), (true, true)] {
            let mut bench = Bench::new(backend);
            let (a, b, bias) = (bench.act(m * k, 0.5), bench.act(n * k, 0.5), bench.f32(n, 1.0));
            let (x, y, mut c) = (bench.act(m, 1.0), bench.act(n, 1.0), bench.act_out(m * n));
            let bias_of = biased.then(|| bias.view());
            let outer_of = outer.then(|| [x.view(), y.view()]);
            let to = MatrixMut::new(c.view_mut(), m, n);
            backend.affine(to, matrix(&a, m, k), matrix(&b, n, k), bias_of, outer_of);
            let mut expected = product(&a.host, &b.host, k);
            for (i, sum) in expected.iter_mut().enumerate() {
                *sum += if biased { bias.host[i % n] } else { 0.0 };
                *sum += if outer { x.host[i / n] * y.host[i % n] } else { 0.0 };
            }
            bench.check(&format!("{m} {n} {k} {biased} {outer}"), &c, &expected);
        }
    }
}

/// What lies beside and behind the rows of `c` is left alone.
pub fn affine_leaves_the_rest_alone<B: Backend>(backend: &B) {
    let (m, n, k, stride) = (5, 9, 16, 12);
    let bench = Bench::new(backend);
    let (a, b) = (bench.act_of(&integers(m * k, 5)), bench.act_of(&integers(n * k, 11)));
    let mut c = bench.act_of(&integers((m + 1) * stride - 5, 3));
    let to = MatrixMut { data: c.view_mut(), rows: m, cols: n, stride };
    backend.affine(to, matrix(&a, m, k), matrix(&b, n, k), None, None);
    let mut expected = c.host.clone();
    for (i, sum) in product(&a.host, &b.host, k).into_iter().enumerate() {
        expected[i / n * stride + i % n] = sum;
    }
    bench.check("c", &c.buffer, &expected);
}

pub fn weighted_product<B: Backend>(backend: &B) {
    for (rows, m, n) in [(7, 5, 9), (600, 72, 40)] {
        let mut bench = Bench::new(backend);
        let (a, b, weights) = (bench.act(rows * m, 1.0), bench.act(rows * n, 1.0), bench.f32(rows, 1.0));
        let mut c = bench.act_out(m * n);
        let to = MatrixMut::new(c.view_mut(), m, n);
        backend.weighted_product(to, matrix(&a, rows, m), matrix(&b, rows, n), weights.view());
        let weighted: Vec<f64> = a.host.iter().enumerate().map(|(i, a)| a * weights.host[i / m]).collect();
        let expected = product(&transposed(&weighted, m), &transposed(&b.host, n), rows);
        bench.check(&format!("{rows} {m} {n}"), &c, &expected);
    }
}

/// Gradients of weights over many rows, some of weight zero; sums of their columns.
pub fn gradient_shapes<B: Backend>(backend: &B) {
    for (rows, out, input) in [(1, 8, 16), (700, 24, 40), (1030, 136, 9), (8480, 136, 130)] {
        let mut bench = Bench::new(backend);
        let (dy, x) = (bench.act_of(&integers(rows * out, 5)), bench.act_of(&integers(rows * input, 11)));
        let row_weights: Vec<f64> = (0..rows).map(|i| [1.0, 0.5, 0.0, 2.0][i % 4]).collect();
        let (row_weight, mut dw) = (bench.f32_of(&row_weights), bench.f32(out * input, 1.0));
        let weighted: Vec<f64> = dy.host.iter().enumerate().map(|(i, d)| d * row_weights[i / out]).collect();
        let sums = product(&transposed(&weighted, out), &transposed(&x.host, input), rows);
        let (dy_rows, x_rows) = (matrix(&dy, rows, out), matrix(&x, rows, input));
        let (dw_acc, row_weight) = (MatrixMut::new(dw.view_mut(), out, input), row_weight.view());
        let one = WeightGradient { dw_acc, dy: dy_rows, x: x_rows, row_weight: Some(row_weight) };
        backend.weight_gradients(vec![one]);
        bench.check_f32(&format!("dw {rows} {out} {input}"), &dw.buffer, &add(&dw.host, &sums));

        let mut db = bench.f32(out, 1.0);
        backend.bias_gradients(vec![BiasGradient { db_acc: db.view_mut(), dy: dy_rows, row_weight }]);
        let sums = product(&transposed(&weighted, out), &vec![1.0; rows], rows);
        bench.check_f32(&format!("db {rows} {out}"), &db.buffer, &add(&db.host, &sums));
    }
}
