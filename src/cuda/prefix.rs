//! Learned keys and values: refused, by name, until there is a kernel.

use half::bf16;

use super::Cuda;
use crate::error::Result;
use crate::ops::Dropout;
use crate::ops::contract::refused;
use crate::ops::matrix::{Matrix, MatrixMut};

/// The refusal.
fn missing(op: &str) -> Result<()> {
    Err(refused(op, "CUDA has no kernel for prefixes yet; compute on the CPU".into()))
}

impl Cuda {
    pub(super) fn write_prefix(
        &self,
        _kv: MatrixMut<'_, Self, bf16>,
        _prefix: Matrix<'_, Self, bf16>,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.keep(missing("place_prefix"));
    }

    pub(super) fn add_prefix_gradient(
        &self,
        _dprefix_acc: MatrixMut<'_, Self, f32>,
        _dkv: MatrixMut<'_, Self, bf16>,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.keep(missing("prefix_backward"));
    }
}
