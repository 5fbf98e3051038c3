//! The whole program on CUDA, that is on the emulator, against the CPU backend: whole-model logits, scores
//! and gradients, ten steps of training, guided generation; and against numbers of the published code.
//! Activations have 8 bits on CUDA, so results agree as far as that allows; two runs on CUDA agree in every
//! bit.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "common/emulator.rs"]
mod emulator;
#[allow(dead_code)] // what is for f32 alone
mod golden_cases;
#[path = "common/places.rs"]
mod places;
mod support;
#[path = "common/tiny.rs"]
mod tiny;

mod cuda {
    pub mod ahead;
    pub mod cli;
    pub mod generation;
    pub mod golden;
    pub mod model;
    pub mod ranks;
    pub mod recording;
    pub mod shards;
    pub mod training;
}

/// What was published, once more: an A100 has other kernels.
#[test]
fn on_an_a100() {
    emulator::again_on_an_a100("cuda::golden");
}

/// All of this.
#[test]
#[ignore = "minutes: make test-long"]
fn all_on_an_a100() {
    emulator::long_again_on_an_a100("cuda::");
}

/// Tests that record graphs run one at a time: what one does with the device's context would spoil another's
/// recording.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `|found − expected| / |expected|`, by the root of the mean square.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let difference = found.iter().zip(expected).map(|(f, e)| square(f64::from(f - e))).sum::<f64>();
    (difference / expected.iter().map(|e| square(f64::from(*e))).sum::<f64>().max(1e-30)).sqrt()
}
