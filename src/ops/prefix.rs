//! Learned keys and values that every token of a sequence sees before its own: prefix tuning.

use super::contract::refused;
use super::matrix::{Matrix, MatrixMut};
use super::{Device, Dropout};
use crate::error::Result;

/// Refuses matrices of different shapes, and fewer row keys than rows.
pub(crate) fn check(
    op: &str,
    to: (std::result::Result<(), String>, [usize; 2]),
    from: (std::result::Result<(), String>, [usize; 2]),
    row_keys: Option<usize>,
) -> Result<()> {
    to.0.and(from.0).map_err(|problem| refused(op, problem))?;
    if to.1 != from.1 {
        return Err(refused(
            op,
            format!("expected two matrices of one shape, found {:?} and {:?}", to.1, from.1),
        ));
    }
    match row_keys.filter(|keys| *keys < to.1[0]) {
        Some(keys) => Err(refused(op, format!("row_keys: expected {} of them, found {keys}", to.1[0]))),
        None => Ok(()),
    }
}

/// Rows of a batch whose keys and values are learned.
pub trait Prefix: Device {
    /// `kv = dropout(prefix)`: keys and values of the rows that stand for the prefix, `[len, 2 · kv_width]`
    /// both, key before value.
    fn place_prefix(
        &self,
        kv: MatrixMut<'_, Self, Self::Act>,
        prefix: Matrix<'_, Self, Self::Act>,
        dropout: Option<Dropout<'_, Self>>,
    );

    /// `dprefix_acc += dropout(dkv)`, after which dkv is zero: nothing is learned below those rows.
    fn prefix_backward(
        &self,
        dprefix_acc: MatrixMut<'_, Self, f32>,
        dkv: MatrixMut<'_, Self, Self::Act>,
        dropout: Option<Dropout<'_, Self>>,
    );
}
