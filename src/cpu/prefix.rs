//! Learned keys and values, as written in `ops/prefix.rs`.

use super::Cpu;
use super::dropout::apply_dropout;
use crate::ops::Dropout;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::prefix::{Prefix, check_backward, check_place};

impl Prefix for Cpu {
    fn place_prefix(
        &self,
        kv: MatrixMut<'_, Self, f32>,
        prefix: Matrix<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        if !self.accepts(check_place(&kv, &prefix, dropout)) || kv.cols == 0 {
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

    fn prefix_backward(
        &self,
        dprefix_acc: MatrixMut<'_, Self, f32>,
        dkv: MatrixMut<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        if !self.accepts(check_backward(&dprefix_acc, &dkv, dropout)) || dkv.cols == 0 {
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
