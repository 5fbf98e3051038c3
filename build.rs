//! Compiles `kernels/*.cu` and puts the results into the crate: machine code and PTX, a table of what each
//! kernel uses, the constants of `kernels/tile.h`, and the structs that kernels take by value. Without nvcc
//! the tables are empty and the crate computes on the CPU.
//!
//! Without the feature `cuda` there is nothing to do, and nvcc is not looked for.
//!
//! Environment: `NVCC`, `CUDA_HOME` (where nvcc is; `NVCC=` with nothing leaves the kernels out),
//! `DG_CUDA_ARCHS` (architectures to make machine code for, default `80,90a`), and nvcc's own `NVCC_*_FLAGS`
//! and `NVCC_CCBIN`.

#[path = "build/compile.rs"]
mod compile;
#[path = "build/emit.rs"]
mod emit;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/params.rs"]
mod params;
#[path = "build/ptxas.rs"]
mod ptxas;

use std::path::{Path, PathBuf};
use std::{env, fs};

use nvcc::Nvcc;

/// Options of the compiler besides the architecture.
const FLAGS: [&str; 2] = ["-std=c++17", "-lineinfo"];

/// Architectures of which the PTX is kept: what a GPU without machine code here compiles from, and what the
/// tests run.
const PTX_ARCHS: [&str; 2] = ["80", "90a"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=kernels");
    let sources = sources(&root.join("kernels"));
    let constants = emit::tile_constants(&root.join("kernels/tile.h"));
    emit::tile(&constants, &out.join("tile.rs"));
    emit::params(&sources, &constants, &out.join("params.rs"));

    let nvcc = nvcc::find(&out);
    if let Some(path) = nvcc.as_ref().and_then(|nvcc| nvcc.path.to_str()) {
        // For tests that compile kernels of their own.
        println!("cargo::rustc-env=DG_NVCC={path}");
    }
    let built = match &nvcc {
        Some(nvcc) => compile::all(nvcc, &root, &out.join("kernels"), &sources),
        None => Vec::new(),
    };
    for job in &built {
        ptxas::warnings(&job.log).for_each(|line| println!("cargo::warning={}: {line}", job.label()));
    }
    emit::kernels(nvcc.as_ref().map(|nvcc: &Nvcc| nvcc.version.as_str()), &built, &out.join("kernels.rs"));
}

/// Every file of the folder, by name.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    files
}
