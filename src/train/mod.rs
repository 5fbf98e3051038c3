//! Training: data, batches, the joint objective, the loop, checkpoints.

mod ahead;
pub mod base_cache;
mod base_states;
pub mod batch;
pub mod changes;
#[cfg(feature = "text")]
pub mod check;
pub mod checkpoint;
pub mod config;
mod course;
pub mod data;
mod division;
pub mod environment;
pub mod evaluation;
mod head;
mod memory;
pub mod method;
mod metrics;
mod objective;
pub mod observer;
pub mod packing;
mod passes;
mod ranks;
mod record;
pub mod records;
mod results;
mod run_data;
pub(crate) mod run_folder;
pub(crate) mod schedule;
mod setup;
pub mod step;
mod tensorboard;
mod trainer;
mod work;

pub use config::TrainConfig;
pub use method::Method;
pub use observer::{Observer, StepLog};
pub use run_data::RunData;
pub use run_folder::RunFolder;
pub use trainer::{RunSummary, train_on};
#[cfg(feature = "text")]
pub use trainer::{dry_run, train, train_among, train_in};
