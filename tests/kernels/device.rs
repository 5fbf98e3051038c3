use std::path::Path;
use std::process::{Command, Output};

use crate::emulator::{self, DEVICE_VARIABLE, cuda};
use crate::places;

/// `dg-run info` with the emulator beside this program.
fn info(device: &str) -> Output {
    let program = std::env::current_exe().expect("a running program");
    let emulator = program.parent().unwrap_or(Path::new("")).join("libcuda_emulator.so");
    let mut command = Command::new(places::dg_run());
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
fn the_cuda_device_is_the_one_asked_for() {
    if emulator::on_a_gpu() {
        return emulator::skipped("any GPU will do");
    }
    let expected = match std::env::var(DEVICE_VARIABLE).as_deref() {
        Ok("a100") => 80,
        _ => 90,
    };
    assert_eq!(cuda().info().capability, expected);
}
