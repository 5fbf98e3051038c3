//! Products of activations with each other and with trainable weights, and the gradients of such weights.

use super::matrix::{Matrix, MatrixMut};
use super::{Device, Mut, Ref};

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
