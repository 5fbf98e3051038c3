//! AdamW over one flat buffer of parameters.

use super::{Device, Mut, Ref};

/// One AdamW update, `p ← p(1 − lr·wd) − lr/(1−β1ᵗ) · m/(√v/√(1−β2ᵗ) + eps)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub t: u32,
    /// Every gradient is multiplied with this (clipping).
    pub grad_scale: f64,
}

/// Optimiser operations.
pub trait Optim: Device {
    /// Updates params, m and v in place; all `[n]`.
    fn adamw(
        &self,
        params: Mut<'_, Self, f32>,
        m: Mut<'_, Self, f32>,
        v: Mut<'_, Self, f32>,
        grads: Ref<'_, Self, f32>,
        step: AdamW,
    );

    /// `sum = Σ x²` in f64 and in a fixed order; NaN or infinite if any element is. sum `[1]`.
    fn sum_of_squares(&self, sum: Mut<'_, Self, f64>, x: Ref<'_, Self, f32>);
}
