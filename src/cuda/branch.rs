//! Copies from memory of the host, or of other devices, beside other work: on a stream that forks off that
//! of all work, and is joined again before the first use of what was copied. In a recording, they are a
//! branch of the graph.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent_flags, CUevent_wait_flags};
use cudarc::driver::{CudaContext, DriverError, result};

use super::Cuda;
use super::driver::complaint;
use super::graph::{Node, Side};
use crate::error::{Error, Result};
use crate::ops::{Element, Mut, Ref};

/// The stream of the copies. It is none of cudarc's, for which a second stream in a context is a reason to
/// record events for slices of the program's own.
pub(super) struct Branch {
    side: Side,
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    /// What the copies come after.
    forked: sys::CUevent,
    /// The last copy.
    copied: sys::CUevent,
    /// Whether there are copies that have not been joined.
    open: bool,
}

// SAFETY: handles, which the driver allows to be used from any thread; `Shared` has a lock around them.
unsafe impl Send for Branch {}

impl Drop for Branch {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: made by `new`, destroyed once; the driver finishes what the stream still has to do.
        unsafe {
            let _ = result::event::destroy(self.forked);
            let _ = result::event::destroy(self.copied);
            let _ = result::stream::destroy(self.stream);
        }
    }
}

fn copying(error: DriverError) -> Error {
    complaint("copying beside other work", error)
}

impl Branch {
    /// Of a context that is current.
    pub fn new(side: Side, context: &Arc<CudaContext>) -> Result<Self> {
        let event = || result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(copying);
        Ok(Branch {
            side,
            context: context.clone(),
            forked: event()?,
            copied: event()?,
            stream: result::stream::create(result::stream::StreamKind::NonBlocking).map_err(copying)?,
            open: false,
        })
    }
}

/// Orders what `second` is given from now on after what `first` was given so far.
fn order(
    first: sys::CUstream,
    event: sys::CUevent,
    second: sys::CUstream,
) -> std::result::Result<(), DriverError> {
    // SAFETY: streams and event are alive, as whoever calls this holds them.
    unsafe {
        result::event::record(event, first)?;
        result::stream::wait_event(second, event, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
    }
}

impl Cuda {
    /// Copies from page-locked memory beside the work that follows.
    pub(super) fn copy_beside<T: Element>(&self, to: Mut<'_, Cuda, T>, from: Ref<'_, Cuda, T>) -> Result<()> {
        // SAFETY: page-locked memory of the host has the same address on the device, and is freed after a
        // wait for all streams only.
        let host = unsafe { std::slice::from_raw_parts(from.address() as *const T, from.len()) };
        self.beside(&mut self.branch(), |stream| {
            // SAFETY: `to` holds as many elements, and is not used before the branch is joined.
            unsafe { result::memcpy_htod_async(to.address() as u64, host, stream) }
        })
    }

    /// Has a branch do a copy, which comes after all work before the branch's first.
    pub(super) fn beside(
        &self,
        branch: &mut Branch,
        copy: impl FnOnce(sys::CUstream) -> std::result::Result<(), DriverError>,
    ) -> Result<()> {
        self.stream().context().bind_to_thread().map_err(copying)?;
        if !branch.open {
            order(self.stream().cu_stream(), branch.forked, branch.stream).map_err(copying)?;
            branch.open = true;
            self.recorded(Node::Fork(branch.side));
        }
        let copied = copy(branch.stream);
        self.recorded(Node::Prefetch(branch.side));
        copied.map_err(copying)
    }

    /// Orders the copies of a branch before what follows, if there are any.
    pub(super) fn join_branch(&self, branch: &mut Branch) -> Result<()> {
        if !std::mem::take(&mut branch.open) {
            return Ok(());
        }
        self.stream().context().bind_to_thread().map_err(copying)?;
        order(branch.stream, branch.copied, self.stream().cu_stream()).map_err(copying)?;
        self.recorded(Node::Join(branch.side));
        Ok(())
    }
}
