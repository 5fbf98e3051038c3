//! Results of the build script: machine code and PTX of `kernels/` by architecture, and the resources of each
//! kernel.

/// A compiled kernel file.
#[derive(Debug)]
pub struct Image {
    /// Name of the file in `kernels/`, without `.cu`.
    pub file: &'static str,
    /// Architecture, as in `sm_90a`.
    pub arch: &'static str,
    /// Machine code or PTX.
    pub code: Code,
}

/// A form of code that a driver loads.
#[derive(Debug)]
pub enum Code {
    /// Machine code (cubin), for one architecture.
    Cubin(&'static [u8]),
    /// PTX text that the driver compiles, also for later architectures.
    Ptx(&'static str),
}

impl Code {
    /// Name of the form in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Code::Cubin(_) => "machine code",
            Code::Ptx(_) => "PTX",
        }
    }
}

/// Resources of one kernel on one architecture, as ptxas reports them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KernelInfo {
    /// Name of the kernel.
    pub name: &'static str,
    /// Name of its file in `kernels/`, without `.cu`.
    pub file: &'static str,
    /// Architecture, as in `sm_90a`.
    pub arch: &'static str,
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of static shared memory of a block, without the dynamic shared memory of a launch.
    pub shared: usize,
    /// Bytes of stack of a thread.
    pub stack: usize,
    /// Bytes of register spills, stores and loads, of a thread.
    pub spills: usize,
    /// Bytes of each parameter.
    pub parameters: &'static [usize],
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Architectures that there is code for, each once, in the order of `images`.
pub fn architectures(images: &[Image]) -> Vec<&'static str> {
    let mut archs = Vec::new();
    for image in images {
        if !archs.contains(&image.arch) {
            archs.push(image.arch);
        }
    }
    archs
}

/// The image of `file` for a device of this compute capability (90 for 9.0): machine code for exactly it,
/// else the PTX of the newest architecture that is not newer. `ptx_only` leaves out machine code.
pub fn choose(
    images: &'static [Image],
    file: &str,
    capability: u32,
    ptx_only: bool,
) -> Option<&'static Image> {
    let of_file = || images.iter().filter(|image| image.file == file);
    let exact = of_file()
        .find(|image| matches!(image.code, Code::Cubin(_)) && !ptx_only && number(image.arch) == capability);
    let ptx =
        of_file().filter(|image| matches!(image.code, Code::Ptx(_)) && compiles(image.arch, capability));
    exact.or_else(|| ptx.max_by_key(|image| number(image.arch)))
}

/// A version of PTX that older drivers compile, too, and by which every file of `kernels/` assembles.
pub const LOWERED_PTX: &str = "8.3";

/// PTX of the compiler's version as that of [`LOWERED_PTX`].
pub fn lowered(ptx: &str) -> String {
    const VERSION: &str = "\n.version ";
    let Some((before, behind)) = ptx.split_once(VERSION) else { return ptx.to_owned() };
    let rest = behind.find('\n').map_or("", |end| &behind[end..]);
    format!("{before}{VERSION}{LOWERED_PTX}{rest}")
}

/// Whether PTX of `arch` runs on a device: of an architecture with a letter, only on that very one.
fn compiles(arch: &str, capability: u32) -> bool {
    let portable = arch.bytes().all(|b| b.is_ascii_digit());
    number(arch) == capability || portable && number(arch) <= capability
}

/// 90 of `90a`.
fn number(arch: &str) -> u32 {
    let digits = arch.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    digits.parse().expect("build/ checks architectures")
}

#[cfg(test)]
mod tests {
    use super::*;

    static IMAGES: [Image; 6] = [
        Image { file: "norm", arch: "80", code: Code::Cubin(b"80") },
        Image { file: "norm", arch: "80", code: Code::Ptx("80") },
        Image { file: "norm", arch: "86", code: Code::Ptx("86") },
        Image { file: "norm", arch: "90a", code: Code::Cubin(b"90a") },
        Image { file: "norm", arch: "90a", code: Code::Ptx("90a") },
        Image { file: "gemm_sm90", arch: "90a", code: Code::Ptx("90a") },
    ];

    fn chosen(file: &str, capability: u32, ptx_only: bool) -> Option<(&'static str, &'static str)> {
        choose(&IMAGES, file, capability, ptx_only).map(|image| (image.arch, image.code.name()))
    }

    #[test]
    fn machine_code_only_for_the_very_architecture() {
        assert_eq!(chosen("norm", 80, false), Some(("80", "machine code")));
        assert_eq!(chosen("norm", 90, false), Some(("90a", "machine code")));
        assert_eq!(chosen("norm", 89, false), Some(("86", "PTX")));
        assert_eq!(chosen("norm", 80, true), Some(("80", "PTX")));
        assert_eq!(chosen("norm", 90, true), Some(("90a", "PTX")));
    }

    #[test]
    fn ptx_with_a_letter_is_not_for_later_architectures() {
        assert_eq!(chosen("norm", 100, false), Some(("86", "PTX")));
        assert_eq!(chosen("gemm_sm90", 90, false), Some(("90a", "PTX")));
        assert_eq!(chosen("gemm_sm90", 100, false), None);
        assert_eq!(chosen("gemm_sm90", 80, false), None);
    }

    #[test]
    fn lowered_ptx_differs_in_its_version_alone() {
        let ptx = "//\n// Generated\n//\n\n.version 9.0\n.target sm_80\n.address_size 64\n";
        assert_eq!(lowered(ptx), ptx.replace("9.0", "8.3"));
        assert_eq!(lowered("no version"), "no version");
    }

    #[test]
    fn nothing_for_older_devices() {
        assert_eq!(chosen("norm", 75, false), None);
        assert_eq!(architectures(&IMAGES), ["80", "86", "90a"]);
    }
}
