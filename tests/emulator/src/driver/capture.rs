//! Capture of streams into graphs.

use std::cell::Cell;
use std::thread::ThreadId;

use super::abi::{Handle, Out};
use super::graph::{KERNEL_NODE, Payload};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::stream::{StreamKind, with_stream};
use super::work::Work;
use super::{api, with_driver};

/// `CUstreamCaptureMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Calls of all threads are looked at.
    Global,
    /// Calls of the thread that began the capture are.
    ThreadLocal,
    /// None are.
    Relaxed,
}

impl Mode {
    fn from_code(code: u32) -> Result<Mode> {
        [Mode::Global, Mode::ThreadLocal, Mode::Relaxed]
            .into_iter()
            .find(|mode| *mode as u32 == code)
            .ok_or(Status::INVALID_VALUE)
    }
}

/// A capture under way.
pub struct Capture {
    /// The graph it goes into.
    pub graph: Handle,
    /// What it forbids.
    pub mode: Mode,
    /// The stream it began in.
    pub origin: Handle,
    /// The thread that began it.
    pub thread: ThreadId,
    /// Its context.
    pub context: Handle,
    /// Whether something went wrong.
    pub broken: bool,
}

/// A stream's part in a capture.
pub struct StreamCapture {
    /// The capture.
    pub id: u64,
    /// The nodes that what comes next will follow.
    pub frontier: Vec<Handle>,
}

