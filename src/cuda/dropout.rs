//! Dropout as kernels take it: `DropoutKey` of `kernels/philox.h`.

use crate::ops::DropoutKey;

/// What decides on a mask, and the factor of what is kept.
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
