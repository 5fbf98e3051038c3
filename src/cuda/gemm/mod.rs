//! The GEMM engine: products of bf16 matrices with sums in f32, on which linear layers, `matmul` and
//! gradients are built.
//!
//! [`Gemm`] describes one product and its epilogue; [`Gemm::run`] picks the kernel: tiles of
//! `kernels/gemm_tile.h`, or on sm_90 those of `kernels/gemm_sm90.cu`. [`grouped`] computes several products
//! in one launch, [`skinny`] those of few rows.

pub(super) mod grouped;
mod lora_terms;
mod operand;
mod plan;
mod skinny;
mod sm90;

use half::bf16;

use super::Cuda;
use super::launch::Launch;
use super::params::{self, GemmParams};
use super::split::SplitWorkspace;
use crate::error::Error;
use crate::ops::Ref;
use crate::ops::matrix::{Matrix, MatrixMut};
pub(super) use lora_terms::Terms;
pub(super) use operand::alignment;
use plan::{Plan, shape};
pub(super) use skinny::SKINNY_ROWS;

/// Which operands are transposed, in BLAS's letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `y = a bᵀ`
    NT,
    /// `y = a b`
    NN,
    /// `y = aᵀ b`
    TN,
}

/// Where the epilogue stores sums.
pub(super) enum Target<'a> {
    /// Activations, rounded.
    Rounded(MatrixMut<'a, Cuda, bf16>),
    /// f32, which sums are added to.
    Added(MatrixMut<'a, Cuda, f32>),
    /// The first half of a feed-forward, with the weights of `[gate | up]`; `NT` only.
    Gated(Gated<'a>),
}

/// Targets of the SwiGLU epilogue of `[gate | up]`.
pub(super) struct Gated<'a> {
    /// `silu(gate) · up`.
    pub h: MatrixMut<'a, Cuda, bf16>,
    /// The first rows of `[gate | up]`: those that a backward needs.
    pub gate_up: MatrixMut<'a, Cuda, bf16>,
}

/// Addend of a rounded target.
#[derive(Clone, Copy)]
pub(super) enum Residual<'a> {
    /// Nothing: the target is not read.
    Nothing,
    /// The target's old values, times a factor.
    Target(f32),
    /// Another matrix.
    Other(Matrix<'a, Cuda, bf16>),
}

/// A product and its epilogue.
pub(super) struct Gemm<'a> {
    pub layout: Layout,
    pub a: Matrix<'a, Cuda, bf16>,
    pub b: Matrix<'a, Cuda, bf16>,
    pub target: Target<'a>,
    /// Factor of the sums.
    pub alpha: f32,
    pub residual: Residual<'a>,
    /// Added to every row; `NT` only.
    pub bias: Option<Ref<'a, Cuda, f32>>,
    /// LoRA; `NT` only.
    pub terms: Option<&'a Terms<'a>>,
    /// Factors of the rows of a; `TN` only.
    pub row_weight: Option<Ref<'a, Cuda, f32>>,
}

/// `Output` of `kernels/gemm_epilogue.h`.
const OVERWRITE: i32 = 0;
const ACCUMULATE: i32 = 1;

impl Cuda {
    /// Whether sizes and strides of a product fit a kernel's integers; the failure is kept where they do not.
    fn product_fits(&self, [m, n, k]: [usize; 3], strides: &[usize]) -> bool {
        let largest = i32::MAX as usize - 1024;
        let mut all = [m, n, k].into_iter().chain(strides.iter().copied());
        let Some(size) = all.find(|size| *size > largest) else { return true };
        self.fail(Error::usage(format!("product of [{m}, {k}] and [{k}, {n}]: {size} is too large")));
        false
    }
}

impl<'a> Gemm<'a> {
    /// `target = a b`, or what the layout says.
    pub fn new(
        layout: Layout,
        a: Matrix<'a, Cuda, bf16>,
        b: Matrix<'a, Cuda, bf16>,
        target: Target<'a>,
    ) -> Self {
        Gemm {
            layout,
            a,
            b,
            target,
            alpha: 1.0,
            residual: Residual::Nothing,
            bias: None,
            terms: None,
            row_weight: None,
        }
    }

