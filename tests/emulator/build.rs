//! Names the library as the driver is named, so that whoever opens `libcuda.so` gets the one that is already
//! loaded.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
}
