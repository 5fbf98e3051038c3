//! Products of activations with each other and with trainable weights, and the gradients of such weights.

use super::contract::{expect_exactly, refused};
use super::matrix::{Matrix, MatrixMut};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Which factors of a product are transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transpose {
    /// `A B`
    None,
    /// `A Bᵀ`
    Second,
    /// `Aᵀ B`
    First,
}

/// Arguments of the gradient of a trainable weight.
pub struct WeightGradient<'a, D: Device> {
    /// `[out, in]`.
    pub dw_acc: MatrixMut<'a, D, f32>,
    /// `[rows, out]`.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rows, in]`.
    pub x: Matrix<'a, D, D::Act>,
    /// `[rows]`; 1 where `None`.
    pub row_weight: Option<Ref<'a, D, f32>>,
}

/// Arguments of the gradient of a trainable bias.
pub struct BiasGradient<'a, D: Device> {
    /// `[out]`.
    pub db_acc: Mut<'a, D, f32>,
    /// `[rows, out]`.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rows]`.
    pub row_weight: Ref<'a, D, f32>,
}

impl<D: Device> WeightGradient<'_, D> {
    /// Refuses matrices that do not fit each other, or leave their memory.
    pub(crate) fn check(&self) -> Result<()> {
        const OP: &str = "weight_gradients";
        check_operands(OP, &self.dw_acc, &self.dy, &self.x, Transpose::First)?;
        expect_exactly(OP, "row_weight", self.row_weight.map_or(self.x.rows, Ref::len), Some(self.x.rows))
    }
}

impl<D: Device> BiasGradient<'_, D> {
    /// Refuses gradients of other than db's columns and the weights' rows.
    pub(crate) fn check(&self) -> Result<()> {
        const OP: &str = "bias_gradients";
        self.dy.expect(OP, "dy", self.row_weight.len(), self.db_acc.len())?;
        expect_exactly(OP, "row_weight", self.row_weight.len(), Some(self.dy.rows))
    }
}

impl Transpose {
    /// Rows, columns and inner dimensions of op(a) and op(b).
    fn sizes(self, a: [usize; 2], b: [usize; 2]) -> [usize; 4] {
        let [m, k] = if self == Transpose::First { [a[1], a[0]] } else { a };
        let [k2, n] = if self == Transpose::Second { [b[1], b[0]] } else { b };
        [m, n, k, k2]
    }
}

/// Refuses operands that leave their memory, whose rows overlap, or that do not fit each other.
pub(crate) fn check_operands<D: Device, T: super::Element>(
    op: &str,
    c: &MatrixMut<'_, D, T>,
    a: &Matrix<'_, D, D::Act>,
    b: &Matrix<'_, D, D::Act>,
    transpose: Transpose,
) -> Result<()> {
    for check in [c.check("c"), a.check("a"), b.check("b")] {
        check.map_err(|problem| refused(op, problem))?;
    }
    let [m, n, k, k2] = transpose.sizes([a.rows, a.cols], [b.rows, b.cols]);
    if [m, n, k] == [c.rows, c.cols, k2] {
        return Ok(());
    }
    let (a, b, c) = ([a.rows, a.cols], [b.rows, b.cols], [c.rows, c.cols]);
    Err(refused(op, format!("expected matrices that fit each other, found a {a:?}, b {b:?} and c {c:?}")))
}

/// Refuses vectors that are not of c's rows and columns.
pub(crate) fn check_vectors<D: Device>(
    op: &str,
    [rows, cols]: [usize; 2],
    bias: Option<Ref<'_, D, f32>>,
    outer: Option<[Ref<'_, D, D::Act>; 2]>,
) -> Result<()> {
    expect_exactly(op, "bias", bias.map_or(cols, Ref::len), Some(cols))?;
    let [x, y] = outer.map_or([rows, cols], |outer| outer.map(Ref::len));
    expect_exactly(op, "x", x, Some(rows))?;
    expect_exactly(op, "y", y, Some(cols))
}

/// Matrix products of which no factor is frozen.
pub trait Matmul: Device {
    /// `c = alpha · op(a) op(b) + beta · c` on activations.
    fn matmul(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    );

    /// `c = a bᵀ + bias + x yᵀ`, the last where `outer` has x `[rows]` and y `[cols]`. c `[rows, cols]`, a
    /// `[rows, k]`, b `[cols, k]`, bias `[cols]`.
    fn affine(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        bias: Option<Ref<'_, Self, f32>>,
        outer: Option<[Ref<'_, Self, Self::Act>; 2]>,
    );

    /// `c = Σ_i row_weight[i] · a[i] ⊗ b[i]`; c `[m, n]`, a `[rows, m]`, b `[rows, n]`, row_weight `[rows]`.
    fn weighted_product(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        row_weight: Ref<'_, Self, f32>,
    );

    /// `dw_acc += Σ_i row_weight[i] · dy[i] ⊗ x[i]` of each: gradients of trainable weights, none of which
    /// overlap.
    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>);

    /// `db_acc += Σ_i row_weight[i] · dy[i]` of each.
    fn bias_gradients(&self, gradients: Vec<BiasGradient<'_, Self>>);

    /// `dw_acc += a bᵀ + x yᵀ`, shapes as in [`Matmul::affine`]: a gradient that is not made of rows.
    fn affine_gradient(
        &self,
        dw_acc: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        outer: [Ref<'_, Self, Self::Act>; 2],
    );
}
