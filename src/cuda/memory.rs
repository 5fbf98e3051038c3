//! Memory of the device, and copies to and from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaStream, DriverError, result};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::Cuda;
use super::driver::complaint;
use super::graph::Node;
use super::pinned::Pinned;
use super::waves::waves;
use super::weights::Weight;
use crate::error::{Error, Result};
use crate::ops::{Arena, Buffer, Device, Element, Fetch, Mut, Recording, Ref, TensorSpec, TensorView};

/// Bytes of scratch memory from the start: more than the parts of any product take, which are two large tiles
/// for each multiprocessor. Growing would make the first steps shorter graphs.
const SCRATCH: usize = 32 << 20;
/// Counters from the start, for the same reason: a decoding step takes one for each sample and key/value
/// head, products fewer.
const COUNTERS: usize = 4096;
/// Bytes of both.
const OWN: usize = SCRATCH + COUNTERS * size_of::<u32>();
/// Advice where the device has no room for its own needs.
const OTHER_DEVICE: &str = "choose another device (`device` cuda:N), or compute on the CPU (`device` cpu)";
/// Device memory that is left to the driver: for modules, graphs and the stacks of kernels.
const RESERVE: usize = 256 << 20;

/// An allocation on the device, or of page-locked memory of the host.
pub struct Memory {
    address: u64,
    /// The memory, if it is the host's.
    pinned: Option<Pinned>,
    stream: Arc<CudaStream>,
    /// Counts what is freed.
    freed: Arc<AtomicU64>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Errors, if any, have been or will be told by an operation; there is nobody to tell here.
        let _ = self.stream.context().bind_to_thread();
        // Before the memory is gone: recordings that may use it are not repeated from here on.
        self.freed.fetch_add(1, Ordering::AcqRel);
        if self.pinned.is_some() {
            // The copies out of it are on another stream.
            let _ = self.stream.context().synchronize();
            return;
        }
        let _ = self.stream.synchronize();
        // SAFETY: allocated by `Device::allocate`, freed once, and no work of the stream uses it any more.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Memory for what an operation needs while it runs. The next operation, which runs after it, has the same.
#[derive(Default)]
pub(super) struct Scratch {
    buffer: Option<Buffer<Cuda, f32>>,
}

impl Scratch {
    /// The usual room.
    pub fn reserve(&mut self, cuda: &Cuda) -> Result<()> {
        self.buffer = Some(own(cuda, "scratch", SCRATCH / size_of::<f32>())?);
        Ok(())
    }

    /// `len` elements that may hold anything. `None`, with the failure kept, where there is no memory.
    pub fn take<T: Element>(&mut self, cuda: &Cuda, len: usize) -> Option<Mut<'_, Cuda, T>> {
        let needed = (len * size_of::<T>()).div_ceil(size_of::<f32>());
        reserve(&mut self.buffer, cuda, "scratch", needed)?;
        Some(self.buffer.as_mut()?.view_mut().cast::<T>().slice(0..len))
    }
}

/// Numbers by which blocks of a kernel tell who is the last. They are 0 between kernels: each sets back what
/// it has counted.
#[derive(Default)]
pub(super) struct Counters {
    buffer: Option<Buffer<Cuda, u32>>,
}

impl Counters {
    /// The usual number.
    pub fn reserve(&mut self, cuda: &Cuda) -> Result<()> {
        self.buffer = Some(own(cuda, "counters", COUNTERS)?);
        Ok(())
    }

    /// `len` numbers. `None`, with the failure kept, where there is no memory.
    pub fn take(&mut self, cuda: &Cuda, len: usize) -> Option<Mut<'_, Cuda, u32>> {
        reserve(&mut self.buffer, cuda, "counters", len)?;
        Some(self.buffer.as_mut()?.first_mut(len))
    }
}

/// Makes room for `len` elements, which are 0 in new memory.
fn reserve<T: Element>(
    buffer: &mut Option<Buffer<Cuda, T>>,
    cuda: &Cuda,
    name: &str,
    len: usize,
) -> Option<()> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        cuda.keep(cuda.end_recording(None))?;
        *buffer = None;
        *buffer = Some(cuda.keep(own(cuda, name, len.next_power_of_two()))?);
    }
    Some(())
}

/// Memory that the device needs for itself.
fn own<T: Element>(cuda: &Cuda, name: &str, len: usize) -> Result<Buffer<Cuda, T>> {
    let built = Arena::build(cuda, |arena| arena.buffer(name, &[len]));
    let error = |e: Error| e.context(format!("{name} memory of the kernels")).memory_advice(OTHER_DEVICE);
    built.map(|(buffer, _)| buffer).map_err(error)
}

impl Cuda {
    /// Bytes that the driver says are free.
    pub(super) fn driver_free(&self) -> Result<usize> {
        let free = self.stream().context().bind_to_thread().and_then(|()| result::mem_get_info());
        free.map(|(free, _)| free).map_err(|e| complaint("asking for free device memory", e))
    }