    /// m, n and k: rows and columns of the target, and the length of its sums.
    pub fn size(&self) -> (usize, usize, usize) {
        let (a, b) = (&self.a, &self.b);
        let (m, k) = if self.layout == Layout::TN { (a.cols, a.rows) } else { (a.rows, a.cols) };
        let (n, k2) = if self.layout == Layout::NT { (b.rows, b.cols) } else { (b.cols, b.rows) };
        assert_eq!(k, k2, "product with {m} rows and {n} columns: inner dimensions");
        let (rows, cols) = match &self.target {
            Target::Rounded(y) => (y.rows, y.cols),
            Target::Added(y) => (y.rows, y.cols),
            Target::Gated(to) => (to.h.rows, 2 * to.h.cols),
        };
        assert_eq!((rows, cols), (m, n), "product with a sum of {k} terms: target");
        (m, n, k)
    }

    /// Tile size and split-K.
    fn plan(&self, cuda: &Cuda) -> Plan {
        let (m, n, k) = self.size();
        Plan::new([m, n, k], cuda.info().multiprocessors as usize, self.in_vectors())
    }

    /// Whether sizes fit a kernel's integers; the failure is kept where they do not.
    pub fn fits(&self, cuda: &Cuda) -> bool {
        let strides = [self.a.stride, self.b.stride, self.y_stride(), self.residual_stride()];
        cuda.product_fits(self.size().into(), &strides)
    }

    /// Computes the product with the kernel that suits it and the device.
    pub fn run(self, cuda: &Cuda) {
        if !self.fits(cuda) {
            return;
        }
        match self.suits_sm90(cuda) {
            true => self.run_sm90(cuda),
            false => self.run_tiles(cuda),
        }
    }

    fn run_tiles(self, cuda: &Cuda) {
        let (m, n, _) = self.size();
        if m * n == 0 {
            return;
        }
        let Plan { large, split } = self.plan(cuda);
        let (mut scratch, mut counters) = (cuda.scratch(), cuda.counters());
        let workspace = SplitWorkspace::take(cuda, &[split], &[], &mut scratch, &mut counters);
        let Some((workspaces, _)) = workspace else { return };
        let launch = cuda.launch(self.kernel(large));
        self.pass(launch, &workspaces[0]).run(shape(split, large));
    }

    /// Whether rows of both operands start on multiples of 16 bytes.
    pub fn in_vectors(&self) -> bool {
        self.a.in_vectors() && self.b.in_vectors()
    }

