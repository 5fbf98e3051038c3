//! NCCL's functions, whichever release of the library it is from 2.18 on.

use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::dist::library;
use crate::error::{Error, Result};

/// The library to load, and no other.
pub const NCCL_VARIABLE: &str = "DG_NCCL";

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// The first release that gives communicators up safely: 2.18.
const OLDEST: c_int = 21_800;

/// Bytes of an identity, by which ranks find each other.
pub(super) const ID_BYTES: usize = 128;

/// `ncclResult_t`. A number, as later releases have results that this program does not know.
pub(super) type Code = c_int;

/// `ncclSuccess`.
pub(super) const SUCCESS: Code = 0;
/// `ncclInProgress`: what was asked for is not done yet.
pub(super) const IN_PROGRESS: Code = 7;
/// The names of results by number.
const RESULTS: [&str; 9] = [
    "ncclSuccess",
    "ncclUnhandledCudaError",
    "ncclSystemError",
    "ncclInternalError",
    "ncclInvalidArgument",
    "ncclInvalidUsage",
    "ncclRemoteError",
    "ncclInProgress",
    "ncclTimeout",
];

/// `ncclUint8` and `ncclInt64` of `ncclDataType_t`, `ncclSum` of `ncclRedOp_t`.
pub(super) const UINT8: c_int = 1;
pub(super) const INT64: c_int = 4;
pub(super) const SUM: c_int = 0;

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;
/// `cudaStream_t`, which is the driver's `CUstream`.
pub(super) type Stream = *mut c_void;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub [u8; ID_BYTES]);

/// `ncclConfig_t` as of 2.17, with the size and release that it says: every later release fills in the rest.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    /// Calls return at once, and are asked about later.
    pub(super) fn nonblocking() -> Self {
        const MAGIC: u32 = 0xcafe_beef;
        const RELEASE: u32 = 21_700;
        /// `NCCL_CONFIG_UNDEF_INT`.
        const DEFAULT: c_int = c_int::MIN;
        Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: RELEASE,
            blocking: 0,
            cga_cluster_size: DEFAULT,
            min_ctas: DEFAULT,
            max_ctas: DEFAULT,
            net_name: std::ptr::null(),
            split_share: DEFAULT,
        }
    }
}

type GetVersion = unsafe extern "C" fn(*mut c_int) -> Code;
type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> Code;
type InitRank = unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> Code;
pub(super) type OfComm = unsafe extern "C" fn(Comm) -> Code;
type CommNumber = unsafe extern "C" fn(Comm, *mut c_int) -> Code;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> Code;
type AllGather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, Stream) -> Code;
type Broadcast = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> Code;
type ErrorString = unsafe extern "C" fn(Code) -> *const c_char;
type LastError = unsafe extern "C" fn(Comm) -> *const c_char;

/// An NCCL library that is loaded.
#[derive(Clone)]
pub(super) struct Api {
    get_version: GetVersion,
    get_unique_id: GetUniqueId,
    pub(super) init_rank: InitRank,
    async_error: CommNumber,
    pub(super) finalize: OfComm,
    pub(super) destroy: OfComm,
    pub(super) abort: OfComm,
    count: CommNumber,
    user_rank: CommNumber,
    pub(super) all_reduce: AllReduce,
    pub(super) all_gather: AllGather,
    pub(super) broadcast: Broadcast,
    error_string: ErrorString,
    last_error: LastError,
    /// By which it was found.
    pub(super) name: String,
    /// `NCCL 2.27.3`.
    pub(super) title: String,
}

impl Api {
    /// The first library that is there, if it is new enough.
    ///
    /// # Errors
    /// Of kind `Cluster`: with everything that was tried, or with what was found and expected.
    pub(super) fn load() -> Result<Self> {
        let names = library::names(NCCL_VARIABLE, &NAMES);
        let mut api = library::load("NCCL", NCCL_VARIABLE, &names, RTLD_NOW | RTLD_LOCAL, Api::of)?;
        let mut release = 0;
        // SAFETY: the pointer is valid; the function may be called before all others.
        let code = unsafe { (api.get_version)(&mut release) };
        api.check("ncclGetVersion", code, std::ptr::null_mut())?;
        api.title = format!("NCCL {}", version(release));
        match release >= OLDEST {
            true => Ok(api),
            false => Err(Error::cluster(format!(
                "{}: expected NCCL {} or later, found {}; install a later one, or set {NCCL_VARIABLE} to its library",
                api.name,
                version(OLDEST),
                version(release)
            ))),
        }
    }

