//! What the tests share.

use std::sync::Arc;

use cuda_emulator::client::Client;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

/// Seeds that are tried where chance decides.
pub const SEEDS: u64 = 64;

pub use sys::CUresult as Code;

/// The loaded emulator.
pub fn client() -> &'static Client {
    cuda_emulator::load().expect("the emulator")
}

/// A context of the test's own, which no other test can break, without cudarc's own events.
pub fn context() -> Arc<CudaContext> {
    client();
    let context = CudaContext::new_non_primary(0, 0).expect("a context");
    // SAFETY: the tests order their work themselves.
    unsafe { context.disable_event_tracking() };
    context
}

/// Begins the random order of the thread's current context anew.
pub fn seed(seed: u64) {
    client().set_seed(seed).expect("a context");
}

/// The code that a call returned.
pub fn code<T>(result: Result<T, DriverError>) -> Code {
    match result {
        Ok(_) => Code::CUDA_SUCCESS,
        Err(DriverError(code)) => code,
    }
}

/// A stream that is ordered with the legacy default stream.
pub struct Blocking(pub sys::CUstream);

impl Blocking {
    pub fn new() -> Blocking {
        let stream = result::stream::create(result::stream::StreamKind::Default).expect("a stream");
        Blocking(stream)
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // SAFETY: the stream is ours. In a context that failed this fails too, which does not matter any
        // more.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// A few bytes on the device.
pub struct Bytes {
    pub address: u64,
    pub len: usize,
}

impl Bytes {
    pub fn new(len: usize) -> Bytes {
        // SAFETY: freed on drop.
        let address = unsafe { result::malloc_sync(len) }.expect("memory");
        Bytes { address, len }
    }

    pub fn fill(&self, value: u8, stream: sys::CUstream) {
        // SAFETY: the range is ours.
        unsafe { result::memset_d8_async(self.address, value, self.len, stream) }.expect("a fill");
    }

    /// Copies from others on the device.
    pub fn copy(&self, from: &Bytes, stream: sys::CUstream) {
        // SAFETY: the ranges are ours.
        unsafe { result::memcpy_dtod_async(self.address, from.address, self.len, stream) }.expect("a copy");
    }

    /// What they are, after everything in the context was done.
    pub fn read(&self) -> Vec<u8> {
        result::ctx::synchronize().expect("a sound context");
        let mut bytes = vec![0xee; self.len];
        // SAFETY: the ranges are ours.
        unsafe { result::memcpy_dtoh_sync(&mut bytes, self.address) }.expect("a copy");
        bytes
    }

    pub fn first(&self) -> u8 {
        self.read()[0]
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`. In a context that failed this fails too, which does not matter any
        // more.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// A stream that is not ordered with the legacy default stream.
pub fn stream(context: &Arc<CudaContext>) -> Arc<CudaStream> {
    context.new_stream().expect("a stream")
}

/// What a random order came to, for each of [`SEEDS`].
pub fn outcomes<T>(mut trial: impl FnMut() -> T) -> Vec<T> {
    let try_seed = |number| {
        seed(number);
        trial()
    };
    (0..SEEDS).map(try_seed).collect()
}
