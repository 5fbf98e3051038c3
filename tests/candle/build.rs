//! Stands in for the libraries that candle has every program linked with: `standins.c` for those of the CUDA toolkit, the
//! emulator for the driver.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=standins.c");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for library in ["cublas", "cublasLt", "curand", "nvrtc", "cudart"] {
        compile(&out.join(format!("lib{library}.so")));
    }
    // OUT_DIR is target/profile/build/package/out; cargo puts the emulator's library into target/profile/deps.
    let profile = out.ancestors().nth(3).expect("a target folder");
    link(&profile.join("deps/libcuda_emulator.so"), &out.join("libcuda.so"));
    println!("cargo::rustc-link-search=native={}", out.display());
    // Of the functions that candle might call, the stand-ins have those that it does call.
    println!("cargo::rustc-link-arg-tests=-Wl,--unresolved-symbols=ignore-all");
    println!("cargo::rustc-link-arg-tests=-Wl,-z,lazy");
}

fn compile(library: &Path) {
    let mut cc = Command::new(env::var_os("CC").unwrap_or("cc".into()));
    let status = cc.args(["-shared", "-fPIC", "standins.c", "-o"]).arg(library).status();
    assert!(status.is_ok_and(|status| status.success()), "{cc:?} failed");
}

fn link(from: &Path, to: &Path) {
    let _ = std::fs::remove_file(to); // there may be none
    symlink(from, to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}
