//! Skinny products: a frozen weight with the few rows of a decoding step.

use half::bf16;

use super::lora_terms::Terms;
use super::operand::alignment;
use crate::cuda::Cuda;
use crate::cuda::launch::{Shape, VECTOR};
use crate::cuda::params::GemmParams;
use crate::cuda::tile::{SKINNY_LINES, SKINNY_THREADS};
use crate::cuda::weights::Weight;
use crate::ops::linear::LoraTerm;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Mut, Ref};

/// Rows up to which the skinny kernels are used.
pub(in crate::cuda) const SKINNY_ROWS: usize = 32;

/// The kernel for up to 8, 16 or [`SKINNY_ROWS`] rows.
fn for_rows(rows: usize, kernels: [&'static str; 3]) -> &'static str {
    match rows {
        0..=8 => kernels[0],
        9..=16 => kernels[1],
        _ => kernels[2],
    }
}

impl Cuda {
    /// `y = x Wᵀ + bias + Σ xa Bᵀ + residual` for up to [`SKINNY_ROWS`] rows.
    pub(in crate::cuda) fn skinny_linear(
        &self,
        y: MatrixMut<'_, Self, bf16>,
        x: Matrix<'_, Self, bf16>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        terms: &Terms<'_>,
        residual: Option<Matrix<'_, Self, bf16>>,
    ) {
        let (m, n, k) = (x.rows, weight.rows(), x.cols);
        if !self.product_fits([m, n, k], &[weight.stride()]) {
            return;
        }
        let kernel = for_rows(m, ["linear_skinny_1", "linear_skinny_2", "linear_skinny_4"]);
        let vector = x.in_vectors();
        let launch = self
            .launch(kernel)
            .write("y", &y.data, m * n, 1)
            .read("x", x.data, m * k, alignment(vector))
            .read("weight", weight.matrix().data, weight.matrix().extent(), VECTOR);
        let launch = launch.read_optional("residual", residual.map(|matrix| matrix.data), m * n, 1);
        let product = GemmParams {
            m: m as i32,
            n: n as i32,
            k: k as i32,
            a_stride: k as i32,
            b_stride: weight.stride() as i32,
            y_stride: n as i32,
            residual_stride: n as i32,
            a_vector: vector.into(),
            b_vector: 1,
            y_vector: 0,
            alpha: 1.0,
            beta: 1.0,
            output: 0,
        };
        let launch = launch.read_optional("bias", bias, n, 4).value(product);
        let blocks = if m == 0 { 0 } else { n.div_ceil(SKINNY_LINES) };
        Terms::pass(Some(terms), launch).run(Shape::line(blocks, SKINNY_THREADS));
    }

    /// `h = silu(gate) · up` for `[gate | up] = x Wᵀ + Σ xa Bᵀ` and up to [`SKINNY_ROWS`] rows, none of which
    /// is kept.
    pub(in crate::cuda) fn skinny_gated(
        &self,
        h: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
    ) {
        let (width, out) = (weight.columns(), weight.rows());
        let rows = x.len() / width.max(1);
        if !self.product_fits([rows, out, width], &[weight.stride()]) {
            return;
        }
        let x = Matrix::new(x, rows, width);
        let Some(terms) = Terms::new(self, lora) else { return };
        let kernel = for_rows(rows, ["gated_skinny_1", "gated_skinny_2", "gated_skinny_4"]);
        let product = GemmParams {
            m: rows as i32,
            n: out as i32,
            k: width as i32,
            a_stride: width as i32,
            b_stride: weight.stride() as i32,
            y_stride: (out / 2) as i32,
            a_vector: x.in_vectors().into(),
            b_vector: 1,
            alpha: 1.0,
            ..GemmParams::default()
        };
        let launch = self
            .launch(kernel)
            .write("h", &h, rows * out / 2, 1)
            .read("x", x.data, rows * width, alignment(x.in_vectors()))
            .read("weight", weight.matrix().data, weight.matrix().extent(), VECTOR)
            .value(product);
        let blocks = if rows == 0 { 0 } else { (out / 2).div_ceil(SKINNY_LINES / 2) };
        Terms::pass(Some(&terms), launch).run(Shape::line(blocks, SKINNY_THREADS));
    }
}
