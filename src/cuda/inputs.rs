//! Copies to the device by way of page-locked memory, so that the program need not wait.
//!
//! There are two pieces of such memory: while what was started reads one, [what is recorded
//! ahead](crate::ops::Device::prepare) fills the other.

use cudarc::driver::result;

use super::Cuda;
use super::driver::complaint;
use super::graph::Node;
use super::launch::VECTOR;
use super::pinned::Pinned;
use super::weights::Loader;
use crate::error::Result;
use crate::ops::{Element, Mut};

/// Bytes of the page-locked memory through which inputs go, where nothing else is reserved. Those of 16 pairs
/// take some 200 KiB, without states of the base model.
const INPUT_STAGE: usize = 4 << 20;
/// Most bytes that are reserved, as the system cannot use them for anything else. The base model's states of
/// 64 pairs of 1024 tokens take 448 MiB with a model of 7B, where they come from a file. Inputs beyond that
/// wait.
const MOST_INPUT_STAGE: usize = 512 << 20;

/// Page-locked memory that is filled from its start.
#[derive(Default)]
struct Stage {
    memory: Option<Pinned>,
    /// Bytes that copies not waited for yet may read.
    used: usize,
}

impl Stage {
    fn len(&self) -> usize {
        self.memory.as_ref().map_or(0, Pinned::len)
    }
}

/// Host memory that data waits in for the device.
#[derive(Default)]
pub(super) struct Staging {
    /// For what is started, or is being recorded.
    inputs: Stage,
    /// For what is recorded ahead, and begins when that ends.
    other: Stage,
    /// Number of the recording whose inputs wait in `other`.
    ahead: Option<u64>,
    /// While weights are being loaded.
    pub loader: Option<Loader>,
}

impl Staging {
    /// From here on inputs are those of a recording that is started later; none before can be any more.
    pub fn begin_ahead(&mut self) {
        self.ahead = None;
        std::mem::swap(&mut self.inputs, &mut self.other);
    }

    /// The inputs since then are those of a recording, if it has come to something.
    pub fn end_ahead(&mut self, recording: Option<u64>) {
        self.ahead = recording;
        std::mem::swap(&mut self.inputs, &mut self.other);
    }

    /// A recording is started, if it is the one whose inputs are there.
    pub fn hand_over(&mut self, recording: u64) -> bool {
        let is_there = self.ahead == Some(recording);
        if is_there {
            self.ahead = None;
            std::mem::swap(&mut self.inputs, &mut self.other);
        }
        is_there
    }

    /// All work that was started has been waited for.
    fn waited(&mut self) {
        self.inputs.used = 0;
        if self.ahead.is_none() {
            self.other.used = 0;
        }
    }
}

impl Cuda {
    /// Copies to the device by way of page-locked memory.
    pub(super) fn upload_staged<T: Element>(&self, to: Mut<'_, Cuda, T>, from: &[T]) -> Result<()> {
        let what = |e| complaint("copying to the device", e);
        let mut staging = self.staging();
        let bytes = size_of_val(from).next_multiple_of(VECTOR);
        self.stream().context().bind_to_thread().map_err(what)?;
        if staging.inputs.memory.is_none() {
            staging.inputs.memory = Some(Pinned::new(INPUT_STAGE)?);
        }
        if bytes > staging.inputs.len() {
            self.end_recording(None)?;
            // SAFETY: the buffer holds as many elements; the driver has read the slice when the call returns.
            let copied =
                unsafe { result::memcpy_htod_async(to.address() as u64, from, self.stream().cu_stream()) };
            return copied.map_err(what).and_then(|()| self.wait());
        }
        if staging.inputs.used + bytes > staging.inputs.len() {
            self.wait()?;
            staging.waited();
        }
        let Stage { memory: Some(memory), used } = &mut staging.inputs else { return Ok(()) };
        let start = *used;
        *used += bytes;
        let waiting = memory.slice::<T>(start..start + size_of_val(from));
        waiting.copy_from_slice(from);
        // SAFETY: the buffer holds as many elements, and this part of the page-locked memory is not written
        // again before a wait for the stream.
        let copied =
            unsafe { result::memcpy_htod_async(to.address() as u64, waiting, self.stream().cu_stream()) };
        self.recorded(Node::Upload);
        copied.map_err(what)
    }

    /// Has `bytes` of page-locked memory free, or as many as there may be.
    pub(super) fn reserve_staged(&self, bytes: usize) -> Result<()> {
        let bytes = bytes.min(MOST_INPUT_STAGE);
        let mut staging = self.staging();
        if staging.inputs.used + bytes <= staging.inputs.len() {
            return Ok(());
        }
        let bound = self.stream().context().bind_to_thread();
        bound.map_err(|e| complaint("page-locked memory", e))?;
        if staging.inputs.used > 0 {
            self.wait()?;
            staging.waited();
        }
        if staging.inputs.len() < bytes {
            // Where the system cannot spare so much, inputs wait.
            staging.inputs.memory = Some(Pinned::new(bytes).or_else(|_| Pinned::new(INPUT_STAGE))?);
        }
        Ok(())
    }

    /// Waits for all work, after which the page-locked memory is free again.
    pub(super) fn wait_for_inputs(&self) -> Result<()> {
        self.end_recording(None)?;
        let mut staging = self.staging();
        let waited = self.wait();
        staging.waited();
        staging.loader = None;
        waited
    }
}