    fn of(library: Library, name: &str) -> std::result::Result<Self, libloading::Error> {
        // SAFETY: the functions have these types in every release from 2.18 on, and none of the pointers
        // outlives the library, which is never unloaded: it has threads of its own.
        let api = unsafe {
            Api {
                get_version: *library.get::<GetVersion>(b"ncclGetVersion\0")?,
                get_unique_id: *library.get::<GetUniqueId>(b"ncclGetUniqueId\0")?,
                init_rank: *library.get::<InitRank>(b"ncclCommInitRankConfig\0")?,
                async_error: *library.get::<CommNumber>(b"ncclCommGetAsyncError\0")?,
                finalize: *library.get::<OfComm>(b"ncclCommFinalize\0")?,
                destroy: *library.get::<OfComm>(b"ncclCommDestroy\0")?,
                abort: *library.get::<OfComm>(b"ncclCommAbort\0")?,
                count: *library.get::<CommNumber>(b"ncclCommCount\0")?,
                user_rank: *library.get::<CommNumber>(b"ncclCommUserRank\0")?,
                all_reduce: *library.get::<AllReduce>(b"ncclAllReduce\0")?,
                all_gather: *library.get::<AllGather>(b"ncclAllGather\0")?,
                broadcast: *library.get::<Broadcast>(b"ncclBroadcast\0")?,
                error_string: *library.get::<ErrorString>(b"ncclGetErrorString\0")?,
                last_error: *library.get::<LastError>(b"ncclGetLastError\0")?,
                name: name.to_owned(),
                title: "NCCL".to_owned(),
            }
        };
        std::mem::forget(library);
        Ok(api)
    }

    /// A new identity, by which ranks find each other.
    pub(super) fn unique_id(&self) -> Result<[u8; ID_BYTES]> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: the pointer is valid.
        let code = unsafe { (self.get_unique_id)(&mut id) };
        self.check("ncclGetUniqueId", code, std::ptr::null_mut())?;
        Ok(id.0)
    }

    /// What the communicator has come to: the result of the call before, or that it is not done.
    pub(super) fn state(&self, comm: Comm) -> Result<Code> {
        self.number("ncclCommGetAsyncError", self.async_error, comm)
    }

    /// Rank and ranks, as the communicator has them.
    pub(super) fn place(&self, comm: Comm) -> Result<(usize, usize)> {
        let rank = self.number("ncclCommUserRank", self.user_rank, comm)?;
        let world = self.number("ncclCommCount", self.count, comm)?;
        Ok((rank as usize, world as usize))
    }

    fn number(&self, call: &str, function: CommNumber, comm: Comm) -> Result<c_int> {
        let mut number = 0;
        // SAFETY: whoever has the communicator has not given it up, and `number` outlives the call.
        let code = unsafe { function(comm, &mut number) };
        self.check(call, code, comm)?;
        Ok(number)
    }

    /// Whether `call` has succeeded or begun; the communicator may be null.
    pub(super) fn check(&self, call: &str, code: Code, comm: Comm) -> Result<()> {
        match code {
            SUCCESS | IN_PROGRESS => Ok(()),
            code => Err(self.complaint(call, code, comm)),
        }
    }

    /// The error of a call, by the name of its result and with what the library says.
    pub(super) fn complaint(&self, call: &str, code: Code, comm: Comm) -> Error {
        let known = usize::try_from(code).ok().and_then(|code| RESULTS.get(code));
        let known = known.map_or("a result that this program does not know", |name| *name);
        // SAFETY: both take any result and any communicator that was not given up, or none, and return a text
        // that stays until the next call, or null.
        let texts = unsafe { [text((self.error_string)(code)), text((self.last_error)(comm))] };
        let said: Vec<String> = texts.into_iter().flatten().collect();
        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(": ")) };
        Error::cluster(format!("{}: {call} failed with code {code}, {known}{said}", self.title))
    }
}

/// A C string that is not empty.
///
/// # Safety
/// It is null, or ends with a null byte.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: by the caller.
    let text = (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })?;
    let text = text.to_string_lossy().trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// A release as people write it. `NCCL_VERSION` has been in another way from 2.9 on.
fn version(release: c_int) -> String {
    let [major, minor] = if release < 10_000 { [1000, 100] } else { [10_000, 100] };
    format!("{}.{}.{}", release / major, release % major / minor, release % minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_written_as_people_do() {
        for (release, text) in [(22_703, "2.27.3"), (21_800, "2.18.0"), (2_804, "2.8.4"), (23_203, "2.32.3")]
        {
            assert_eq!(version(release), text);
        }
    }

    #[test]
    fn the_configuration_has_the_layout_of_2_17() {
        assert_eq!((size_of::<Config>(), std::mem::offset_of!(Config, net_name)), (48, 32));
    }
}
