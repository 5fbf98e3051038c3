//! Finding the CUDA compiler.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest release whose PTX knows everything that the kernels use.
const OLDEST: u32 = 12;

/// A CUDA compiler that runs.
pub struct Nvcc {
    /// Path of the compiler, or a name found through PATH.
    pub path: PathBuf,
    /// Version of the compiler, such as 13.0.88.
    pub version: String,
}

/// The first that runs of `$NVCC`, PATH, `$CUDA_HOME`, the usual place, and what `make toolkit` installed.
///
/// PATH is looked at but not watched: it differs between terminals and editors, and every change would
/// rebuild.
pub fn find(out: &Path) -> Option<Nvcc> {
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Some(path) = env::var_os("NVCC") {
        if path.is_empty() {
            return None;
        }
        let path = PathBuf::from(path);
        let found = probe(&path).unwrap_or_else(|problem| panic!("NVCC={}: {problem}", path.display()));
        return Some(found);
    }
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let usual = PathBuf::from("/usr/local/cuda/bin/nvcc");
    // OUT_DIR lies within the target folder, wherever that is.
    let installed = out.ancestors().map(|folder| folder.join("cuda-toolkit/nvidia/cu13/bin/nvcc"));
    let candidates = [PathBuf::from("nvcc")].into_iter().chain(home).chain([usual]).chain(installed);
    for candidate in candidates {
        match probe(&candidate) {
            Ok(nvcc) => return Some(nvcc),
            Err(problem) if candidate.is_file() => {
                println!("cargo::warning=passing over {}: {problem}", candidate.display());
            }
            Err(_) => {}
        }
    }
    None
}

/// Asks a compiler for its version.
fn probe(path: &Path) -> Result<Nvcc, String> {
    let output = Command::new(path).arg("--version").output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.rsplit_once(", V")).map(|(_, version)| version.trim());
    let version = version.filter(|_| output.status.success()).ok_or("it does not tell its version")?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        return Err(format!("expected CUDA {OLDEST} or later, found {version}"));
    }
    if path.is_file() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(Nvcc { path: path.to_owned(), version: version.to_owned() })
}