    fn kernel(&self, large: bool) -> &'static str {
        if let Target::Gated(_) = self.target {
            return if large { "gemm_nt_gated_large" } else { "gemm_nt_gated_small" };
        }
        match (self.layout, self.in_vectors(), large) {
            (Layout::NT, true, true) => "gemm_nt_large",
            (Layout::NT, true, false) => "gemm_nt_small",
            (Layout::NT, false, _) => "gemm_nt_any",
            (Layout::NN, true, true) => "gemm_nn_large",
            (Layout::NN, true, false) => "gemm_nn_small",
            (Layout::NN, false, _) => "gemm_nn_any",
            (Layout::TN, true, true) => "gemm_tn_large",
            (Layout::TN, true, false) => "gemm_tn_small",
            (Layout::TN, false, _) => "gemm_tn_any",
        }
    }

    fn y_stride(&self) -> usize {
        match &self.target {
            Target::Rounded(y) => y.stride,
            Target::Added(y) => y.stride,
            Target::Gated(to) => to.h.stride,
        }
    }

    /// Whether rows of the target, and of what is read for it, start on multiples of 16 bytes.
    pub fn y_in_vectors(&self) -> bool {
        let residual = match &self.residual {
            Residual::Other(matrix) => matrix.in_vectors(),
            _ => true,
        };
        residual
            && match &self.target {
                Target::Rounded(y) => y.in_vectors(),
                Target::Added(y) => y.in_vectors(),
                Target::Gated(to) => to.h.in_vectors() && to.gate_up.in_vectors(),
            }
    }

    fn residual_stride(&self) -> usize {
        match self.residual {
            Residual::Nothing => 0,
            Residual::Target(_) => self.y_stride(),
            Residual::Other(matrix) => matrix.stride,
        }
    }

    /// Sizes and strides as a kernel takes them, once they are known to fit ([`Gemm::fits`]).
    pub fn params(&self) -> GemmParams {
        let (m, mut n, k) = self.size();
        if let Target::Gated(to) = &self.target {
            n = to.h.cols;
        }
        let beta = match self.residual {
            Residual::Nothing => 0.0,
            Residual::Target(factor) => factor,
            Residual::Other(_) => 1.0,
        };
        GemmParams {
            m: m as i32,
            n: n as i32,
            k: k as i32,
            a_stride: self.a.stride as i32,
            b_stride: self.b.stride as i32,
            y_stride: self.y_stride() as i32,
            residual_stride: self.residual_stride() as i32,
            a_vector: self.a.in_vectors().into(),
            b_vector: self.b.in_vectors().into(),
            y_vector: self.y_in_vectors().into(),
            alpha: self.alpha,
            beta,
            output: if matches!(self.target, Target::Added(_)) { ACCUMULATE } else { OVERWRITE },
        }
    }

    /// The target, for a structure passed by value.
    pub fn target_to<'l>(&self, to: &mut u64, launch: Launch<'l>) -> Launch<'l> {
        let alignment = alignment(self.y_in_vectors());
        match &self.target {
            Target::Rounded(y) => launch.writes(to, "y", &y.data, y.extent(), alignment),
            Target::Added(y) => launch.writes(to, "y", &y.data, y.extent(), alignment),
            Target::Gated(Gated { h, .. }) => launch.writes(to, "h", &h.data, h.extent(), alignment),
        }
    }

    fn target<'l>(&self, launch: Launch<'l>) -> Launch<'l> {
        let mut address = 0;
        let launch = self.target_to(&mut address, launch).value(address);
        let Target::Gated(Gated { gate_up, .. }) = &self.target else { return launch };
        let alignment = alignment(self.y_in_vectors());
        launch.write("gate_up", &gate_up.data, gate_up.extent(), alignment).value(gate_up.rows as i32)
    }

    fn residual<'l>(&self, launch: Launch<'l>) -> Launch<'l> {
        let alignment = alignment(self.y_in_vectors());
        match (&self.residual, &self.target) {
            (Residual::Other(matrix), _) => launch.read("residual", matrix.data, matrix.extent(), alignment),
            (Residual::Target(_), Target::Rounded(y)) => {
                launch.read("residual", y.data.view(), y.extent(), alignment)
            }
            _ => launch.value(0u64),
        }
    }

    /// All parameters of the tiled kernel.
    fn pass<'l>(&self, launch: Launch<'l>, workspace: &SplitWorkspace<'_>) -> Launch<'l> {
        let (a, b) = (&self.a, &self.b);
        let (_, n, k) = self.size();
        let launch = self.target(launch);
        let launch = launch.read("a", a.data, a.extent(), alignment(a.in_vectors()));
        let launch = launch.read("b", b.data, b.extent(), alignment(b.in_vectors()));
        let launch = match (&self.target, self.layout) {
            (Target::Gated(_), _) => launch,
            (_, Layout::NT) => self.residual(launch).read_optional("bias", self.bias, n, 4),
            (_, Layout::NN) => self.residual(launch),
            (_, Layout::TN) => self.residual(launch).read_optional("row_weight", self.row_weight, k, 4),
        };
        let mut by_value = params::SplitWorkspace::default();
        let launch = workspace.pass(&mut by_value, launch.value(self.params())).value(by_value);
        if self.layout == Layout::NT { Terms::pass(self.terms, launch) } else { launch }
    }
}
