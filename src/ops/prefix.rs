//! Learned keys and values, those of prefix tuning.

use super::contract::expect_len;
use super::matrix::{Matrix, MatrixMut};
use super::{Device, Dropout};
use crate::error::Result;

/// Refuses what [`Prefix::place_prefix`] cannot do without leaving its arguments.
pub(crate) fn check_place<D: Device>(
    kv: &MatrixMut<'_, D, D::Act>,
    prefix: &Matrix<'_, D, D::Act>,
    dropout: Option<Dropout<'_, D>>,
) -> Result<()> {
    const OP: &str = "place_prefix";
    kv.expect(OP, "kv", prefix.rows, prefix.cols)?;
    prefix.expect(OP, "prefix", kv.rows, kv.cols)?;
    check_row_keys(OP, kv.rows, dropout)
}

/// Refuses what [`Prefix::prefix_backward`] cannot do without leaving its arguments.
pub(crate) fn check_backward<D: Device>(
    dprefix_acc: &MatrixMut<'_, D, f32>,
    dkv: &MatrixMut<'_, D, D::Act>,
    dropout: Option<Dropout<'_, D>>,
) -> Result<()> {
    const OP: &str = "prefix_backward";
    dprefix_acc.expect(OP, "dprefix", dkv.rows, dkv.cols)?;
    dkv.expect(OP, "dkv", dprefix_acc.rows, dprefix_acc.cols)?;
    check_row_keys(OP, dkv.rows, dropout)
}

fn check_row_keys<D: Device>(op: &str, rows: usize, dropout: Option<Dropout<'_, D>>) -> Result<()> {
    dropout.map_or(Ok(()), |dropout| expect_len(op, "row_keys", dropout.row_keys.len(), rows))
}

/// Keys and values of the rows that stand for a prefix. Both matrices of an operation are `[len, width]`:
/// keys and values of `2 · kv_width` columns, key before value, or one of them. A dropout has a key for each
/// row.
pub trait Prefix: Device {
    /// `kv = dropout(prefix)`.
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
