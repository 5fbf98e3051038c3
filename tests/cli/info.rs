//! `dg-run info`.

use deepguard::cuda::images::{KERNELS, NVCC_VERSION};
use serde_json::Value;

use super::dg_run;

/// Standard output and error of a call that ends with 0.
fn info(arguments: &[&str], emulator: Option<&str>) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dg_run(folder.path());
    command.env_remove("DG_EMULATOR").arg("info").args(arguments);
    if let Some(path) = emulator {
        command.env("DG_EMULATOR", path);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    (stdout, stderr)
}

#[test]
fn tells_version_and_kernels() {
    let (text, _) = info(&["--threads", "3"], None);
    assert!(text.starts_with(&format!("dg-run {}\n", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains(" 3 threads"), "{text}");
    match NVCC_VERSION {
        Some(version) => assert!(text.contains(&format!("by nvcc {version} for sm_")), "{text}"),
        None => assert!(text.contains("CUDA kernels: none"), "{text}"),
    }
    for kernel in KERNELS {
        let line = text.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(kernel.name) && words.next() == Some(&format!("sm_{}", kernel.arch))
        });
        let line =
            line.unwrap_or_else(|| panic!("{} for sm_{} is missing: {text}", kernel.name, kernel.arch));
        assert!(line.split_whitespace().any(|word| word == kernel.registers.to_string()), "{line}");
    }
}

#[test]
fn json_has_the_same() {
    let json: Value = serde_json::from_str(&info(&["--json"], None).0).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["nvcc"].as_str(), NVCC_VERSION);
    assert_eq!(json["kernels"].as_array().unwrap().len(), KERNELS.len());
    let devices = json["devices"].as_array().unwrap();
    assert!(devices.is_empty() || json["no_devices"].is_null(), "{json}");
    assert_ne!(json["evaluation"].is_null(), json["no_evaluation"].is_null(), "{json}");
    assert_ne!(json["mpi"].is_null(), json["no_mpi"].is_null(), "{json}");
    assert_ne!(json["nccl"].is_null(), json["no_nccl"].is_null(), "{json}");
    assert!(json["cpu"]["threads"].as_u64().unwrap() > 0);
}

#[test]
fn an_emulator_that_is_none_is_named() {
    for (path, problem) in [("there/is/none.so", "cannot open the library"), ("libm.so.6", "another library")]
    {
        let (text, _) = info(&[], Some(path));
        assert!(text.contains(&format!("CUDA driver: {path}, by DG_EMULATOR")), "{text}");
        assert!(
            text.contains(&format!("CUDA devices: DG_EMULATOR={path}: ")) && text.contains(problem),
            "{text}"
        );
    }
}
