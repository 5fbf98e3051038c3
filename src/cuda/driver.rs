//! Reaching the CUDA driver: whether there is one, or the emulator in its place, and which devices it has.

#[cfg(unix)]
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result};
#[cfg(unix)]
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::images::NVCC_VERSION;
use crate::error::{Error, Result};

/// For developers of kernels: path of a library to use in place of the driver, such as the emulator of the
/// tests.
pub const EMULATOR_VARIABLE: &str = "DG_EMULATOR";

/// A device that the driver knows.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeviceInfo {
    /// Number of the device.
    pub ordinal: usize,
    /// Name of the device.
    pub name: String,
    /// Identity, which no other device of any machine has: `GPU-…`, as nvidia-smi writes it. Parts of a GPU
    /// (MIG) have identities of their own.
    pub uuid: String,
    /// Compute capability: 90 for 9.0.
    pub capability: u32,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block can have.
    pub shared_memory: usize,
    /// Bytes of memory.
    pub memory: usize,
}

/// Makes sure that a driver is there, and starts it. Any call into cudarc without one would panic.
pub(super) fn start() -> Result<()> {
    // An error is kept as text, as every later call has to get it as well.
    static EMULATOR: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    if let Some(path) = emulator() {
        EMULATOR
            .get_or_init(|| load_emulator(path).map_err(|e| e.to_string()))
            .clone()
            .map_err(Error::device)?;
    }
    if !has_driver() {
        return Err(Error::device(
            "no CUDA driver: expected a library libcuda.so or libcuda.so.1, found none; install the NVIDIA driver, or \
             compute on the CPU",
        ));
    }
    result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Error::device(
            "no CUDA device: there is a driver, but it finds no GPU; see what nvidia-smi and CUDA_VISIBLE_DEVICES say, \
             or compute on the CPU (`device` cpu)",
        ),
        _ => complaint("the CUDA driver does not start", e),
    })?;
    check_version()
}

/// Oldest driver API whose PTX can say all that the kernels do; [`LOWERED_PTX`](super::images::LOWERED_PTX)
/// is its version.
const OLDEST_API: i32 = 12030;

/// The driver API's version, as in 13000 for 13.0.
fn version() -> Result<i32> {
    let mut found = 0;
    // SAFETY: the pointer is valid; the driver has been started.
    let status = unsafe { sys::cuDriverGetVersion(&mut found) };
    status.result().map_err(|e| complaint("the CUDA driver does not tell its version", e))?;
    Ok(found)
}

/// Whether the driver is older than the CUDA that the kernels are compiled with: it knows neither its machine
/// code nor the version of its PTX.
pub fn is_older_than_compiler() -> Result<bool> {
    Ok(version()? < NVCC_VERSION.map_or(0, api_version))
}

/// Refuses drivers that know none of the forms in which there are kernels.
fn check_version() -> Result<()> {
    let (found, needed) = (version()?, NVCC_VERSION.map_or(0, api_version).min(OLDEST_API));
    if found >= needed {
        return Ok(());
    }
    let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    Err(Error::device(format!(
        "the CUDA driver is too old: expected one for CUDA {} or later, found one for CUDA {}; update the NVIDIA driver, \
         or compute on the CPU (`device` cpu)",
        text(needed),
        text(found)
    )))
}

/// 13000 of `13.0.88`.
fn api_version(nvcc: &str) -> i32 {
    let mut numbers = nvcc.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    next() * 1000 + next() * 10
}

