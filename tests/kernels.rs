//! CUDA, as far as it is no other backend: how it is reached, what it refuses, and what becomes of errors. The
//! operations themselves are tested in `tests/ops.rs`.

#[path = "common/emulator.rs"]
mod emulator;
mod kernels {
    pub mod device;
    pub mod errors;
    pub mod products;
}

/// All of this once more.
#[test]
fn on_an_a100() {
    emulator::again_on_an_a100();
}
