//! Error codes of the driver API.

use std::ffi::CStr;

use super::abi::Out;
use super::api;

/// A result code as C sees it.
pub type Code = i32;

/// An error code of the driver API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub Code);

/// What an entry point does: nothing, or an error code.
pub type Result<T = ()> = std::result::Result<T, Status>;

macro_rules! statuses {
    ($($code:literal $name:ident $text:literal,)*) => {
        impl Status {
            $(#[doc = $text] pub const $name: Status = Status($code);)*
        }

        /// Name and description of a code.
        fn describe(code: Code) -> Option<(&'static CStr, &'static CStr)> {
            match code {
                0 => Some((c"CUDA_SUCCESS", c"no error")),
                $($code => Some((
                    c_str(concat!("CUDA_ERROR_", stringify!($name), "\0")),
                    c_str(concat!($text, "\0")),
                )),)*
                _ => None,
            }
        }
    };
}

statuses! {
    1 INVALID_VALUE "invalid argument",
    2 OUT_OF_MEMORY "out of memory",
    3 NOT_INITIALIZED "initialization error",
    4 DEINITIALIZED "driver shutting down",
    100 NO_DEVICE "no CUDA-capable device is detected",
    101 INVALID_DEVICE "invalid device ordinal",
    200 INVALID_IMAGE "device kernel image is invalid",
    201 INVALID_CONTEXT "invalid device context",
    205 MAP_FAILED "mapping of buffer object failed",
    209 NO_BINARY_FOR_GPU "no kernel image is available for execution on the device",
    217 PEER_ACCESS_UNSUPPORTED "peer access is not supported between these two devices",
    218 INVALID_PTX "a PTX JIT compilation failed",
    222 UNSUPPORTED_PTX_VERSION "the provided PTX was compiled with an unsupported toolchain",
    301 FILE_NOT_FOUND "file not found",
    400 INVALID_HANDLE "invalid resource handle",
    401 ILLEGAL_STATE "the operation cannot be performed in the present state",
    402 LOSSY_QUERY "attempted introspection would be semantically lossy",
    500 NOT_FOUND "named symbol not found",
    600 NOT_READY "device not ready",
    700 ILLEGAL_ADDRESS "an illegal memory access was encountered",
    701 LAUNCH_OUT_OF_RESOURCES "too many resources requested for launch",
    702 LAUNCH_TIMEOUT "the launch timed out and was terminated",
    705 PEER_ACCESS_NOT_ENABLED "peer access has not been enabled",
    708 PRIMARY_CONTEXT_ACTIVE "cannot set while device is active in this process",
    709 CONTEXT_IS_DESTROYED "context is destroyed",
    710 ASSERT "device-side assert triggered",
    712 HOST_MEMORY_ALREADY_REGISTERED "part or all of the requested memory range is already mapped",
    713 HOST_MEMORY_NOT_REGISTERED "pointer does not correspond to a registered memory region",
    715 ILLEGAL_INSTRUCTION "an illegal instruction was encountered",
    716 MISALIGNED_ADDRESS "misaligned address",
    719 LAUNCH_FAILED "unspecified launch failure",
    720 COOPERATIVE_LAUNCH_TOO_LARGE "too many blocks in cooperative launch",
    800 NOT_PERMITTED "operation not permitted",
    801 NOT_SUPPORTED "operation not supported",
    900 STREAM_CAPTURE_UNSUPPORTED "operation not permitted when stream is capturing",
    901 STREAM_CAPTURE_INVALIDATED "operation failed due to a previous error during capture",
    902 STREAM_CAPTURE_MERGE "operation would result in a merge of separate capture sequences",
    903 STREAM_CAPTURE_UNMATCHED "capture was not ended in the same stream as it began",
    904 STREAM_CAPTURE_UNJOINED "capturing stream has unjoined work",
    905 STREAM_CAPTURE_ISOLATION "dependency created on uncaptured work in another stream",
    906 STREAM_CAPTURE_IMPLICIT "operation would make the legacy stream depend on a capturing blocking stream",
    907 CAPTURED_EVENT "operation not permitted on an event last recorded in a capturing stream",
    908 STREAM_CAPTURE_WRONG_THREAD "attempt to terminate a thread-local capture sequence from another thread",
    910 GRAPH_EXEC_UPDATE_FAILURE "the graph update was not performed because it included changes which violated constraints",
    912 INVALID_CLUSTER_SIZE "cluster misconfiguration",
    999 UNKNOWN "unknown error",
}

/// A string literal that ends in its terminator.
fn c_str(text: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or(c"")
}

/// Makes a code of a result.
pub fn code(result: Result) -> Code {
    result.err().map_or(0, |status| status.0)
}

api! {
    fn cuGetErrorName(error: Code, text: Out<*const std::ffi::c_char>) {
        match describe(error) {
            Some((name, _)) => text.set(name.as_ptr()),
            None => text.set(std::ptr::null()).and(Err(Status::INVALID_VALUE)),
        }
    }

    fn cuGetErrorString(error: Code, text: Out<*const std::ffi::c_char>) {
        match describe(error) {
            Some((_, description)) => text.set(description.as_ptr()),
            None => text.set(std::ptr::null()).and(Err(Status::INVALID_VALUE)),
        }
    }
}
