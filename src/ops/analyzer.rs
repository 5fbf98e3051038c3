//! Element-wise parts of the security analyzer (METHOD §5); its products are in [`super::matmul`].

use super::contract::expect_exactly;
use super::{Device, Dropout, Mut, Ref};
use crate::error::Result;

/// LayerNorm's epsilon in the analyzer.
pub const LAYER_NORM_EPS: f32 = 1e-5;

/// Arguments of [`Analyzer::layer_norm_relu_backward`].
pub struct LayerNormBackward<'a, D: Device> {
    /// `[rows, width]`.
    pub dz: Mut<'a, D, D::Act>,
    /// `[width]`.
    pub dgamma_acc: Mut<'a, D, f32>,
    /// `[width]`.
    pub dbeta_acc: Mut<'a, D, f32>,
    /// `[rows, width]`.
    pub dh: Ref<'a, D, D::Act>,
    /// `[rows, width]` input of the norm, bias included.
    pub z: Ref<'a, D, D::Act>,
    /// `[rows, 2]` mean and 1/σ.
    pub stats: Ref<'a, D, f32>,
    /// `[width]`.
    pub gamma: Ref<'a, D, f32>,
    /// `[width]`.
    pub beta: Ref<'a, D, f32>,
    /// `[rows]` weight of each row in the parameter gradients, `w_θ`.
    pub row_weight: Ref<'a, D, f32>,
    /// Dropout with the mask of the forward pass.
    pub dropout: Option<Dropout<'a, D>>,
}

/// Refuses gradients of other lengths than what they are gradients of.
pub(crate) fn check_gradients(op: &str, gradients: [(&str, usize); 2], expected: [usize; 2]) -> Result<()> {
    let mut all = gradients.into_iter().zip(expected);
    all.try_for_each(|((name, found), expected)| expect_exactly(op, name, found, Some(expected)))
}

impl<D: Device> LayerNormBackward<'_, D> {
    pub(crate) fn check(&self) -> Result<()> {
        let found = [("dgamma", self.dgamma_acc.len()), ("dbeta", self.dbeta_acc.len())];
        check_gradients("layer_norm_relu_backward", found, [self.gamma.len(); 2])
    }
}

/// Activation functions, norms and the score.
pub trait Analyzer: Device {
    /// `z += bias; h = dropout(relu(γ (z − mean)/σ + β))`; h, z `[rows, width]`, stats `[rows, 2]` (saved),
    /// bias, gamma, beta `[width]`.
    #[allow(clippy::too_many_arguments)]
    fn layer_norm_relu(
        &self,
        h: Mut<'_, Self, Self::Act>,
        z: Mut<'_, Self, Self::Act>,
        stats: Mut<'_, Self, f32>,
        bias: Ref<'_, Self, Self::Act>,
        gamma: Ref<'_, Self, f32>,
        beta: Ref<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    );

    /// Backward of [`Analyzer::layer_norm_relu`].
    fn layer_norm_relu_backward(&self, args: LayerNormBackward<'_, Self>);

    /// `h = relu(h + bias)` in place; h `[rows, width]`, bias `[width]`.
    fn bias_relu(&self, h: Mut<'_, Self, Self::Act>, bias: Ref<'_, Self, f32>);

    /// `score = sigmoid(h·w + b)`; scores `[rows]`, h `[rows, width]`, w `[width]`, b `[1]`.
    fn score(
        &self,
        scores: Mut<'_, Self, f32>,
        h: Ref<'_, Self, Self::Act>,
        w: Ref<'_, Self, f32>,
        b: Ref<'_, Self, f32>,
    );

    /// Backward of [`Analyzer::bias_relu`] and [`Analyzer::score`] with upstream 1 for every score: `dz = σ'
    /// w where h > 0, else 0`, `dw_acc += Σ w_θ σ' h`, `db_acc += Σ w_θ σ'`, `σ' = s (1 − s)`.
    #[allow(clippy::too_many_arguments)]
    fn score_backward(
        &self,
        dz: Mut<'_, Self, Self::Act>,
        dw_acc: Mut<'_, Self, f32>,
        db_acc: Mut<'_, Self, f32>,
        scores: Ref<'_, Self, f32>,
        h: Ref<'_, Self, Self::Act>,
        w: Ref<'_, Self, f32>,
        row_weight: Ref<'_, Self, f32>,
    );
}
