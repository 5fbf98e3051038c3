//! CUDA without a GPU: the emulator's device. `DG_TEST_DEVICE=gpu` takes the first GPU instead.

#![allow(dead_code)]

#[path = "required.rs"]
mod required;

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use deepguard::cuda::Cuda;
use required::not_tested;

/// Names the emulated device, to a whole process.
pub const DEVICE_VARIABLE: &str = "DG_EMULATOR_DEVICE";

/// `gpu`: run on the first GPU, with the machine code that suits it.
pub const TEST_DEVICE_VARIABLE: &str = "DG_TEST_DEVICE";

/// Whether the tests run on a GPU.
pub fn on_a_gpu() -> bool {
    match std::env::var(TEST_DEVICE_VARIABLE).as_deref() {
        Ok("gpu") => true,
        Ok("" | "emulator") | Err(_) => false,
        Ok(other) => panic!("{TEST_DEVICE_VARIABLE} is {other:?}: expected gpu or emulator"),
    }
}

/// Says that a test does nothing on a GPU, past the harness, which swallows what tests print that pass.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED on a GPU: {test}: {why}");
}

/// The device of the tests, for operations of any test.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(own_cuda)
}

/// The same with a stream of its own: for a test that records graphs, or whose errors are no other test's
/// business.
pub fn own_cuda() -> Cuda {
    if on_a_gpu() {
        return Cuda::new(0).expect("a GPU");
    }
    cuda_emulator::load().expect("the emulator");
    Cuda::with_ptx(0).expect("an emulated device; make toolkit, if there are no kernels")
}

/// Unwraps, adding what the emulator has to say about a kernel that failed.
pub fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        if on_a_gpu() {
            panic!("{error}");
        }
        let fault = cuda_emulator::load().and_then(|emulator| emulator.last_fault());
        panic!("{error}\n{}", fault.unwrap_or_else(|e| e));
    })
}

/// Another order of warps and blocks, where there is a seed for it.
pub fn set_seed(seed: u64) {
    if !on_a_gpu() {
        checked(cuda_emulator::load().and_then(|emulator| emulator.set_seed(seed)));
    }
}

/// Runs the tests of this program whose names contain `part` again, on an A100.
pub fn again_on_an_a100(part: &str) {
    again_with(&[part]);
}

/// The same of tests that take long, which are ignored otherwise.
pub fn long_again_on_an_a100(part: &str) {
    again_with(&[part, "--include-ignored"]);
}

fn again_with(arguments: &[&str]) {
    if on_a_gpu() {
        return skipped("it would need two GPUs");
    }
    match std::env::var(DEVICE_VARIABLE).as_deref() {
        Ok("a100") => return, // it is on one already
        Ok(other) => return not_tested(&format!("{DEVICE_VARIABLE}={other} is no A100")),
        Err(_) => {}
    }
    let program = std::env::current_exe().expect("a running program");
    let output = Command::new(program).args(arguments).env(DEVICE_VARIABLE, "a100").output();
    let output = output.expect("it starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
