//! Element-wise parts of the analyzer, as written in `ops/analyzer.rs`.

use half::bf16;

use super::Cuda;
use crate::error::Error;
use crate::ops::analyzer::{Analyzer, LayerNormBackward};
use crate::ops::{Dropout, Mut, Ref};

impl Analyzer for Cuda {
    fn layer_norm_relu(
        &self,
        _h: Mut<'_, Self, bf16>,
        _z: Mut<'_, Self, bf16>,
        _stats: Mut<'_, Self, f32>,
        _bias: Ref<'_, Self, bf16>,
        _gamma: Ref<'_, Self, f32>,
        _beta: Ref<'_, Self, f32>,
        _dropout: Option<Dropout<'_, Self>>,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn layer_norm_relu_backward(&self, _args: LayerNormBackward<'_, Self>) {
        self.fail(Error::internal("not there yet"));
    }

    fn bias_relu(&self, _h: Mut<'_, Self, bf16>, _bias: Ref<'_, Self, f32>) {
        self.fail(Error::internal("not there yet"));
    }

    fn relu_backward(&self, _dh: Mut<'_, Self, bf16>, _h: Ref<'_, Self, bf16>) {
        self.fail(Error::internal("not there yet"));
    }

    fn score(
        &self,
        _scores: Mut<'_, Self, f32>,
        _h: Ref<'_, Self, bf16>,
        _w: Ref<'_, Self, f32>,
        _b: Ref<'_, Self, f32>,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn score_backward(
        &self,
        _dh: Mut<'_, Self, bf16>,
        _dw_acc: Mut<'_, Self, f32>,
        _db_acc: Mut<'_, Self, f32>,
        _scores: Ref<'_, Self, f32>,
        _h: Ref<'_, Self, bf16>,
        _w: Ref<'_, Self, f32>,
        _row_weight: Ref<'_, Self, f32>,
    ) {
        self.fail(Error::internal("not there yet"));
    }
}
