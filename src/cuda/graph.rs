//! Work launched as one CUDA graph: the device need not wait for the host between kernels.
//!
//! While work is captured, its operations go into a graph rather than to the device. An operation that cannot
//! be captured, as it has to wait for the device or to allocate, ends the capture: the graph so far is
//! launched, and later operations go to the device directly. So a graph is never wrong, only shorter than
//! possible, as that of a first step is, during which memory is still allocated.
//!
//! A graph is instantiated once for each topology: a step with another number of chunks of logits, or of
//! pairs whose base states are unknown, has other nodes, and a later one may have those again.
//!
//! Work whose operations and arguments stay the same is recorded once and then repeated: its graph is
//! launched again, unless an allocation has been freed since, which one of the arguments may have been in.
//!
//! Work can be recorded ahead, while the device is at other work, and launched later. Then an operation that
//! cannot be captured spoils the recording, as it would come too early.

use cudarc::driver::DriverError;
use cudarc::driver::sys;

use super::Cuda;
use crate::error::{Error, Result};
use crate::ops::Recording;

/// What is copied beside other work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Inputs from memory of the host.
    Inputs,
    /// Weights that other devices keep.
    Weights,
}

/// A node of a graph, as far as an update of its executable cannot change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A kernel; its function, grid and parameters may change.
    Kernel,
    /// A kernel all of whose blocks run at once.
    CooperativeKernel,
    /// A copy to the device.
    Upload,
    /// A copy to memory of the host.
    Offload,
    /// A copy on the device.
    Copy,
    /// A fill.
    Fill,
    /// The first copy of a branch comes after the node before.
    Fork(Side),
    /// A copy to the device, each after the one before of its branch.
    Prefetch(Side),
    /// What follows comes after the last copy of a branch, too.
    Join(Side),
}

/// Name and nodes of a graph, in the order of recording. But for prefetches, each node is after the one
/// before.
type Topology = (&'static str, Vec<Node>);

/// Most executables that are kept: fifty steps of real lengths have 24 topologies.
const MOST_KEPT: usize = 128;

/// Instantiated graphs of earlier recordings.
#[derive(Default)]
pub(super) struct Graphs {
    /// What is being recorded.
    recording: Option<Recorded>,
    /// The one that was used last comes last.
    kept: Vec<Kept>,
    /// Number of the last recording that was begun.
    number: u64,
}

/// What is being recorded.
struct Recorded {
    nodes: Vec<Node>,
    number: u64,
    /// Allocations that had been freed at the start.
    freed: u64,
    launch: When,
}

/// When a recording is launched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// As soon as it ends.
    AtItsEnd,
    /// When it is asked for.
    Later,
    /// Never: it would have been later, and something in it could not be captured.
    Never,
}

/// A graph that may be used again.
struct Kept {
    topology: Topology,
    executable: Executable,
    /// Number of the recording that it holds now, and allocations that had been freed at its start.
    number: u64,
    freed: u64,
    /// The kernels in it, each once.
    kernels: Vec<&'static str>,
}

impl Graphs {
    /// Takes out the executable of a topology.
    fn take(&mut self, topology: &Topology) -> Option<Executable> {
        let place = self.kept.iter().position(|kept| kept.topology == *topology)?;
        Some(self.kept.remove(place).executable)
    }