/// The library that `DG_EMULATOR` names.
pub fn emulator() -> Option<PathBuf> {
    std::env::var_os(EMULATOR_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The emulator is a stand-in for a shared object.
#[cfg(not(unix))]
fn load_emulator(path: PathBuf) -> Result<()> {
    Err(Error::device(format!("{EMULATOR_VARIABLE}={}: expected Linux", path.display())))
}

/// Opens the emulator such that cudarc's calls reach it, and says so.
#[cfg(unix)]
fn load_emulator(path: PathBuf) -> Result<()> {
    // SAFETY: whoever sets the variable vouches for the library, as with any program that is started.
    let emulator = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let emulator = emulator.map_err(|e| {
        let reason = std::error::Error::source(&e).map_or(e.to_string(), ToString::to_string);
        let what = format!("{EMULATOR_VARIABLE}={}: cannot open the library", path.display());
        Error::device(what).with_source(reason)
    })?;
    // SAFETY: the library is open already if it has this name; if not, a driver is opened, which is harmless.
    let driver = unsafe { Library::open(Some("libcuda.so"), RTLD_NOW) }.ok();
    let entry = |library: &Library| {
        // SAFETY: the symbol is only compared, never called.
        unsafe { library.get::<*mut c_void>(b"cuInit") }.ok().map(|symbol| symbol.as_raw_ptr())
    };
    // cudarc opens libcuda.so by name, or, where another crate wants it linked, takes what the program is
    // linked with.
    let answering = [driver.as_ref().and_then(entry), entry(&Library::this())];
    let own = entry(&emulator);
    if own.is_none() || answering != [own; 2] {
        return Err(Error::device(format!(
            "{EMULATOR_VARIABLE}={}: expected a CUDA driver of the SONAME libcuda.so, found another library; build \
             the emulator with cargo build -p cuda-emulator",
            path.display()
        )));
    }
    std::mem::forget((emulator, driver)); // stays for as long as cudarc may call it
    eprintln!("{EMULATOR_VARIABLE}: CUDA runs in {}", path.display());
    Ok(())
}

/// Names of the driver's library, which are among those that cudarc tries.
const DRIVER_LIBRARIES: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so", "libcuda.so.1"] };

/// Whether there is a driver, or something in its place: without one, there is nothing to say about CUDA.
///
/// Not `cudarc::driver::sys::is_culib_present`, which is gone where another crate has cudarc link the driver.
pub fn has_driver() -> bool {
    let opens = |name: &&str| {
        // SAFETY: loads the driver library, whose initialisers are meant to run in any program.
        unsafe { libloading::Library::new(*name) }.is_ok()
    };
    emulator().is_some() || DRIVER_LIBRARIES.iter().any(opens)
}

/// All devices; an error where there is no driver.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    start()?;
    let count = result::device::get_count().map_err(|e| complaint("cannot count CUDA devices", e))?;
    (0..count as usize).map(device).collect()
}

/// One device; the driver has been started.
pub(super) fn device(ordinal: usize) -> Result<DeviceInfo> {
    let what = || format!("CUDA device {ordinal}");
    let number = i32::try_from(ordinal).map_err(|_| Error::usage(format!("{}: no such device", what())))?;
    let device = result::device::get(number).map_err(|e| complaint(what(), e))?;
    let attribute = |attribute| {
        // SAFETY: the driver has just returned this device.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map_err(|e| complaint(what(), e)).map(|value| value as u32)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(DeviceInfo {
        ordinal,
        name: result::device::get_name(device).map_err(|e| complaint(what(), e))?,
        uuid: uuid(device).map_err(|e| complaint(what(), e))?,
        capability: major * 10 + minor,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        // SAFETY: the driver has just returned this device.
        memory: unsafe { result::device::total_mem(device) }.map_err(|e| complaint(what(), e))?,
    })
}

/// Not cudarc's wrapper of the first version, to which all parts of a GPU are the same.
fn uuid(device: sys::CUdevice) -> std::result::Result<String, DriverError> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: the pointer is valid for the call, and the driver has just returned the device.
    unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, device) }.result()?;
    let hex: String = uuid.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    Ok(format!("GPU-{}", parts.join("-")))
}

/// An error of the driver during `what`.
pub(super) fn complaint(what: impl std::fmt::Display, error: DriverError) -> Error {
    Error::device(what.to_string()).with_source(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::api_version;

    #[test]
    fn versions_of_nvcc_are_those_of_the_api() {
        assert_eq!(api_version("13.0.88"), 13000);
        assert_eq!(api_version("12.8.61"), 12080);
    }
}
