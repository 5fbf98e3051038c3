//! RMSNorm of the Transformer blocks. Its weights are frozen: no weight gradient.

use super::{Device, Mut, Ref};

/// RMSNorm, `y = w · x · rstd`, `rstd = 1/√(mean(x²) + eps)`.
pub trait Norm: Device {
    /// y `[rows, width]`, rstd `[rows]` (saved for the backward), x `[rows, width]`, weight `[width]`.
    fn rms_norm(
        &self,
        y: Mut<'_, Self, Self::Act>,
        rstd: Mut<'_, Self, f32>,
        x: Ref<'_, Self, Self::Act>,
        weight: Ref<'_, Self, f32>,
        eps: f32,
    );

    /// `dx_acc += rstd · (w·dy − x·rstd²·mean(w·dy·x))`; dx, dy, x `[rows, width]`, rstd `[rows]`, weight
    /// `[width]`.
    fn rms_norm_backward(
        &self,
        dx_acc: Mut<'_, Self, Self::Act>,
        dy: Ref<'_, Self, Self::Act>,
        x: Ref<'_, Self, Self::Act>,
        rstd: Ref<'_, Self, f32>,
        weight: Ref<'_, Self, f32>,
    );
}
