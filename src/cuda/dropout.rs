//! Dropout as kernels take it.

use super::launch::Launch;
use super::{Cuda, params};
use crate::ops::{Dropout, DropoutKey};

impl params::DropoutKey {
    /// The mask of a key; without one, nothing is dropped.
    pub fn new(key: Option<DropoutKey>) -> Self {
        let Some(key) = key else {
            return params::DropoutKey { seed: 0, step: 0, site: 0, threshold: 0, scale: 1.0 };
        };
        let DropoutKey { seed, step, site, threshold } = key;
        params::DropoutKey { seed, step, site, threshold, scale: key.scale() }
    }
}

impl params::Mask {
    /// Adds a dropout of `rows` rows to a structure that is passed by value.
    pub fn pass<'l>(
        &mut self,
        dropout: Option<Dropout<'_, Cuda>>,
        rows: usize,
        launch: Launch<'l>,
    ) -> Launch<'l> {
        self.key = params::DropoutKey::new(dropout.map(|dropout| dropout.key));
        match dropout {
            Some(dropout) => launch.reads(&mut self.row_keys, "row_keys", dropout.row_keys, rows, 4),
            None => launch,
        }
    }
}
