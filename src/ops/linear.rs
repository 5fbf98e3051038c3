//! Frozen linear layers with their LoRA adapters.

use super::matrix::Matrix;
use super::{Device, Dropout, Mut, Ref};

/// Epilogue of a linear layer.
pub enum Write<'a, D: Device> {
    /// `y = …`
    Overwrite,
    /// `y = r + …` (the residual stream); r has y's shape.
    Residual(Ref<'a, D, D::Act>),
}

/// The LoRA of one projection inside a (possibly stacked) linear layer.
pub struct LoraTerm<'a, D: Device> {
    /// `[adapter_rows, rank]`, `s · dropout(x) Aᵀ` from [`Linear::lora_down`]. Rows after these have no
    /// adapter.
    pub xa: Ref<'a, D, D::Act>,
    /// `[out_features, rank]` lora_B.
    pub b: Ref<'a, D, D::Act>,
    /// First output column of the projection.
    pub column: usize,
    /// Number of output columns of the projection.
    pub out_features: usize,
    /// LoRA rank.
    pub rank: usize,
}

/// One of the adapters of a (possibly stacked) linear layer, all of which read the layer's input, in the
/// forward pass.
pub struct LoraDown<'a, D: Device> {
    /// `[rows, rank]`, written.
    pub xa: Mut<'a, D, D::Act>,
    /// `[rank, in_features]` lora_A.
    pub a: Ref<'a, D, D::Act>,
    /// Dropout of the input.
    pub dropout: Option<Dropout<'a, D>>,
}

/// One of the adapters of a linear layer in the backward pass; shapes as in [`LoraTerm`].
pub struct LoraBackward<'a, D: Device> {
    /// `[rank, in_features]`.
    pub da_acc: Mut<'a, D, f32>,
    /// `[out_features, rank]`.
    pub db_acc: Mut<'a, D, f32>,
    /// `[rows, rank]` saved by the forward.
    pub xa: Ref<'a, D, D::Act>,
    /// `[rows, out_features]` columns of the layer's output gradient.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rank, in_features]` lora_A.
    pub a: Ref<'a, D, D::Act>,
    /// `[out_features, rank]` lora_B.
    pub b: Ref<'a, D, D::Act>,
    /// Dropout with the mask of the forward pass.
    pub dropout: Option<Dropout<'a, D>>,
}

/// Frozen linear layers, and the LoRA adapters that are trained beside them.
pub trait Linear: Device {
    /// `y = x Wᵀ + bias + Σ xa Bᵀ (+ r)` (METHOD §2; LoRA as an extension of K). y `[rows, out]`, x `[rows,
    /// in]`, W `[out, in]`, bias `[out]`.
    fn linear(
        &self,
        y: Mut<'_, Self, Self::Act>,
        x: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    );

    /// `dx = dy W`: the gradient through a frozen layer; dx `[rows, in]`, dy `[rows, out]`.
    fn linear_backward(
        &self,
        dx: Mut<'_, Self, Self::Act>,
        dy: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
    );

    /// `xa = scale · dropout(x) Aᵀ` of each adapter; x `[rows, in]`, which all of them read.
    fn lora_down(
        &self,
        adapters: Vec<LoraDown<'_, Self>>,
        x: Ref<'_, Self, Self::Act>,
        rank: usize,
        scale: f32,
    );

    /// `dB += dyᵀ xa` and `dA += scale · (dy B)ᵀ dropout(x)` of each adapter; `dx += Σ scale · mask ∘ (dy B)
    /// A` over all of them, unless `None`, where nothing below is trained. dx and x `[rows, in]`.
    fn lora_backward(
        &self,
        dx_acc: Option<Mut<'_, Self, Self::Act>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, Self::Act>,
        scale: f32,
    );
}
