//! Work launched as one CUDA graph: the device need not wait for the host between kernels.
//!
//! While work is captured, its operations go into a graph rather than to the device. An operation that cannot
//! be captured, as it has to wait for the device or to allocate, ends the capture: the graph so far is
//! launched, and later operations go to the device directly. So a graph is never wrong, only shorter than
//! possible, as that of a first step is, during which memory is still allocated.

use std::collections::HashMap;

use cudarc::driver::DriverError;
use cudarc::driver::sys;

use super::Cuda;
use crate::error::Result;

/// Instantiated graphs of earlier recordings.
#[derive(Default)]
pub(super) struct Graphs {
    recording: bool,
    kept: HashMap<&'static str, Executable>,
}

/// A recording.
struct Graph(sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `cuStreamEndCapture`, destroyed once.
        let _ = unsafe { sys::cuGraphDestroy(self.0) };
    }
}

/// An instantiated graph.
struct Executable(sys::CUgraphExec);

// SAFETY: a handle, which the driver allows to be used from any thread; `Graphs` is behind a lock.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: made by `cuGraphInstantiateWithFlags`, destroyed once; the driver waits for a run that is
        // going on.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

impl Executable {
    fn new(graph: &Graph) -> std::result::Result<Self, DriverError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the graph is alive and the handle is written on success only.
        unsafe { sys::cuGraphInstantiateWithFlags(&raw mut handle, graph.0, 0) }.result()?;
        Ok(Executable(handle))
    }

    /// Brings the executable up to `graph`; `false` where the two have other nodes.
    fn update(&mut self, graph: &Graph) -> bool {
        // SAFETY: plain data, for which all zeros are valid.
        let mut result: sys::CUgraphExecUpdateResultInfo = unsafe { std::mem::zeroed() };
        // SAFETY: both are alive, and the result is ours.
        unsafe { sys::cuGraphExecUpdate_v2(self.0, graph.0, &raw mut result) }.result().is_ok()
    }
}

impl Cuda {
    /// Starts to record; not where each kernel is waited for, as those of a graph would fail together.
    pub(super) fn begin_recording(&self) -> Result<()> {
        if self.is_blocking() {
            return Ok(());
        }
        let what = |e| self.graph_complaint("recording a graph", e);
        self.stream().context().bind_to_thread().map_err(what)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours and alive.
        unsafe { sys::cuStreamBeginCapture_v2(self.stream().cu_stream(), mode) }.result().map_err(what)?;
        self.graphs().recording = true;
        Ok(())
    }

    /// Starts what was recorded, if anything is being recorded. Under a name, the graph is kept for the next
    /// time.
    pub(super) fn end_recording(&self, name: Option<&'static str>) -> Result<()> {
        let what = |e| self.graph_complaint("starting a graph", e);
        let mut graphs = self.graphs();
        if !std::mem::take(&mut graphs.recording) {
            return Ok(());
        }
        let mut graph = std::ptr::null_mut();
        // SAFETY: this stream is the one that `begin_recording` began with.
        unsafe { sys::cuStreamEndCapture(self.stream().cu_stream(), &raw mut graph) }
            .result()
            .map_err(what)?;
        let graph = Graph(graph);
        if self.has_failed() {
            return Ok(()); // nothing is started after an error
        }
        let kept = name.and_then(|name| graphs.kept.remove(name));
        let executable = match kept.map(|mut kept| (kept.update(&graph), kept)) {
            Some((true, kept)) => kept,
            _ => Executable::new(&graph).map_err(what)?,
        };
        // SAFETY: both are alive.
        unsafe { sys::cuGraphLaunch(executable.0, self.stream().cu_stream()) }.result().map_err(what)?;
        if let Some(name) = name {
            graphs.kept.insert(name, executable);
        }
        Ok(())
    }
}
