//! The Rust files that the crate includes.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::PTX_ARCHS;
use crate::compile::Built;
use crate::{params, ptxas};

/// `#define NAME number` of `kernels/tile.h`, in its order.
pub fn tile_constants(header: &Path) -> Vec<(String, usize)> {
    let text = read(header);
    let definitions = text.lines().filter_map(|line| line.strip_prefix("#define "));
    let constant = |definition: &str| {
        let (name, number) = definition.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let constants = definitions.map(|definition| {
        constant(definition).unwrap_or_else(|| {
            panic!("{}: expected `#define NAME number`, found `#define {definition}`", header.display())
        })
    });
    constants.collect()
}

/// Rust constants; the module is `deepguard::cuda::tile`.
pub fn tile(constants: &[(String, usize)], to: &Path) {
    let constant = |(name, number): &(String, usize)| {
        format!("/// `{name}` of `kernels/tile.h`.\npub const {name}: usize = {number};\n")
    };
    write(to, &constants.iter().map(constant).collect::<String>());
}

/// Mirrors of the structs that kernels take by value; the module is `src/cuda/params.rs`.
pub fn params(sources: &[PathBuf], constants: &[(String, usize)], to: &Path) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let texts: Vec<_> = sources.iter().map(|path| (name(path), read(path))).collect();
    let constants = constants.iter().cloned().collect();
    write(to, &params::generate(&texts, &constants).unwrap_or_else(|problem| panic!("{problem}")));
}

/// Tables of compiled files and of kernels; types and meaning are in `src/cuda/images.rs`.
pub fn kernels(version: Option<&str>, built: &[Built], to: &Path) {
    let mut images = String::new();
    let mut table = String::new();
    for job in built {
        let (file, arch) = (&job.file, &job.arch);
        if job.wanted {
            let bytes = format!("include_bytes!({:?})", job.cubin);
            writeln!(images, "Image {{ file: {file:?}, arch: {arch:?}, code: Code::Cubin({bytes}) }},")
                .unwrap();
        }
        if PTX_ARCHS.contains(&arch.as_str()) {
            let text = format!("include_str!({:?})", job.ptx);
            writeln!(images, "Image {{ file: {file:?}, arch: {arch:?}, code: Code::Ptx({text}) }},").unwrap();
        }
        let ptx = read(&job.ptx);
        for kernel in ptxas::usage(&job.log) {
            let ptxas::Usage { name, registers, shared, stack, spills } = &kernel;
            let parameters = parameter_sizes(&ptx, name);
            writeln!(
                table,
                "KernelInfo {{ name: {name:?}, file: {file:?}, arch: {arch:?}, registers: {registers}, \
                 shared: {shared}, stack: {stack}, spills: {spills}, parameters: &{parameters:?} }},"
            )
            .unwrap();
        }
    }
    let rust = format!(
        "/// Version of the nvcc that compiled the kernels; `None` without one.\n\
         pub const NVCC_VERSION: Option<&str> = {version:?};\n\
         /// Every compiled file.\npub static IMAGES: &[Image] = &[\n{images}];\n\
         /// Every kernel on every architecture.\npub static KERNELS: &[KernelInfo] = &[\n{table}];\n"
    );
    write(to, &rust);
}

/// Bytes of each parameter of an entry, from its declaration in PTX.
fn parameter_sizes(ptx: &str, kernel: &str) -> Vec<usize> {
    let start = format!(".entry {kernel}(");
    let (_, rest) = ptx.split_once(&start).unwrap_or_else(|| panic!("PTX without the entry {kernel}"));
    let (list, _) = rest.split_once(')').unwrap_or_else(|| panic!("the parameters of {kernel} have no end"));
    let size = |declaration: &str| {
        let declaration = declaration.trim();
        let bits =
            declaration.split_whitespace().find_map(|word| word.strip_prefix(['.']).and_then(type_bits));
        let elements = declaration.split_once('[').and_then(|(_, n)| n.strip_suffix(']')?.parse().ok());
        bits.map(|bits| bits / 8 * elements.unwrap_or(1)).unwrap_or_else(|| panic!("{kernel}: {declaration}"))
    };
    list.split(',').filter(|declaration| !declaration.trim().is_empty()).map(size).collect()
}

/// Bits of a PTX type such as `u64`.
fn type_bits(word: &str) -> Option<usize> {
    word.strip_prefix(['b', 'f', 's', 'u'])?.parse().ok()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write(to: &Path, text: &str) {
    fs::write(to, text).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}
