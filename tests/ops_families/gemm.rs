use deepguard::ops::gemm::{Matrix, MatrixMut, Transpose, Write};
use deepguard::ops::{Backend, Mut};
use safetensors::Dtype;

use super::bench::{Bench, add, product, transposed};

/// Stacked parts in every storage type, few rows and many.
pub fn linear<B: Backend>(backend: &B) {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        for rows in [1, 5, 67] {
            let mut bench = Bench::new(backend);
            let (weight, values) = bench.weight(&[19, 3, 11], 37, dtype);
            let (x, bias) = (bench.act(rows * 37, 1.0), bench.f32(33, 1.0));
            let plain = product(&x.host, &values, 37);
            let mut y = bench.act_out(rows * 33);
            let b = Some(bias.view());
            backend.linear(y.view_mut(), x.view(), &weight, b, &[], Write::Overwrite);
            bench.check("overwritten", &y, &add(&plain, &bias.host.repeat(rows)));
            let mut y = bench.act(rows * 33, 1.0);
            backend.linear(y.view_mut(), x.view(), &weight, None, &[], Write::Accumulate);
            bench.check("accumulated", &y.buffer, &add(&plain, &y.host));
        }
    }
}

pub fn linear_backward<B: Backend>(backend: &B) {
    for rows in [1, 5, 67] {
        let mut bench = Bench::new(backend);
        let (weight, values) = bench.weight(&[19, 3, 11], 37, Dtype::F32);
        let (dy, mut dx) = (bench.act(rows * 33, 1.0), bench.act_out(rows * 37));
        backend.linear_backward(dx.view_mut(), dy.view(), &weight);
        bench.check("dx", &dx, &product(&dy.host, &transposed(&values, 37), 33));
    }
}

/// Columns `from .. from + cols` of a matrix of `width`.
fn columns(x: &[f64], width: usize, from: usize, cols: usize) -> Vec<f64> {
    x.chunks(width).flat_map(|row| row[from..from + cols].to_vec()).collect()
}

/// All transpositions, on columns of wider matrices; nothing outside of the target's columns is touched.
pub fn matmul<B: Backend>(backend: &B) {
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
        for (i, sum) in sum.into_iter().enumerate() {
            let at = i / n * (n + 4) + 3 + i % n;
            expected[at] = 0.5 * sum + 2.0 * expected[at];
        }
        bench.check("c", &c.buffer, &expected);
    }
}

/// With `beta` 0 the target is not read.
pub fn matmul_overwrites<B: Backend>(backend: &B) {
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
        backend.weight_gradient(
            MatrixMut::new(dw.view_mut(), out, input + 2).columns(1, input),
            Matrix::new(dy.view(), rows, out + 3).columns(2, out),
            Matrix::new(x.view(), rows, input),
            weighted.then(|| row_weight.view()),
        );
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
    backend.bias_gradient(db.view_mut(), dy.view(), row_weight.view());
    let sums = product(&transposed(&dy.host, out), &row_weight.host, rows);
    bench.check_f32("db", &db.buffer, &add(&db.host, &sums));
}

pub fn accumulate<B: Backend>(backend: &B) {
    let (rows, cols) = (5, 9);
    let mut bench = Bench::new(backend);
    let (x, mut dw) = (bench.act(rows * cols, 1.0), bench.f32(rows * (cols + 3), 1.0));
    let to: Mut<'_, B, f32> = dw.view_mut();
    backend
        .accumulate(MatrixMut::new(to, rows, cols + 3).columns(2, cols), Matrix::new(x.view(), rows, cols));
    let mut expected = dw.host.clone();
    (0..rows * cols).for_each(|i| expected[i / cols * (cols + 3) + 2 + i % cols] += x.host[i]);
    bench.check_f32("dw", &dw.buffer, &expected);
}
