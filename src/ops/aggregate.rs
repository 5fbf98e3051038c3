//! The attention aggregator over the taps of a token, in its fused form (METHOD §4).
//!
//! `taps` is `[N, rows, hidden_size]`: hidden states of N layers, one after the other.

use super::contract::refused;
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Sizes of an aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapShape {
    /// Number of taps N.
    pub taps: usize,
    /// Rows per tap.
    pub rows: usize,
    /// Width of a row.
    pub hidden_size: usize,
}

impl TapShape {
    /// Refuses shapes without taps or columns, and those that no memory holds.
    pub(crate) fn check(self, op: &str) -> Result<()> {
        let TapShape { taps, rows, hidden_size } = self;
        let elements = taps.checked_mul(rows).and_then(|n| n.checked_mul(hidden_size));
        if taps > 0 && hidden_size > 0 && elements.is_some_and(|n| n <= isize::MAX as usize) {
            return Ok(());
        }
        Err(refused(op, format!("shape: expected taps of some width, found {self:?}")))
    }
}

/// Inputs of the gradient of the taps; all `[rows, hidden_size]` or `[rows, N]`.
pub struct TapGradient<'a, D: Device> {
    /// Weight of each tap; `a_l`.
    pub weights: Ref<'a, D, f32>,
    /// `∂s_l`, from [`Aggregate::aggregate_backward`].
    pub dscores: Ref<'a, D, f32>,
    /// Gradient of the aggregate, `g`.
    pub dcontext: Ref<'a, D, D::Act>,
    /// `u = Wkᵀ q`.
    pub u: Ref<'a, D, D::Act>,
    /// Gradient of the mean of the taps.
    pub dmean: Ref<'a, D, D::Act>,
    /// `[rows]`, `w_h`.
    pub row_weight: Ref<'a, D, f32>,
}

/// One pass over the taps of every row.
pub trait Aggregate: Device {
    /// `mean = Σ_l taps[l] / N`; mean `[rows, hidden_size]`.
    fn tap_mean(&self, mean: Mut<'_, Self, Self::Act>, taps: Ref<'_, Self, Self::Act>, shape: TapShape);

    /// `s_l = u·h_l/√H`, `a = softmax(s)`, `c = Σ_l a_l h_l`; context `[rows, hidden_size]`, weights `[rows,
    /// N]` (saved), u `[rows, hidden_size]`.
    fn aggregate(
        &self,
        context: Mut<'_, Self, Self::Act>,
        weights: Mut<'_, Self, f32>,
        taps: Ref<'_, Self, Self::Act>,
        u: Ref<'_, Self, Self::Act>,
        shape: TapShape,
    );

    /// `∂s_l = a_l (g·h_l − Σ_j a_j g·h_j)/√H`, `∂u = Σ_l ∂s_l h_l`; du `[rows, hidden_size]`, dscores
    /// `[rows, N]`.
    #[allow(clippy::too_many_arguments)]
    fn aggregate_backward(
        &self,
        du: Mut<'_, Self, Self::Act>,
        dscores: Mut<'_, Self, f32>,
        dcontext: Ref<'_, Self, Self::Act>,
        taps: Ref<'_, Self, Self::Act>,
        weights: Ref<'_, Self, f32>,
        shape: TapShape,
    );

    /// `dtaps[l] = w_h (a_l g + ∂s_l u + dmean/N)` for the first `dtap_rows` rows; dtaps `[N, dtap_rows,
    /// hidden_size]`.
    fn tap_gradient(
        &self,
        dtaps: Mut<'_, Self, Self::Act>,
        dtap_rows: usize,
        args: TapGradient<'_, Self>,
        shape: TapShape,
    );
}
