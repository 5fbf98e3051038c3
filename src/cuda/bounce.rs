//! Memory of a device through which values of the host pass on their way to other devices.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaStream, result};

use super::driver::{self, complaint};
use crate::error::Result;

/// A part of a device's memory with a stream of its own, for a library that moves data between devices.
pub struct BounceBuffer {
    stream: Arc<CudaStream>,
    address: u64,
    len: usize,
}

impl BounceBuffer {
    /// `len` bytes of the device with this number, whose context is the thread's current one after that.
    ///
    /// # Errors
    /// Of kind `Device`: no such device, or no memory there.
    pub fn new(ordinal: usize, len: usize) -> Result<Self> {
        driver::start()?;
        let what = |e| complaint(format!("CUDA device {ordinal}, {len} bytes for other ranks"), e);
        let stream = CudaContext::new(ordinal).and_then(|context| context.new_stream()).map_err(what)?;
        stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: a context is current, and the memory is freed once, when this value is dropped.
        let address = unsafe { result::malloc_sync(len) }.map_err(what)?;
        Ok(BounceBuffer { stream, address, len })
    }

    /// Address of byte `at`, for the device.
    pub fn address(&self, at: usize) -> *mut c_void {
        assert!(at <= self.len);
        (self.address as usize + at) as *mut c_void
    }

    /// The stream that orders all use of the memory.
    pub fn stream(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    /// Copies `bytes` to byte `at` and behind.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn upload(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let what = |e| complaint("copying to the device for other ranks", e);
        self.check(at, bytes.len());
        self.stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: inside the allocation; the driver has read the slice when the call returns.
        unsafe { result::memcpy_htod_async(self.address + at as u64, bytes, self.stream.cu_stream()) }
            .map_err(what)
    }

    /// Copies from byte `at` and behind, after everything in the stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn download(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        let what = |e| complaint("copying from the device what other ranks have sent", e);
        self.check(at, bytes.len());
        self.stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: inside the allocation; the slice is there until the copy has been waited for.
        unsafe { result::memcpy_dtoh_async(bytes, self.address + at as u64, self.stream.cu_stream()) }
            .map_err(what)?;
        self.finish()
    }

    /// Waits for everything in the stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn finish(&self) -> Result<()> {
        self.stream.synchronize().map_err(|e| complaint("the device fails at what is for other ranks", e))
    }

    fn check(&self, at: usize, len: usize) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
    }

    /// Whether everything in the stream is done.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn is_idle(&self) -> Result<bool> {
        let what = |e| complaint("the device fails while ranks wait for each other", e);
        self.stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: the stream exists as long as this value.
        match unsafe { sys::cuStreamQuery(self.stream.cu_stream()) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => code.result().map(|()| true).map_err(what),
        }
    }
}

impl Drop for BounceBuffer {
    fn drop(&mut self) {
        // Whoever had it has been told of errors already.
        let _ = self.stream.context().bind_to_thread();
        let _ = self.stream.synchronize();
        // SAFETY: allocated by `new`, freed once, and nothing in the stream uses it any more.
        let _ = unsafe { result::free_sync(self.address) };
    }
}
