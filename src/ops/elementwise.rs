//! Element-wise operations that several parts of a model share.

use super::{Device, Mut, Ref};

/// Operations on each element, or on each element of a row, by itself.
pub trait Elementwise: Device {
    /// `y_acc += x`, the residual add; y and x of one length.
    fn add(&self, y_acc: Mut<'_, Self, Self::Act>, x: Ref<'_, Self, Self::Act>);

    /// `y[i] = scale · row_weight[i] · x[i]`; y, x `[rows, width]`, row_weight `[rows]`.
    fn scale_rows(
        &self,
        y: Mut<'_, Self, Self::Act>,
        x: Ref<'_, Self, Self::Act>,
        row_weight: Ref<'_, Self, f32>,
        scale: f32,
    );

    /// `to = from` in the type of activations, rounded where that is narrower: the operands that master
    /// parameters are multiplied as; to and from of one length.
    fn cast(&self, to: Mut<'_, Self, Self::Act>, from: Ref<'_, Self, f32>);
}
