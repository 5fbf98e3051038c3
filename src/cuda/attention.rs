//! Attention, as written in `ops/attention.rs`.

use half::bf16;

use super::Cuda;
use crate::error::Error;
use crate::ops::attention::{Attention, CachedKv, Heads, Segment};
use crate::ops::{Mut, Ref};

impl Attention for Cuda {
    fn attention(
        &self,
        _o: Mut<'_, Self, bf16>,
        _lse: Mut<'_, Self, f32>,
        _qkv: Ref<'_, Self, bf16>,
        _segments: &[Segment],
        _heads: Heads,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn attention_backward(
        &self,
        _dqkv: Mut<'_, Self, bf16>,
        _dout: Ref<'_, Self, bf16>,
        _o: Ref<'_, Self, bf16>,
        _lse: Ref<'_, Self, f32>,
        _qkv: Ref<'_, Self, bf16>,
        _segments: &[Segment],
        _heads: Heads,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn attention_decode(
        &self,
        _o: Mut<'_, Self, bf16>,
        _qkv: Ref<'_, Self, bf16>,
        _cache: &CachedKv<'_, Self>,
        _heads: Heads,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn copy_columns(
        &self,
        _to: Mut<'_, Self, bf16>,
        _from: Ref<'_, Self, bf16>,
        _to_width: usize,
        _to_row: usize,
        _to_row_step: usize,
        _from_width: usize,
        _from_column: usize,
    ) {
        self.fail(Error::internal("not there yet"));
    }
}
