//! Sums of gradients over rows.

use deepguard::cuda::Cuda;
use deepguard::ops::gemm::Gemm;

use super::counting::count;
use super::memory::{buffer, check, random};

#[test]
fn sums_of_columns() {
    for (rows, n) in [(4096, 1792), (2000, 896)] {
        let [sums, reduce] = count(["column_sums", "gemm_reduce"], |cuda: &Cuda| {
            let (dy, weights, mut db) = (random(cuda, rows * n, 1.0), buffer(cuda, rows), buffer(cuda, n));
            cuda.bias_gradient(db.view_mut(), dy.view(), weights.view());
        });
        let mut both = sums.clone();
        both.global_load_sectors += reduce.global_load_sectors;
        both.global_store_sectors += reduce.global_store_sectors;
        // dy and the weights, and db, which is read and written.
        check("sums of columns", &both, 2 * rows * n + 4 * rows + 2 * 4 * n);
    }
}