    /// More is needed than there is.
    fn lacking(&self, bytes: usize, free: usize) -> Error {
        let (name, needed) = (&self.info().name, bytes.div_ceil(1 << 20));
        let free = free >> 20;
        Error::memory(format!("{name}: {needed} MiB of device memory are needed, {free} MiB are free"))
    }

    /// There would be enough, but the driver does not give it: free memory may lie in pieces, or another
    /// process was faster.
    fn refused(&self, bytes: usize, free: usize, error: DriverError) -> Error {
        let reason = complaint("and the driver refuses", error);
        Error::memory(format!("{}, {reason}", self.lacking(bytes, free)))
    }

    fn download_all<T: Element>(&self, to: &mut [T], from: Ref<'_, Cuda, T>) -> Result<()> {
        let what = |e| complaint("copying from the device", e);
        self.stream().context().bind_to_thread().map_err(what)?;
        self.end_recording(None)?;
        // SAFETY: as many elements on both sides; `wait` ends before `to` is used.
        let copied =
            unsafe { result::memcpy_dtoh_async(to, from.address() as u64, self.stream().cu_stream()) };
        // In any case: a copy that has begun must not outlive the borrow of `to`.
        let waited = self.wait_for_inputs();
        waited.and(copied.map_err(what))
    }

    /// Copies to page-locked memory, in the order of all work.
    fn copy_to_host<T: Element>(&self, to: Mut<'_, Cuda, T>, from: Ref<'_, Cuda, T>) -> Result<()> {
        let what = |e| complaint("copying to page-locked memory", e);
        self.stream().context().bind_to_thread().map_err(what)?;
        // SAFETY: page-locked memory of the host has the same address on the device. `to` borrows it
        // exclusively, it holds bytes, whatever they are, and it is freed after a wait for all streams only.
        let host = unsafe { std::slice::from_raw_parts_mut(to.address() as *mut T, to.len()) };
        // SAFETY: as many elements on both sides; nothing reads the memory but later copies.
        let copied =
            unsafe { result::memcpy_dtoh_async(host, from.address() as u64, self.stream().cu_stream()) };
        self.recorded(Node::Offload);
        copied.map_err(what)
    }
}

impl Device for Cuda {
    type Act = bf16;
    type Memory = Memory;
    type Weight = Weight;
    const IN_SYSTEM_MEMORY: bool = false;