thread_local! {
    /// How the thread's calls and captures get along.
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

impl Driver {
    /// The capture that a stream takes part in, which must be sound.
    fn capture_of(&self, stream: Handle) -> Result<u64> {
        let id = self.stream(stream)?.capture.as_ref().map(|c| c.id).ok_or(Status::ILLEGAL_STATE)?;
        match self.captures.get(&id) {
            Some(capture) if !capture.broken => Ok(id),
            _ => Err(Status::STREAM_CAPTURE_INVALIDATED),
        }
    }

    fn break_capture(&mut self, id: u64) {
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.broken = true;
        }
    }

    /// Invalidates the capture that a stream takes part in, if any.
    pub fn break_capture_of(&mut self, stream: Handle) {
        let id = self.streams.get(&stream).and_then(|s| s.capture.as_ref()).map(|c| c.id);
        if let Some(id) = id {
            self.break_capture(id);
        }
    }

    /// Adds work to the graph that a stream is captured into.
    pub fn capture_work(&mut self, stream: Handle, work: Work) -> Result {
        self.capture_payload(stream, Payload::Work(work))
    }

    fn capture_payload(&mut self, stream: Handle, payload: Payload) -> Result {
        let id = self.capture_of(stream)?;
        let graph = self.captures[&id].graph;
        let frontier = self.frontier(stream);
        let programmatic = matches!(&payload, Payload::Work(Work::Kernel(kernel)) if kernel.programmatic);
        let node = self.add_node(graph, &frontier, payload)?;
        if let (true, [before]) = (programmatic, &frontier[..])
            && self.node(*before)?.payload.node_type() == KERNEL_NODE
        {
            self.node_mut(node)?.programmatic.push(*before);
        }
        self.set_frontier(stream, id, vec![node])
    }

    fn frontier(&self, stream: Handle) -> Vec<Handle> {
        let capture = self.streams.get(&stream).and_then(|s| s.capture.as_ref());
        capture.map(|c| c.frontier.clone()).unwrap_or_default()
    }

    fn set_frontier(&mut self, stream: Handle, id: u64, frontier: Vec<Handle>) -> Result {
        self.stream_mut(stream)?.capture = Some(StreamCapture { id, frontier });
        Ok(())
    }

    /// Records an event in a stream that is captured: it stands for the nodes so far, or becomes a node
    /// itself.
    pub fn capture_record(&mut self, event: Handle, stream: Handle, external: bool) -> Result {
        if external {
            return self.capture_payload(stream, Payload::Record(event));
        }
        let id = self.capture_of(stream)?;
        let frontier = self.frontier(stream);
        let event = self.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)?;
        event.captured = Some((id, frontier));
        event.record = None;
        event.time = None;
        Ok(())
    }

    /// Makes a stream wait for an event where at least one of them is captured.
    pub fn capture_wait(&mut self, stream: Handle, event: Handle, external: bool) -> Result {
        if external {
            return self.capture_payload(stream, Payload::Wait(event));
        }
        let event = self.event(event)?;
        let (captured, recorded) = (event.captured.clone(), event.record.is_some());
        let own = match self.stream(stream)?.capture {
            Some(_) => Some(self.capture_of(stream)?),
            None => None,
        };
        match (captured, own) {
            (None, Some(own)) if recorded => {
                self.break_capture(own);
                Err(Status::STREAM_CAPTURE_ISOLATION)
            }
            (None, _) => Ok(()),
            (Some((id, nodes)), own) => self.join_capture(stream, own, id, nodes),
        }
    }

    /// Adds `nodes` of a capture to those that a stream's next work follows.
    fn join_capture(&mut self, stream: Handle, own: Option<u64>, id: u64, nodes: Vec<Handle>) -> Result {
        let sound = self.captures.get(&id).is_some_and(|capture| !capture.broken);
        if !sound {
            // The capture is over, and with it what the event stood for.
            return Err(Status::STREAM_CAPTURE_INVALIDATED);
        }
        if let Some(own) = own.filter(|own| *own != id) {
            self.break_capture(own);
            self.break_capture(id);
            return Err(Status::STREAM_CAPTURE_MERGE);
        }
        if self.stream(stream)?.kind == StreamKind::Legacy {
            self.break_capture(id);
            return Err(Status::STREAM_CAPTURE_IMPLICIT);
        }
        let mut frontier = self.frontier(stream);
        frontier.extend(nodes.into_iter().filter(|node| self.nodes.contains_key(node)));
        frontier.sort_unstable();
        frontier.dedup();
        self.set_frontier(stream, id, frontier)
    }

    /// Refuses to wait for a stream that is captured.
    pub fn refuse_captured_stream(&mut self, stream: Handle) -> Result {
        if self.stream(stream)?.capture.is_none() {
            return Ok(());
        }
        let id = self.capture_of(stream)?;
        self.break_capture(id);
        Err(Status::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses what could disturb a capture, by the rules of the capture's mode and the thread's.
    pub fn refuse_while_capturing(&mut self) -> Result {
        let (thread, mode) = (std::thread::current().id(), MODE.get());
        let disturbs = |capture: &Capture| {
            let own = capture.thread == thread;
            match mode {
                Mode::Relaxed => false,
                _ if own => capture.mode != Mode::Relaxed,
                Mode::ThreadLocal => false,
                Mode::Global => capture.mode == Mode::Global,
            }
        };
        self.break_those(disturbs, Status::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Refuses to wait for a context in which something is captured.
    pub fn refuse_captures_of(&mut self, context: Handle) -> Result {
        self.break_those(|capture| capture.context == context, Status::STREAM_CAPTURE_UNSUPPORTED)
    }

    fn break_those(&mut self, which: impl Fn(&Capture) -> bool, status: Status) -> Result {
        let mut result = Ok(());
        for capture in self.captures.values_mut().filter(|capture| which(capture)) {
            capture.broken = true;
            result = Err(status);
        }
        result
    }

    /// Refuses work in the legacy default stream that would have to wait for a stream that is captured.
    pub fn refuse_implicit_capture(&mut self, stream: Handle) -> Result {
        let stream = self.stream(stream)?;
        if stream.kind != StreamKind::Legacy {
            return Ok(());
        }
        let context = stream.context;
        let waits = |s: &&super::stream::Stream| s.context == context && s.kind == StreamKind::Blocking;
        let captured = self.streams.values().filter(waits).filter_map(|s| s.capture.as_ref()).map(|c| c.id);
        let captured: Vec<u64> = captured.collect();
        if captured.is_empty() {
            return Ok(());
        }
        captured.into_iter().for_each(|id| self.break_capture(id));
        Err(Status::STREAM_CAPTURE_IMPLICIT)
    }

    /// Forgets the captures of a context that goes away.
    pub fn abandon_captures(&mut self, context: Handle) {
        let ids: Vec<u64> =
            self.captures.iter().filter(|(_, c)| c.context == context).map(|(id, _)| *id).collect();
        for id in ids {
            self.leave_capture(id, false);
        }
    }

    fn begin_capture(&mut self, stream: Handle, mode: Mode) -> Result {
        let state = self.stream(stream)?;
        if state.kind == StreamKind::Legacy {
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        if state.capture.is_some() {
            return Err(Status::ILLEGAL_STATE);
        }
        let context = state.context;
        let graph = self.new_graph();
        let id = self.new_handle(Kind::Graph) >> 4;
        let thread = std::thread::current().id();
        self.captures.insert(id, Capture { graph, mode, origin: stream, thread, context, broken: false });
        self.set_frontier(stream, id, Vec::new())
    }

    fn end_capture(&mut self, stream: Handle) -> Result<Handle> {
        let id = self.stream(stream)?.capture.as_ref().map(|c| c.id).ok_or(Status::ILLEGAL_STATE)?;
        let capture = self.captures.get(&id).ok_or(Status::ILLEGAL_STATE)?;
        let graph = capture.graph;
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(Status::STREAM_CAPTURE_WRONG_THREAD);
        }
        if capture.origin != stream {
            self.break_capture(id);
            return Err(Status::STREAM_CAPTURE_UNMATCHED);
        }
        let result = if capture.broken {
            Err(Status::STREAM_CAPTURE_INVALIDATED)
        } else if !self.all_joined(id, graph, stream) {
            Err(Status::STREAM_CAPTURE_UNJOINED)
        } else {
            Ok(graph)
        };
        self.leave_capture(id, result.is_ok());
        result
    }

    /// Whether all that other streams were given comes before what the first stream ends with.
    fn all_joined(&self, id: u64, graph: Handle, origin: Handle) -> bool {
        let Some(graph) = self.graphs.get(&graph) else { return false };
        let before = graph.ancestors(&self.frontier(origin));
        let captures = self.streams.values().filter_map(|stream| stream.capture.as_ref());
        captures.filter(|c| c.id == id).flat_map(|c| &c.frontier).all(|node| before.contains(node))
    }

    fn leave_capture(&mut self, id: u64, keep_graph: bool) {
        for stream in self.streams.values_mut() {
            if stream.capture.as_ref().is_some_and(|c| c.id == id) {
                stream.capture = None;
            }
        }
        if let Some(capture) = self.captures.remove(&id)
            && !keep_graph
        {
            self.remove_graph(capture.graph);
        }
    }

    /// `CUstreamCaptureStatus` of a stream.
    fn capture_status(&self, stream: Handle) -> Result<u32> {
        let capture = self.stream(stream)?.capture.as_ref();
        let broken = capture.map(|c| self.captures.get(&c.id).is_none_or(|capture| capture.broken));
        Ok(match broken {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        })
    }
}

/// Where the facts about a capture go.
struct CaptureInfo {
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<Handle>,
    nodes: Out<*const Handle>,
    count: Out<usize>,
}

fn capture_info(stream: Handle, out: CaptureInfo) -> Result {
    out.status.check()?;
    with_stream(stream, |driver, stream| {
        let status = driver.capture_status(stream)?;
        out.status.set(status)?;
        let Some(capture) = driver.stream(stream)?.capture.as_ref().filter(|_| status == 1) else {
            return Ok(());
        };
        out.id.set_if_wanted(capture.id);
        out.graph.set_if_wanted(driver.captures[&capture.id].graph);
        out.nodes.set_if_wanted(capture.frontier.as_ptr());
        out.count.set_if_wanted(capture.frontier.len());
        Ok(())
    })
}

api! {
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) {
        let mode = Mode::from_code(mode)?;
        with_stream(stream, |driver, stream| driver.begin_capture(stream, mode))
    }

    fn cuStreamEndCapture(stream: Handle, out: Out<Handle>) {
        out.set(0)?;
        with_stream(stream, |driver, stream| out.set(driver.end_capture(stream)?))
    }

    fn cuStreamIsCapturing(stream: Handle, out: Out<u32>) {
        with_stream(stream, |driver, stream| {
            driver.refuse_implicit_capture(stream)?;
            out.set(driver.capture_status(stream)?)
        })
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: Handle, status: Out<u32>, id: Out<u64>, graph: Out<Handle>, nodes: Out<*const Handle>,
        count: Out<usize>,
    ) {
        capture_info(stream, CaptureInfo { status, id, graph, nodes, count })
    }

    fn cuStreamGetCaptureInfo_v3(
        stream: Handle, status: Out<u32>, id: Out<u64>, graph: Out<Handle>, nodes: Out<*const Handle>,
        edge_data: Out<*const std::ffi::c_void>, count: Out<usize>,
    ) {
        edge_data.set_if_wanted(std::ptr::null());
        capture_info(stream, CaptureInfo { status, id, graph, nodes, count })
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        let new = Mode::from_code(mode.get()?)?;
        with_driver(|_| mode.set(MODE.replace(new) as u32))
    }
}
