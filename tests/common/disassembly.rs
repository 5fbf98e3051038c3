//! Machine code of the compiled kernels, as text.

use std::path::{Path, PathBuf};
use std::process::Command;

use deepguard::cuda::images::{Code, Image};

/// A program of the toolkit beside the build, or of an installed one.
pub fn tool(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp lies in the target folder");
    let ours = target.join("cuda-toolkit/nvidia/cu13/bin").join(name);
    if ours.is_file() { ours } else { name.into() }
}

/// nvdisasm's listing of the code alone.
pub fn listing(image: &Image) -> String {
    let Code::Cubin(bytes) = image.code else { panic!("machine code of {}", image.file) };
    listing_of(bytes)
}

/// The same of machine code that is not of the library.
pub fn listing_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cubin = folder.path().join("cubin");
    std::fs::write(&cubin, bytes).expect("a file");
    let output = Command::new(tool("nvdisasm")).arg("-c").arg(&cubin).output();
    let output = output.expect("nvdisasm runs: make toolkit");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `HMMA` of `/*0120*/ @P0 HMMA.16816.F32.BF16 R4, … ;`
pub fn mnemonic(line: &str) -> Option<&str> {
    let (_, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    let name = if first.starts_with('@') { words.next()? } else { first };
    name.split(['.', ';']).next()
}
