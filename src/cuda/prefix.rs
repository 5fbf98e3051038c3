//! Learned keys and values: refused, by name, until there is a kernel.

use half::bf16;

use super::Cuda;
use crate::error::Result;
use crate::ops::Dropout;
use crate::ops::contract::refused;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::prefix::Prefix;

/// The refusal.
fn missing(op: &str) -> Result<()> {
    Err(refused(op, "CUDA has no kernel for prefixes yet; compute on the CPU".into()))
}

impl Prefix for Cuda {
    fn place_prefix(
        &self,
        _kv: MatrixMut<'_, Self, bf16>,
        _prefix: Matrix<'_, Self, bf16>,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.keep(missing("place_prefix"));
    }

    fn prefix_backward(
        &self,
        _dprefix_acc: MatrixMut<'_, Self, f32>,
        _dkv: MatrixMut<'_, Self, bf16>,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.keep(missing("prefix_backward"));
    }
}
