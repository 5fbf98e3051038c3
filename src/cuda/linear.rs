//! Frozen linear layers with LoRA.

use bytemuck::Zeroable;
use half::bf16;

use super::Cuda;
use super::launch::{Launch, Shape, VECTOR};
use super::product::{Gated, KernelProduct, Layout, Residual, Target, TileProduct, alignment};
use super::tile::{GEMM_TERMS, SKINNY_LINES, SKINNY_THREADS};
use super::weights::Weight;
use crate::error::Error;
use crate::ops::gemm::{LoraTerm, Matrix, MatrixMut, Write};
use crate::ops::{Mut, Ref};

/// Rows up to which the kernels for few rows are used.
pub(super) const FEW_ROWS: usize = 32;

/// The kernel for up to 8, 16 or [`FEW_ROWS`] rows.
fn for_rows(rows: usize, kernels: [&'static str; 3]) -> &'static str {
    match rows {
        0..=8 => kernels[0],
        9..=16 => kernels[1],
        _ => kernels[2],
    }
}

/// `LoraTerm` of `kernels/lora_terms.h`.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelTerm {
    xa: u64,
    b: u64,
    rows: i32,
    column: i32,
    columns: i32,
    rank: i32,
    vector: i32,
    padding: i32,
}

/// `LoraTerms` of `kernels/lora_terms.h`.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct KernelTerms {
    term: [KernelTerm; GEMM_TERMS],
    count: i32,
    padding: i32,
}

/// xa, lora_B and the first column of a term.
pub(super) type TermParts<'a> = (Matrix<'a, Cuda, bf16>, Matrix<'a, Cuda, bf16>, usize);

/// The LoRA of a linear layer as a kernel takes it.
pub(super) struct Terms<'a> {
    terms: &'a [LoraTerm<'a, Cuda>],
}

impl<'a> Terms<'a> {
    /// `None`, with the failure kept, for more terms than a kernel takes.
    pub fn new(cuda: &Cuda, terms: &'a [LoraTerm<'a, Cuda>]) -> Option<Self> {
        cuda.takes_adapters(terms.len()).then_some(Terms { terms })
    }

    /// xa, lora_B and the first column of each.
    pub fn each(&self) -> impl Iterator<Item = TermParts<'a>> {
        self.terms.iter().map(|term| {
            let rows = term.xa.len() / term.rank.max(1);
            let xa = Matrix::new(term.xa, rows, term.rank);
            (xa, Matrix::new(term.b, term.out_features, term.rank), term.column)
        })
    }

    /// Adds them to a launch.
    pub fn pass<'l>(terms: Option<&Terms<'_>>, mut launch: Launch<'l>) -> Launch<'l> {
        let mut by_value = KernelTerms::default();
        for (to, (xa, b, column)) in by_value.term.iter_mut().zip(terms.iter().flat_map(|terms| terms.each()))
        {
            let vector = xa.in_vectors() && b.in_vectors();
            launch = launch.reads(&mut to.xa, "xa", xa.data, xa.extent(), alignment(vector));
            launch = launch.reads(&mut to.b, "lora_B", b.data, b.extent(), alignment(vector));
            *to = KernelTerm {
                rows: xa.rows as i32,
                column: column as i32,
                columns: b.rows as i32,
                rank: b.cols as i32,
                vector: vector.into(),
                ..*to
            };
            by_value.count += 1;
        }
        launch.value(by_value)
    }
}

impl Cuda {
    /// Whether kernels take so many adapters of a layer; the failure is kept where they do not.
    pub(super) fn takes_adapters(&self, count: usize) -> bool {
        if count > GEMM_TERMS {
            let expected = format!("expected up to {GEMM_TERMS}");
            self.fail(Error::internal(format!("a linear layer with {count} adapters, {expected}")));
        }
        count <= GEMM_TERMS
    }

    /// `y = x Wᵀ + bias + Σ xa Bᵀ + residual`.
    pub(super) fn linear_layer<'a>(
        &self,
        y: Mut<'a, Self, bf16>,
        x: Ref<'a, Self, bf16>,
        weight: &'a Weight,
        bias: Option<Ref<'a, Self, f32>>,
        lora: &'a [LoraTerm<'a, Self>],
        write: Write<'a, Self>,
    ) {
        let (width, out) = (weight.columns(), weight.rows());
        let rows = x.len() / width.max(1);
        let (x, y) = (Matrix::new(x, rows, width), MatrixMut::new(y, rows, out));
        let residual = match write {
            Write::Overwrite => None,
            Write::Residual(residual) => Some(Matrix::new(residual, rows, out)),
        };
        let Some(terms) = Terms::new(self, lora) else { return };
        if rows <= FEW_ROWS {
            return self.few_rows(y, x, weight, bias, &terms, residual);
        }
        let product = TileProduct::new(Layout::NT, x, weight.matrix(), Target::Rounded(y));
        let residual = residual.map_or(Residual::Nothing, Residual::Other);
        TileProduct { bias, terms: Some(&terms), residual, ..product }.run(self);
    }

    /// The same for up to [`FEW_ROWS`] rows.
    fn few_rows(
        &self,
        y: MatrixMut<'_, Self, bf16>,
        x: Matrix<'_, Self, bf16>,
        weight: &Weight,
        bias: Option<Ref<'_, Self, f32>>,
        terms: &Terms<'_>,
        residual: Option<Matrix<'_, Self, bf16>>,
    ) {
        let (m, n, k) = (x.rows, weight.rows(), x.cols);
        let kernel = for_rows(m, ["linear_skinny_1", "linear_skinny_2", "linear_skinny_4"]);
        let vector = x.in_vectors();
        let launch = self
            .launch(kernel)
            .write("y", &y.data, m * n, 1)
            .read("x", x.data, m * k, alignment(vector))
            .read("weight", weight.matrix().data, weight.matrix().extent(), VECTOR);
        let launch = launch.read_optional("residual", residual.map(|matrix| matrix.data), m * n, 1);
        let product = KernelProduct {
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

    /// `h = silu(gate) · up` for `[gate | up] = x Wᵀ + Σ xa Bᵀ`, of which some rows are kept. `x` has rows that start on
    /// multiples of 16 bytes, and more than [`FEW_ROWS`] of them.
    pub(super) fn gated_layer(
        &self,
        to: Gated<'_>,
        x: Matrix<'_, Self, bf16>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
    ) {
        assert!(x.in_vectors(), "gated_layer: rows of x");
        let Some(terms) = Terms::new(self, lora) else { return };
        let product = TileProduct::new(Layout::NT, x, weight.matrix(), Target::Gated(to));
        TileProduct { terms: Some(&terms), ..product }.run(self);
    }

    /// The same for up to [`FEW_ROWS`] rows, none of which is kept.
    pub(super) fn gated_few_rows(
        &self,
        h: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        weight: &Weight,
        lora: &[LoraTerm<'_, Self>],
    ) {
        let (width, out) = (weight.columns(), weight.rows());
        let rows = x.len() / width.max(1);
        let x = Matrix::new(x, rows, width);
        let Some(terms) = Terms::new(self, lora) else { return };
        let kernel = for_rows(rows, ["gated_skinny_1", "gated_skinny_2", "gated_skinny_4"]);
        let product = KernelProduct {
            m: rows as i32,
            n: out as i32,
            k: width as i32,
            a_stride: width as i32,
            b_stride: weight.stride() as i32,
            y_stride: (out / 2) as i32,
            a_vector: x.in_vectors().into(),
            b_vector: 1,
            alpha: 1.0,
            ..KernelProduct::zeroed()
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
