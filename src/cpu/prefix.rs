//! Learned keys and values, as written in `ops/attention.rs`.

use super::Cpu;
use super::dropout::apply_dropout;
use crate::ops::Dropout;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::prefix::check;

impl Cpu {
    pub(super) fn write_prefix(
        &self,
        kv: MatrixMut<'_, Self, f32>,
        prefix: Matrix<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        let shapes = ([kv.rows, kv.cols], [prefix.rows, prefix.cols]);
        let keys = dropout.map(|dropout| dropout.row_keys.len());
        let checked =
            check("place_prefix", (kv.check("kv"), shapes.0), (prefix.check("prefix"), shapes.1), keys);
        if !self.accepts(checked) {
            return;
        }
        let (rows, cols, stride) = (kv.rows, kv.cols, kv.stride);
        let (kv, from) = (kv.data.into_slice(), prefix.data.as_slice());
        for row in 0..rows {
            let to = &mut kv[row * stride..][..cols];
            to.copy_from_slice(&from[row * prefix.stride..][..cols]);
            apply_dropout(to, row, dropout);
        }
    }

    pub(super) fn add_prefix_gradient(
        &self,
        dprefix_acc: MatrixMut<'_, Self, f32>,
        dkv: MatrixMut<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        let shapes = ([dprefix_acc.rows, dprefix_acc.cols], [dkv.rows, dkv.cols]);
        let keys = dropout.map(|dropout| dropout.row_keys.len());
        let of = (dprefix_acc.check("dprefix"), shapes.0);
        if !self.accepts(check("prefix_backward", of, (dkv.check("dkv"), shapes.1), keys)) {
            return;
        }
        let (rows, cols, stride, to_stride) = (dkv.rows, dkv.cols, dkv.stride, dprefix_acc.stride);
        let (to, from) = (dprefix_acc.data.into_slice(), dkv.data.into_slice());
        for row in 0..rows {
            let from = &mut from[row * stride..][..cols];
            apply_dropout(from, row, dropout);
            let to = &mut to[row * to_stride..][..cols];
            to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to += from);
            from.fill(0.0);
        }
    }
}
