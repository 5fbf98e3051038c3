//! Copies to the host that are waited for later, so that the device has other work meanwhile.

use std::marker::PhantomData;

use cudarc::driver::{CudaEvent, result};

use super::Cuda;
use super::driver::complaint;
use super::pinned::Pinned;
use crate::error::Result;
use crate::ops::{Element, Ref};

/// Bytes of a staging buffer at least: tokens of a thousand rows.
const LEAST: usize = 4096;

/// A staging buffer: page-locked memory for one copy, and an event that comes after it.
struct StagingBuffer {
    memory: Pinned,
    event: CudaEvent,
}

/// Staging buffers that no copy uses.
#[derive(Default)]
pub(super) struct StagingBuffers(Vec<StagingBuffer>);

impl StagingBuffers {
    /// One of `bytes` at least.
    fn take(&mut self, cuda: &Cuda, bytes: usize) -> Result<StagingBuffer> {
        if let Some(place) = self.0.iter().position(|buffer| buffer.memory.len() >= bytes) {
            return Ok(self.0.swap_remove(place));
        }
        let memory = Pinned::new(bytes.next_power_of_two().max(LEAST))?;
        let event = cuda.stream().context().new_event(None).map_err(|e| complaint("an event", e))?;
        Ok(StagingBuffer { memory, event })
    }
}

/// Elements of which a copy has been started.
pub(super) struct PendingDownload<T> {
    cuda: Cuda,
    buffer: Option<StagingBuffer>,
    len: usize,
    _element: PhantomData<T>,
}

impl Cuda {
    /// Starts a copy to the host.
    pub(super) fn start_download<T: Element>(&self, from: Ref<'_, Cuda, T>) -> Result<PendingDownload<T>> {
        let what = |e| complaint("copying from the device", e);
        let stream = self.stream();
        stream.context().bind_to_thread().map_err(what)?;
        self.end_recording(None)?;
        let len = from.len();
        let buffer = self.staging_buffers().take(self, len * size_of::<T>())?;
        // From here on the staging buffer is only used again after a wait for its event.
        let mut pending =
            PendingDownload { cuda: self.clone(), buffer: Some(buffer), len, _element: PhantomData };
        let Some(StagingBuffer { memory, event }) = &mut pending.buffer else { return Ok(pending) };
        if self.has_failed() || len == 0 {
            return Ok(pending);
        }
        let to = memory.slice::<T>(0..len * size_of::<T>());
        // SAFETY: as many elements on both sides; nothing else uses the page-locked memory before a wait for
        // the event.
        unsafe { result::memcpy_dtoh_async(to, from.address() as u64, stream.cu_stream()) }.map_err(what)?;
        if let Err(error) = event.record(stream) {
            // Without the event, only this ends the copy for certain.
            let _ = stream.synchronize();
            return Err(what(error));
        }
        Ok(pending)
    }
}

impl<T: Element> PendingDownload<T> {
    /// The elements, after a wait for the copy.
    pub fn wait(mut self) -> Result<Vec<T>> {
        let Some(buffer) = &self.buffer else { return Ok(Vec::new()) };
        buffer.event.synchronize().map_err(|e| self.cuda.kernel_complaint(e))?;
        let Some(mut buffer) = self.buffer.take() else { return Ok(Vec::new()) };
        let elements = buffer.memory.slice::<T>(0..self.len * size_of::<T>()).to_vec();
        self.cuda.staging_buffers().0.push(buffer);
        Ok(elements)
    }
}

impl<T> Drop for PendingDownload<T> {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        // What goes wrong has been or will be told by an operation; there is nobody to tell here. After an
        // error the copy may not be over, so the buffer is not used again, nor freed.
        match buffer.event.synchronize() {
            Ok(()) => self.cuda.staging_buffers().0.push(buffer),
            Err(_) => std::mem::forget(buffer),
        }
    }
}
