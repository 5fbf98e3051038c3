//! Dropout as kernels take it.

use super::Cuda;
use super::launch::Launch;
use crate::ops::{Dropout, DropoutKey};

/// `DropoutKey` of `kernels/philox.h`: what decides on a mask, and the factor of what is kept.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct KernelDropout {
    seed: u64,
    step: u32,
    site: u32,
    threshold: u32,
    scale: f32,
}

impl KernelDropout {
    /// The mask of a key; without one, nothing is dropped.
    pub fn new(key: Option<DropoutKey>) -> Self {
        let Some(key) = key else {
            return KernelDropout { seed: 0, step: 0, site: 0, threshold: 0, scale: 1.0 };
        };
        let DropoutKey { seed, step, site, threshold } = key;
        KernelDropout { seed, step, site, threshold, scale: key.scale() }
    }
}

/// `Mask` of `kernels/philox.h`: a key, and where those of the rows are.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct KernelMask {
    key: KernelDropout,
    row_keys: u64,
}

impl KernelMask {
    /// Adds a dropout of `rows` rows to a structure that is passed by value.
    pub fn pass<'l>(
        &mut self,
        dropout: Option<Dropout<'_, Cuda>>,
        rows: usize,
        launch: Launch<'l>,
    ) -> Launch<'l> {
        self.key = KernelDropout::new(dropout.map(|dropout| dropout.key));
        match dropout {
            Some(dropout) => launch.reads(&mut self.row_keys, "row_keys", dropout.row_keys, rows, 4),
            None => launch,
        }
    }
}
