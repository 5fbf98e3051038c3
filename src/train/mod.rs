//! Training: data, batches, the joint objective, the loop, checkpoints.

pub mod base_cache;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod environment;
pub mod evaluation;
mod memory;
pub mod metrics;
mod objective;
mod results;
pub mod schedule;
pub mod step;
pub mod tensorboard;
pub mod trainer;

pub use config::TrainConfig;
pub use trainer::{Observer, RunSummary, StepLog, train};
