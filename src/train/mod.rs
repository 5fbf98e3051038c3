//! Training: data, batches, the joint objective, the loop, checkpoints.

pub mod base_cache;
pub mod batch;
pub mod step;
