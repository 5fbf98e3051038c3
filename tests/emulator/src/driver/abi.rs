//! Types as they cross the C boundary.
//!
//! A C caller vouches for the pointers it passes. [`Out`], [`In`] and [`Text`] carry that promise: they only
//! come into being as parameters of entry points, which are `unsafe` to call, and so may be used without
//! further ado.

use std::ffi::{CStr, c_char, c_void};

use super::status::{Result, Status};

/// A handle that C sees as an opaque pointer.
pub type Handle = u64;
/// Ordinal of a device.
pub type Device = i32;
/// Function on the host that a stream calls.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);
/// Function on the host that tells whether something is done: 0 for not yet.
pub type PollFunction = unsafe extern "C" fn(*mut c_void) -> i32;

/// Where a C caller wants a result, or keeps a value to be changed.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// A pointer out of another structure that C passed.
    ///
    /// # Safety
    /// It is null or valid for as many values as are read or written through it.
    pub unsafe fn new(pointer: *mut T) -> Self {
        Out(pointer)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Refuses null before anything is done.
    pub fn check(self) -> Result {
        if self.0.is_null() { Err(Status::INVALID_VALUE) } else { Ok(()) }
    }

    /// Writes a value; null is an invalid value.
    pub fn set(self, value: T) -> Result {
        self.check()?;
        // SAFETY: not null, and valid as the C caller promises.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes a value unless it is not wanted.
    pub fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Reads the value; null is an invalid value.
    pub fn get(self) -> Result<T> {
        self.check()?;
        // SAFETY: as in `set`.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// Writes several values.
    pub fn set_all(self, values: impl IntoIterator<Item = T>) -> Result {
        self.check()?;
        for (i, value) in values.into_iter().enumerate() {
            // SAFETY: as in `set`; C passed the length along, by which the values were limited.
            unsafe { self.0.add(i).write_unaligned(value) };
        }
        Ok(())
    }

    /// The pointer.
    pub fn pointer(self) -> *mut T {
        self.0
    }
}

/// A value, or the first of several, that a C caller passes.
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// A pointer out of another structure that C passed.
    ///
    /// # Safety
    /// It is null or valid for as many values as are read through it.
    pub unsafe fn new(pointer: *const T) -> Self {
        In(pointer)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The value; null is an invalid value.
    pub fn get(self) -> Result<T> {
        self.at(0)
    }

    /// The value at an index within the length that C passed along.
    pub fn at(self, index: usize) -> Result<T> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and valid as the C caller promises.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// `len` values; null is fine for none.
    pub fn all(self, len: usize) -> Result<Vec<T>> {
        (0..len).map(|i| self.at(i)).collect()
    }
}

/// A C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// The characters; null and other encodings than UTF-8 are invalid values.
    pub fn get<'a>(self) -> Result<&'a str> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and a C string as the C caller promises.
        unsafe { CStr::from_ptr(self.0) }.to_str().map_err(|_| Status::INVALID_VALUE)
    }
}

/// `CUipcMemHandle`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcMemHandle {
    /// Whatever the driver needs.
    pub reserved: [u8; 64],
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The stream.
    pub stream: Handle,
    /// Attributes.
    pub attributes: *const LaunchAttribute,
    /// How many.
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchAttribute {
    /// Which.
    pub id: u32,
    /// Padding.
    pub pad: u32,
    /// The union of values.
    pub value: LaunchAttributeValue,
}

/// `CUlaunchAttributeValue` as words.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct LaunchAttributeValue(pub [u32; 16]);

/// `CUDA_KERNEL_NODE_PARAMS_v2`, of which version 1 is the beginning.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelNodeParams {
    /// The function.
    pub function: Handle,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Pointers to the parameters.
    pub params: *mut *mut c_void,
    /// Or a buffer of them.
    pub extra: *mut *mut c_void,
    /// A kernel handle instead of a function.
    pub kernel: Handle,
    /// The context.
    pub context: Handle,
}

/// The first version of [`KernelNodeParams`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelNodeParamsV1 {
    /// The function.
    pub function: Handle,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Pointers to the parameters.
    pub params: *mut *mut c_void,
    /// Or a buffer of them.
    pub extra: *mut *mut c_void,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemsetNodeParams {
    /// Destination.
    pub destination: u64,
    /// Bytes from row to row.
    pub pitch: usize,
    /// The value.
    pub value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub element_size: u32,
    /// Elements of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostNodeParams {
    /// The function.
    pub function: Option<HostFunction>,
    /// Its argument.
    pub data: *mut c_void,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memcpy2D {
    /// Source.
    pub source: Memcpy2DSide,
    /// Destination.
    pub destination: Memcpy2DSide,
    /// Bytes of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// One side of [`Memcpy2D`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memcpy2DSide {
    /// Bytes to the left.
    pub x: usize,
    /// Rows above.
    pub y: usize,
    /// `CUmemorytype`.
    pub memory_type: u32,
    /// Host address.
    pub host: u64,
    /// Device address.
    pub device: u64,
    /// Array.
    pub array: Handle,
    /// Bytes from row to row.
    pub pitch: usize,
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memcpy3D {
    /// Source.
    pub source: Memcpy3DSide,
    /// Destination.
    pub destination: Memcpy3DSide,
    /// Bytes of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}

/// One side of [`Memcpy3D`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memcpy3DSide {
    /// Bytes to the left.
    pub x: usize,
    /// Rows above.
    pub y: usize,
    /// Slices before.
    pub z: usize,
    /// Level of detail; zero.
    pub level: usize,
    /// `CUmemorytype`.
    pub memory_type: u32,
    /// Host address.
    pub host: u64,
    /// Device address.
    pub device: u64,
    /// Array.
    pub array: Handle,
    /// Reserved.
    pub reserved: u64,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Rows from slice to slice.
    pub slice_rows: usize,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UpdateResult {
    /// `CUgraphExecUpdateResult`.
    pub result: u32,
    /// Node of the executable graph that could not be updated.
    pub error_node: Handle,
    /// Node of the graph it was to be updated from.
    pub error_from: Handle,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InstantiateParams {
    /// Flags.
    pub flags: u64,
    /// Stream to upload in.
    pub stream: Handle,
    /// Node to blame.
    pub error_node: Handle,
    /// `CUgraphInstantiateResult`.
    pub result: u32,
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Location {
    /// `CUmemLocationType`.
    pub kind: u32,
    /// Ordinal.
    pub id: i32,
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProps {
    /// `CUmemAllocationType`.
    pub allocation_type: u32,
    /// Handles it can be exported by.
    pub handle_types: u32,
    /// Where.
    pub location: Location,
    /// Security attributes of Windows.
    pub security: *mut c_void,
    /// Largest size; zero for the default.
    pub max_size: usize,
    /// Usage and reserved bytes.
    pub reserved: [u8; 56],
}

/// `CUDA_MEMCPY3D` and others name memory by these types.
pub mod memory_type {
    /// Host memory.
    pub const HOST: u32 = 1;
    /// Device memory.
    pub const DEVICE: u32 = 2;
    /// An array.
    pub const ARRAY: u32 = 3;
    /// Whatever the address says.
    pub const UNIFIED: u32 = 4;
}
