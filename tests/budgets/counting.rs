//! Counters of the kernels that some work starts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cuda_emulator::client::Client;
use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::ops::Device;

use crate::emulator::{checked, cuda, on_a_gpu, skipped};

/// Whether a test has nothing to go by; says so.
pub fn uncounted() -> bool {
    if on_a_gpu() {
        skipped("the emulator counts");
    }
    on_a_gpu()
}

/// Counters belong to the whole process: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it is there, kernels are queued and leave memory as it is.
pub struct Unexecuted(&'static Client);

impl Drop for Unexecuted {
    fn drop(&mut self) {
        // It fails where there is no driver any more.
        let _ = self.0.set_executes(true);
    }
}

/// For what the host does alone, which takes a fraction of the time.
pub fn unexecuted() -> Unexecuted {
    let emulator = checked(cuda_emulator::load());
    checked(emulator.set_executes(false));
    Unexecuted(emulator)
}

/// The counters of each of `kernels` while `work` runs, which nothing else does meanwhile.
pub fn count<const N: usize>(kernels: [&str; N], work: impl FnOnce(&Cuda)) -> [Counters; N] {
    let _alone = alone();
    let cuda = cuda();
    let emulator = cuda_emulator::load().expect("the emulator");
    emulator.take_counters().expect("counters");
    work(cuda);
    checked(cuda.finish());
    kernels.map(|name| emulator.kernel_counters(name).expect(name))
}

/// Bytes of global memory in the sectors that were read and written.
pub fn global_bytes(counters: &Counters) -> usize {
    32 * (counters.global_load_sectors + counters.global_store_sectors) as usize
}

/// `found ÷ needed` is at least 1 and at most `limit`; says how much it is.
pub fn within(what: &str, found: usize, needed: usize, limit: f64) {
    let ratio = found as f64 / needed as f64;
    println!("{what}: {ratio:.3}");
    assert!(
        (1.0..=limit).contains(&ratio),
        "{what}: {found} ÷ {needed} = {ratio:.3}, expected at most {limit}"
    );
}

/// Accesses of global memory, of a lane each, that are narrower than 16 bytes: at most `allowed`; says how
/// many there are.
pub fn narrow(what: &str, counters: &Counters, allowed: usize) {
    let found = counters.global_narrow_accesses as usize;
    println!("{what}: {found} narrow accesses, {allowed} allowed");
    assert!(found <= allowed, "{what}: {found} accesses of fewer than 16 bytes, expected at most {allowed}");
}