    fn description(&self) -> String {
        let info = self.info();
        format!("{}, compute capability {}.{}", info.name, info.capability / 10, info.capability % 10)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        let what = |e| complaint(format!("{bytes} bytes of device memory"), e);
        self.stream().context().bind_to_thread().map_err(what)?;
        self.end_recording(None)?;
        let (mut free, _) = result::mem_get_info().map_err(what)?;
        if bytes > free {
            self.graphs().forget();
            free = result::mem_get_info().map_err(what)?.0;
        }
        if bytes > free {
            return Err(self.lacking(bytes, free));
        }
        // SAFETY: the memory is zeroed below, before anything can read it.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.refused(bytes, free, e),
            _ => what(e),
        })?;
        let memory =
            Memory { address, pinned: None, stream: self.stream().clone(), freed: self.freed().clone() };
        // SAFETY: just allocated with this size.
        unsafe { result::memset_d8_async(address, 0, bytes.max(1), self.stream().cu_stream()) }
            .map_err(what)?;
        Ok(memory)
    }

    fn allocate_host(&self, bytes: usize) -> Result<Memory> {
        let bound = self.stream().context().bind_to_thread();
        bound.map_err(|e| complaint(format!("{bytes} bytes of page-locked memory"), e))?;
        self.end_recording(None)?;
        let pinned = Pinned::new(bytes.max(1))?;
        let address = pinned.address() as u64;
        Ok(Memory {
            address,
            pinned: Some(pinned),
            stream: self.stream().clone(),
            freed: self.freed().clone(),
        })
    }

    fn free_memory(&self) -> usize {
        let free = self.stream().context().bind_to_thread().and_then(|()| result::mem_get_info());
        free.map_or(0, |(free, _)| free.saturating_sub(RESERVE))
    }

    fn address(memory: &Memory) -> usize {
        memory.address as usize
    }

    fn reserve_inputs(&self, bytes: usize) {
        if !self.has_failed() {
            self.keep(self.reserve_staged(bytes));
        }
    }

    fn upload<T: Element>(&self, to: Mut<'_, Self, T>, from: &[T]) {
        assert_eq!(to.len(), from.len(), "upload");
        if !from.is_empty() && !self.has_failed() {
            self.keep(self.upload_staged(to, from));
        }
    }

    fn download<T: Element>(&self, to: &mut [T], from: Ref<'_, Self, T>) {
        assert_eq!(to.len(), from.len(), "download");
        if !to.is_empty() && !self.has_failed() {
            self.keep(self.download_all(to, from));
        }
    }

    fn copy<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        assert_eq!(to.len(), from.len(), "copy");
        if from.is_empty() || self.has_failed() {
            return;
        }
        let bytes = from.len() * size_of::<T>();
        let (to, from, stream) = (to.address() as u64, from.address() as u64, self.stream().cu_stream());
        let bound = self.stream().context().bind_to_thread();
        // SAFETY: both hold as many bytes, and `to` is borrowed exclusively.
        let copied = bound.and_then(|()| unsafe { result::memcpy_dtod_async(to, from, bytes, stream) });
        self.recorded(Node::Copy);
        self.keep(copied.map_err(|e| complaint("copying on the device", e)));
    }

    fn offload<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        assert_eq!(to.len(), from.len(), "offload");
        if !from.is_empty() && !self.has_failed() {
            self.keep(self.copy_to_host(to, from));
        }
    }

    fn prefetch<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        assert_eq!(to.len(), from.len(), "prefetch");
        if !from.is_empty() && !self.has_failed() {
            self.keep(self.copy_beside(to, from));
        }
    }

    fn join_prefetches(&self) {
        self.keep(self.join_branch(&mut self.branch()));
    }

    fn zero<T: Element>(&self, to: Mut<'_, Self, T>) {
        if to.is_empty() || self.has_failed() {
            return;
        }
        let (address, bytes) = (to.address() as u64, to.len() * size_of::<T>());
        let bound = self.stream().context().bind_to_thread();
        // SAFETY: that many bytes, borrowed exclusively; all bits zero are the number zero.
        let set = bound
            .and_then(|()| unsafe { result::memset_d8_async(address, 0, bytes, self.stream().cu_stream()) });
        self.recorded(Node::Fill);
        self.keep(set.map_err(|e| complaint("zeroing on the device", e)));
    }

    fn room_for(&self, tensors: &[TensorSpec]) -> Result<usize> {
        Ok(self.room_for_weights(tensors)? + OWN)
    }

    fn load_weight(&self, parts: &[TensorView]) -> Result<Weight> {
        self.load(parts)
    }

    fn load_block(&self, layer: usize, matrices: &[Vec<TensorView>]) -> Result<Vec<Weight>> {
        match self.shards() {
            Some(shards) => self.load_share(shards, layer, matrices),
            None => matrices.iter().map(|parts| self.load(parts)).collect(),
        }
    }

    fn gather_block(&self, block: &Weight, next: Option<&Weight>) {
        if !self.has_failed() {
            self.keep(self.gather_shares(block, next));
        }
    }

    fn download_act(&self, from: Ref<'_, Self, bf16>) -> Vec<f32> {
        self.to_host(from).to_f32_vec()
    }

    fn upload_act(&self, to: Mut<'_, Self, bf16>, from: &[f32]) {
        let mut rounded = vec![bf16::ZERO; from.len()];
        rounded.convert_from_f32_slice(from);
        self.upload(to, &rounded);
    }

    fn graph<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        if !self.has_failed() {
            self.keep(self.begin_recording());
        }
        let done = work();
        self.keep(self.end_recording(Some(name)));
        done
    }

    fn prepare<T>(
        &self,
        name: &'static str,
        inputs: usize,
        work: impl FnOnce() -> T,
    ) -> Option<(T, Recording)> {
        self.record_ahead(name, inputs, work)
    }

    fn start(&self, recording: Recording) -> bool {
        self.keep(self.start_recorded(recording)) == Some(true)
    }

    fn repeat(&self, name: &'static str, recording: &mut Recording, work: impl FnOnce()) {
        let repeated = |number| self.keep(self.repeat_recording(number)) == Some(true);
        if self.has_failed() || recording.0.is_some_and(repeated) {
            return;
        }
        self.keep(self.begin_recording());
        work();
        recording.0 = self.keep(self.end_recording(Some(name))).flatten();
    }

    fn waves(&self, rows: usize, columns: usize) -> usize {
        waves(rows, columns, self.info())
    }

    fn runs_behind(&self) -> bool {
        !self.is_blocking()
    }

    fn start_fetch<T: Element>(&self, from: Ref<'_, Self, T>) -> Fetch<T> {
        let started = self.start_download(from);
        let cuda = self.clone();
        Fetch::new(move || {
            let came = started.and_then(|pending| pending.wait());
            cuda.take_failure().map_or(came, Err)
        })
    }

    fn fetch<T: Element>(&self, to: &mut [T], from: Ref<'_, Self, T>) -> Result<()> {
        if to.is_empty() {
            return self.finish();
        }
        self.download(to, from);
        if self.has_failed() { self.finish() } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        // After an error too: what kernels have refused since must not be told later.
        let waited = self.wait_for_inputs();
        self.take_failure().map_or(waited, Err)
    }
}
