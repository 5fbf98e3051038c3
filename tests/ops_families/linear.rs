pub mod lora;

use deepguard::ops::Backend;
use deepguard::ops::linear::{LoraTerm, Write};
use safetensors::Dtype;

use super::bench::{Bench, add, product, transposed};
pub use lora::{
    lora_backward, lora_backward_shapes, lora_down, lora_down_of_many_rows, lora_dropout, with_terms,
};

/// Stacked parts in every storage type, few rows and many.
pub fn forward<B: Backend>(backend: &B) {
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
            let (residual, mut y) = (bench.act(rows * 33, 1.0), bench.act_out(rows * 33));
            let write = Write::Residual(residual.view());
            backend.linear(y.view_mut(), x.view(), &weight, None, &[], write);
            bench.check("with a residual", &y, &add(&plain, &residual.host));
        }
    }
}

pub fn backward<B: Backend>(backend: &B) {
    // Rows that start anywhere; then at multiples of 16 bytes, with tiles that are not full along any
    // dimension.
    for (rows, parts, width) in [
        (1, [19, 3, 11], 37),
        (5, [19, 3, 11], 37),
        (67, [19, 3, 11], 37),
        (150, [40, 24, 72], 200),
        (300, [8, 40, 24], 136),
        // More tiles than a device computes at the same time.
        (2200, [8, 40, 24], 2056),
    ] {
        let mut bench = Bench::new(backend);
        let out = parts.iter().sum::<usize>();
        let (weight, values) = bench.weight(&parts, width, Dtype::F32);
        let (dy, mut dx) = (bench.act(rows * out, 1.0), bench.act_out(rows * width));
        backend.linear_backward(dx.view_mut(), dy.view(), &weight);
        bench.check("dx", &dx, &product(&dy.host, &transposed(&values, width), out));
    }
}

/// Widths that are whole vectors and that are not, few rows and many, with everything that a layer can add.
pub fn shapes<B: Backend>(backend: &B) {
    const NARROW: [usize; 3] = [40, 24, 72];
    for (rows, width, rank, parts) in [
        (1usize, 1096, 8, NARROW),
        (7, 328, 16, NARROW),
        (16, 2080, 3, NARROW),
        (31, 72, 40, NARROW),
        (33, 64, 8, NARROW),
        (150, 520, 40, NARROW),
        (150, 200, 8, NARROW),
        (300, 64, 72, NARROW),
        (2200, 64, 8, NARROW),
        // More tiles than a device computes at the same time.
        (2200, 72, 16, [1024, 520, 512]),
    ] {
        let adapted = rows.div_ceil(2);
        let out: usize = parts.iter().sum();
        let mut bench = Bench::new(backend);
        let (weight, values) = bench.weight(&parts, width, Dtype::BF16);
        let (x, bias, residual) =
            (bench.act(rows * width, 0.3), bench.f32(out, 1.0), bench.act(rows * out, 1.0));
        let [q, k, v] = parts;
        let terms = [(0, q), (q, k), (q + k, v)]
            .map(|(column, n)| (column, n, bench.act(adapted * rank, 1.0), bench.act(n * rank, 1.0)));
        let mut expected =
            add(&product(&x.host, &values, width), &add(&bias.host.repeat(rows), &residual.host));
        for (column, n, xa, b) in &terms {
            for (i, v) in product(&xa.host, &b.host, rank).into_iter().enumerate() {
                expected[i / n * out + column + i % n] += v;
            }
        }
        let terms = terms.each_ref().map(|(column, n, xa, b)| LoraTerm {
            xa: xa.view(),
            b: b.view(),
            column: *column,
            out_features: *n,
            rank,
        });
        let (bias, mut y) = (Some(bias.view()), bench.act_out(rows * out));
        backend.linear(y.view_mut(), x.view(), &weight, bias, &terms, Write::Residual(residual.view()));
        bench.check(&format!("y {rows} {width} {rank}"), &y, &expected);
    }
}
