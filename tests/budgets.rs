//! What kernels cost, counted by the emulator, against what is needed.

#[allow(dead_code)] // one device is enough here
#[path = "common/emulator.rs"]
mod emulator;

mod budgets {
    pub mod attention;
    pub mod counting;
}
