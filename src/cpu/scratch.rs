//! Temporary f32 vectors that are used again: after the first step no operation allocates.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// A pool of vectors.
#[derive(Default)]
pub struct Scratch {
    free: Mutex<Vec<Vec<f32>>>,
}

/// A vector of the pool, given back when dropped. Its content is whatever the last user left.
pub struct ScratchVec<'a> {
    pool: &'a Scratch,
    data: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` elements of unspecified value.
    pub fn take(&self, len: usize) -> ScratchVec<'_> {
        let mut data = self.pop(len);
        if data.len() < len {
            data.resize(len, 0.0);
        }
        ScratchVec { pool: self, data, len }
    }

    /// The smallest free vector that holds `len`, else the largest, to be grown.
    fn pop(&self, len: usize) -> Vec<f32> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|v| v.len() < len);
        if at < free.len() { free.remove(at) } else { free.pop().unwrap_or_default() }
    }
}

impl Drop for ScratchVec<'_> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|v| v.len() < data.len());
        free.insert(at, data);
    }
}

impl Deref for ScratchVec<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for ScratchVec<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}
