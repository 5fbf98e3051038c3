//! Guidance and sampling, as written in `ops/sample.rs`.

use half::bf16;

use super::Cuda;
use crate::error::Error;
use crate::ops::sample::{Sample, Sampling};
use crate::ops::{Mut, Ref};

impl Sample for Cuda {
    fn guide(
        &self,
        _logits: Mut<'_, Self, bf16>,
        _stats: Ref<'_, Self, f32>,
        _strength: Ref<'_, Self, f32>,
        _boost: f32,
    ) {
        self.fail(Error::internal("not there yet"));
    }

    fn sample(
        &self,
        _tokens: Mut<'_, Self, u32>,
        _logits: Ref<'_, Self, bf16>,
        _sampling: Sampling,
        _position: u32,
    ) {
        self.fail(Error::internal("not there yet"));
    }
}
