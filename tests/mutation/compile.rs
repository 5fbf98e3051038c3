//! nvcc for the kernels of this test, the one that compiled those of the crate.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The PTX of a file in `tests/mutation/kernels`, compiled once.
pub fn ptx(file: &str, arch: &str) -> Arc<str> {
    static SM80: OnceLock<Arc<str>> = OnceLock::new();
    static SM90A: OnceLock<Arc<str>> = OnceLock::new();
    let once = if file == "sm80" { &SM80 } else { &SM90A };
    Arc::clone(once.get_or_init(|| compile(file, arch).into()))
}

fn compile(file: &str, arch: &str) -> String {
    let nvcc: Option<&str> = option_env!("DG_NVCC");
    let nvcc = nvcc.expect("no nvcc was found: make toolkit, then build again");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().join("kernel.ptx");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(nvcc);
    command.current_dir(root).args(["-std=c++17", "-lineinfo", "-Ikernels", "-ptx"]);
    command
        .arg(format!("-arch=compute_{arch}"))
        .arg(format!("tests/mutation/kernels/{file}.cu"))
        .arg("-o")
        .arg(&to);
    let output = command.output().unwrap_or_else(|e| panic!("{nvcc}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(&to).expect("what nvcc has written")
}
