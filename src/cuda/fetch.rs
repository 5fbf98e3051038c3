//! Copies to the host that are waited for later, so that the device has other work meanwhile.

use std::marker::PhantomData;

use cudarc::driver::{CudaEvent, result};

use super::Cuda;
use super::driver::complaint;
use super::pinned::Pinned;
use crate::error::Result;
use crate::ops::{Element, Ref};

/// Bytes of a parcel at least: tokens of a thousand rows.
const LEAST: usize = 4096;

/// Page-locked memory for one copy, and an event that comes after it.
struct Parcel {
    memory: Pinned,
    event: CudaEvent,
}

/// Parcels that are not on their way.
#[derive(Default)]
pub(super) struct Parcels(Vec<Parcel>);

impl Parcels {
    /// One of `bytes` at least.
    fn take(&mut self, cuda: &Cuda, bytes: usize) -> Result<Parcel> {
        if let Some(place) = self.0.iter().position(|parcel| parcel.memory.len() >= bytes) {
            return Ok(self.0.swap_remove(place));
        }
        let memory = Pinned::new(bytes.next_power_of_two().max(LEAST))?;
        let event = cuda.stream().context().new_event(None).map_err(|e| complaint("an event", e))?;
        Ok(Parcel { memory, event })
    }
}

/// Elements of which a copy has been started.
pub(super) struct OnItsWay<T> {
    cuda: Cuda,
    parcel: Option<Parcel>,
    len: usize,
    _element: PhantomData<T>,
}

impl Cuda {
    /// Starts a copy to the host.
    pub(super) fn send<T: Element>(&self, from: Ref<'_, Cuda, T>) -> Result<OnItsWay<T>> {
        let what = |e| complaint("copying from the device", e);
        let stream = self.stream();
        stream.context().bind_to_thread().map_err(what)?;
        self.end_recording(None)?;
        let len = from.len();
        let parcel = self.parcels().take(self, len * size_of::<T>())?;
        // From here on the parcel is only used again after a wait for its event.
        let mut sent = OnItsWay { cuda: self.clone(), parcel: Some(parcel), len, _element: PhantomData };
        let Some(Parcel { memory, event }) = &mut sent.parcel else { return Ok(sent) };
        if self.has_failed() || len == 0 {
            return Ok(sent);
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
        Ok(sent)
    }
}

impl<T: Element> OnItsWay<T> {
    /// The elements, after a wait for the copy.
    pub fn receive(mut self) -> Result<Vec<T>> {
        let Some(parcel) = &self.parcel else { return Ok(Vec::new()) };
        parcel.event.synchronize().map_err(|e| self.cuda.kernel_complaint(e))?;
        let Some(mut parcel) = self.parcel.take() else { return Ok(Vec::new()) };
        let elements = parcel.memory.slice::<T>(0..self.len * size_of::<T>()).to_vec();
        self.cuda.parcels().0.push(parcel);
        Ok(elements)
    }
}

impl<T> Drop for OnItsWay<T> {
    fn drop(&mut self) {
        let Some(parcel) = self.parcel.take() else { return };
        // What goes wrong has been or will be told by an operation; there is nobody to tell here. After an
        // error the copy may not be over, so the parcel is not used again, nor freed.
        match parcel.event.synchronize() {
            Ok(()) => self.cuda.parcels().0.push(parcel),
            Err(_) => std::mem::forget(parcel),
        }
    }
}
