//! Sums of gradients over rows.

use deepguard::cuda::Cuda;
use deepguard::ops::matmul::{BiasGradient, Matmul};
use deepguard::ops::matrix::Matrix;

use super::counting::{count, uncounted};
use super::memory::{buffer, check, random};

#[test]
fn sums_of_columns() {
    if uncounted() {
        return;
    }
    for (rows, n) in [(4096, 1792), (2000, 896)] {
        let [sums] = count(["column_sums"], |cuda: &Cuda| {
            let (dy, weights, mut db) = (random(cuda, rows * n, 1.0), buffer(cuda, rows), buffer(cuda, n));
            let dy = Matrix::new(dy.view(), rows, n);
            let (db_acc, row_weight) = (db.view_mut(), weights.view());
            cuda.bias_gradients(vec![BiasGradient { db_acc, dy, row_weight }]);
        });
        // dy and the weights, and db, which is read and written.
        check("sums of columns", &sums, 2 * rows * n + 4 * rows + 2 * 4 * n);
    }
}