    /// The graph that holds a recording.
    fn find(&self, number: u64) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.number == number)
    }

    /// Gives up what is kept, and with it memory of the device.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    fn keep(&mut self, kept: Kept) {
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        self.kept.push(kept);
    }
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
    fn launch(&self, cuda: &Cuda) -> std::result::Result<(), DriverError> {
        // SAFETY: both are alive.
        unsafe { sys::cuGraphLaunch(self.0, cuda.stream().cu_stream()) }.result()
    }

    fn new(graph: &Graph) -> std::result::Result<Self, DriverError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the graph is alive and the handle is written on success only.
        unsafe { sys::cuGraphInstantiateWithFlags(&raw mut handle, graph.0, 0) }.result()?;
        Ok(Executable(handle))
    }

    /// Brings the executable up to `graph`; `false` where the driver refuses.
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
        self.begin(When::AtItsEnd)
    }

    fn begin(&self, launch: When) -> Result<()> {
        let what = |e| self.graph_complaint("recording a graph", e);
        self.stream().context().bind_to_thread().map_err(what)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours and alive.
        unsafe { sys::cuStreamBeginCapture_v2(self.stream().cu_stream(), mode) }.result().map_err(what)?;
        let mut graphs = self.graphs();
        graphs.number += 1;
        self.forget_gathered();
        let (nodes, number, freed) = (Vec::new(), graphs.number, self.freed_allocations());
        graphs.recording = Some(Recorded { nodes, number, freed, launch });
        Ok(())
    }

    /// Notes what the last call has added to a recording, if there is one.
    pub(super) fn recorded(&self, node: Node) {
        if let Some(recording) = &mut self.graphs().recording {
            recording.nodes.push(node);
        }
    }

    /// Starts what was recorded, if anything is being recorded. Under a name, the graph is kept for the next
    /// time, and the number of the recording returned if it can be repeated.
    pub(super) fn end_recording(&self, name: Option<&'static str>) -> Result<Option<u64>> {
        if let Some(recording) = &mut self.graphs().recording
            && recording.launch != When::AtItsEnd
        {
            recording.launch = When::Never;
            return Err(Error::internal(
                "an operation that waits or allocates in work that is recorded ahead",
            ));
        }
        let Some((graph, recording)) = self.end_capture()? else { return Ok(None) };
        if self.has_failed() {
            return Ok(None); // nothing is started after an error
        }
        let Some(name) = name else {
            let executable = Executable::new(&graph).map_err(|e| self.starting(e))?;
            return executable.launch(self).map_err(|e| self.starting(e)).map(|()| None);
        };
        // What is uploaded waits in memory of the host that is used again.
        let repeatable = !recording.nodes.contains(&Node::Upload);
        let kept = self.executable(&graph, recording, name)?;
        kept.executable.launch(self).map_err(|e| self.starting(e))?;
        let number = kept.number;
        self.graphs().keep(kept);
        Ok(repeatable.then_some(number))
    }

    fn starting(&self, error: DriverError) -> Error {
        self.graph_complaint("starting a graph", error)
    }

    /// Ends what is being recorded, if anything is.
    fn end_capture(&self) -> Result<Option<(Graph, Recorded)>> {
        // A branch that is not joined would make the recording invalid.
        let joined = self.join_branch(&mut self.branch()).and(self.join_gathered());
        let Some(recording) = self.graphs().recording.take() else { return joined.map(|()| None) };
        self.forget_gathered();
        let mut graph = std::ptr::null_mut();
        // SAFETY: this stream is the one that `begin` began with.
        unsafe { sys::cuStreamEndCapture(self.stream().cu_stream(), &raw mut graph) }
            .result()
            .map_err(|e| self.starting(e))?;
        let graph = Graph(graph);
        joined.map(|()| Some((graph, recording)))
    }

    /// An executable of a recording: that of an earlier one of the same topology, where the driver can bring
    /// it up to this one.
    fn executable(&self, graph: &Graph, recording: Recorded, name: &'static str) -> Result<Kept> {
        let Recorded { nodes, number, freed, .. } = recording;
        let topology = (name, nodes);
        let kept = self.graphs().take(&topology);
        let executable = match kept.map(|mut kept| (kept.update(graph), kept)) {
            Some((true, kept)) => kept,
            _ => Executable::new(graph).map_err(|e| self.starting(e))?,
        };
        Ok(Kept { topology, executable, number, freed, kernels: self.kernels_since_wait() })
    }

    /// Records `work` to be started later; see [`Device::prepare`](crate::ops::Device::prepare).
    pub(super) fn record_ahead<T>(
        &self,
        name: &'static str,
        inputs: usize,
        work: impl FnOnce() -> T,
    ) -> Option<(T, Recording)> {
        if self.has_failed() || self.is_blocking() {
            return None;
        }
        self.staging().begin_ahead();
        let recorded = self.try_to_record(name, inputs, work);
        let number = recorded.as_ref().map(|(_, number)| *number);
        self.staging().end_ahead(number);
        if recorded.is_none() {
            // Whoever does the work in another way finds the reason, if there is one.
            self.take_failure();
        }
        recorded.map(|(done, number)| (done, Recording(Some(number))))
    }

    fn try_to_record<T>(
        &self,
        name: &'static str,
        inputs: usize,
        work: impl FnOnce() -> T,
    ) -> Option<(T, u64)> {
        self.reserve_staged(inputs).and_then(|()| self.begin(When::Later)).ok()?;
        let done = work();
        let (graph, recording) = self.end_capture().ok()??;
        if self.has_failed() || recording.launch == When::Never {
            return None;
        }
        let kept = self.executable(&graph, recording, name).ok()?;
        let number = kept.number;
        self.graphs().keep(kept);
        Some((done, number))
    }

    /// Starts what was recorded ahead; see [`Device::start`](crate::ops::Device::start).
    pub(super) fn start_recorded(&self, Recording(number): Recording) -> Result<bool> {
        match number.filter(|number| self.staging().hand_over(*number)) {
            Some(number) => self.repeat_recording(number),
            None => Ok(false),
        }
    }

    /// Launches the graph of a recording again; `false` where it is not kept any more, or where one of its
    /// arguments may be no more.
    pub(super) fn repeat_recording(&self, number: u64) -> Result<bool> {
        let graphs = self.graphs();
        let Some(kept) = graphs.find(number).filter(|kept| kept.freed == self.freed_allocations()) else {
            return Ok(false);
        };
        let what = |e| self.graph_complaint("starting a graph again", e);
        self.stream().context().bind_to_thread().map_err(what)?;
        self.suspect(&kept.kernels);
        self.forget_gathered();
        kept.executable.launch(self).map_err(what)?;
        Ok(true)
    }
}
