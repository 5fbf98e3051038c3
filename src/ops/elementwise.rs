//! Element-wise operations that several parts of a model share.

use super::contract::expect_exactly;
use super::{Device, Mut, Ref};
use crate::error::Result;

pub(crate) fn check_add(y: usize, x: usize) -> Result<()> {
    expect_exactly("add", "y", y, Some(x))
}

pub(crate) fn check_scale_rows(y: usize, x: usize, rows: usize) -> Result<()> {
    expect_exactly("scale_rows", "x", x, x.checked_div(rows).unwrap_or(0).checked_mul(rows))?;
    expect_exactly("scale_rows", "y", y, Some(x))
}

pub(crate) fn check_cast(to: usize, from: usize) -> Result<()> {
    expect_exactly("cast", "to", to, Some(from))
}

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
