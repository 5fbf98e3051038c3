//! AdamW over one flat buffer of parameters, and exact sums of their gradients.

use super::contract::{expect_exactly, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// What a number is multiplied with in exact sums: they count units of 2⁻⁴⁸.
pub const EXACT_SCALE: f32 = (1u64 << 48) as f32;

/// Magnitude that no exact sum reaches: 2⁶³ units.
const EXACT_RANGE: f64 = (1u64 << 15) as f64;

/// Magnitude from which an element has no room in sums of `addends` elements: with the largest below it each
/// time, their sum still is less than the range.
pub(crate) fn exact_limit(addends: usize) -> f32 {
    (EXACT_RANGE / addends as f64) as f32
}

pub(crate) fn check_exact_add(sums: usize, x: usize, addends: usize) -> Result<()> {
    if addends == 0 || u32::try_from(addends).is_err() {
        let problem = format!("addends: expected 1 to {}, found {addends}", u32::MAX);
        return Err(refused("exact_add", problem));
    }
    expect_exactly("exact_add", "sums", sums, x.checked_add(1))
}

pub(crate) fn check_exact_take(x: usize, sums: usize) -> Result<()> {
    expect_exactly("exact_take", "sums", sums, x.checked_add(1))
}

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

    /// Adds gradients to exact sums and clears them: `sums[i] += round(x[i] · 2⁴⁸)`, ties to even, and
    /// `x[i] = 0`. Like all sums of integers, these do not depend on the order of the additions.
    ///
    /// Elements that are not finite, or whose magnitude is at least `2¹⁵ / addends`, rounded to f32, add
    /// nothing: `sums[n]` counts them. At most `addends` such additions, over all ranks whose sums are then
    /// added up, overflow no sum. sums `[n + 1]`, x `[n]`.
    fn exact_add(&self, sums: Mut<'_, Self, i64>, x: Mut<'_, Self, f32>, addends: usize);

    /// `x[i] = sums[i] / 2⁴⁸`, rounded once, ties to even. Where `sums[n]` counts elements that were left
    /// out, `x[0]` is not a number, and so no norm of x. x `[n]`, sums `[n + 1]`.
    fn exact_take(&self, x: Mut<'_, Self, f32>, sums: Ref<'_, Self, i64>);
}
