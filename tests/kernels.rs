//! Every CUDA kernel on the emulator, through the code that launches it, against the CPU backend.
//!
//! Operands are random bf16 numbers, as the device has them; the CPU computes with the same in f32. Outputs hold NaN
//! before. A kernel that writes bf16 may be off by twice what rounding the CPU's result to bf16 is off by; one that
//! writes f32, by twice what the CPU is off by, both measured against f64.
//!
//! The tests run on the emulator's H100, and all of them once more on its A100.

mod kernels {
    pub mod gemm;
    pub mod norm;
    pub mod optim;
    pub mod support;
}

use std::path::Path;
use std::process::{Command, Output};

/// Names the emulated device, to a whole process.
const DEVICE_VARIABLE: &str = "DG_EMULATOR_DEVICE";

#[test]
fn all_of_this_on_an_a100() {
    if std::env::var_os(DEVICE_VARIABLE).is_some() {
        return; // this is that process, or the device has been chosen from outside
    }
    let program = std::env::current_exe().expect("a running program");
    let output = Command::new(program).env(DEVICE_VARIABLE, "a100").output().expect("it starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `dg-run info` with the emulator beside this program.
fn info(device: &str) -> Output {
    let program = std::env::current_exe().expect("a running program");
    let emulator = program.parent().unwrap_or(Path::new("")).join("libcuda_emulator.so");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.arg("info").env("DG_EMULATOR", emulator).env(DEVICE_VARIABLE, device);
    command.output().expect("dg-run starts")
}

#[test]
fn dg_run_takes_the_emulator_and_says_so() {
    for (device, capability) in [("a100", "8.0"), ("h100", "9.0")] {
        let output = info(device);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("compute capability {capability}")), "{text}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("DG_EMULATOR: CUDA runs in "), "{said}");
    }
}

#[test]
fn the_device_is_the_one_asked_for() {
    let expected = match std::env::var(DEVICE_VARIABLE).as_deref() {
        Ok("a100") => 80,
        _ => 90,
    };
    assert_eq!(kernels::support::cuda().info().capability, expected);
}
