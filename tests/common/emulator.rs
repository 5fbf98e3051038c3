//! CUDA without a GPU: the emulator's device.

#![allow(dead_code)]

use std::process::Command;
use std::sync::OnceLock;

use deepguard::cuda::Cuda;

/// Names the emulated device, to a whole process.
pub const DEVICE_VARIABLE: &str = "DG_EMULATOR_DEVICE";

/// The emulated device, with the kernels as PTX, for operations of any test.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(own_cuda)
}

/// The same with a stream of its own: for a test that records graphs, or whose errors are no other test's business.
pub fn own_cuda() -> Cuda {
    cuda_emulator::load().expect("the emulator");
    Cuda::with_ptx(0).expect("an emulated device; make toolkit, if there are no kernels")
}

/// Unwraps, adding what the emulator has to say about a kernel that failed.
pub fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        let fault = cuda_emulator::load().and_then(|emulator| emulator.last_fault());
        panic!("{error}\n{}", fault.unwrap_or_else(|e| e));
    })
}

/// Runs the tests of this program whose names contain `cuda` again, on an A100.
pub fn again_on_an_a100() {
    if std::env::var_os(DEVICE_VARIABLE).is_some() {
        return; // this is that process, or the device has been chosen from outside
    }
    let program = std::env::current_exe().expect("a running program");
    let output = Command::new(program).arg("cuda").env(DEVICE_VARIABLE, "a100").output().expect("it starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
