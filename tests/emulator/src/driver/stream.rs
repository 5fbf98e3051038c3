//! Streams.

use super::abi::{Handle, HostFunction, Out, PollFunction};
use super::capture::StreamCapture;
use super::queue::OpId;
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::work::{HostCall, Outside, Work};
use super::{api, unsupported, with_context, with_driver};

/// The lowest priority.
pub const LEAST_PRIORITY: i32 = 0;
/// The highest priority.
pub const GREATEST_PRIORITY: i32 = -5;
/// Handle of the legacy default stream, besides null.
const LEGACY: Handle = 1;
/// Handle of the default stream of a thread.
const PER_THREAD: Handle = 2;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

/// How a stream behaves towards the legacy default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// The legacy default stream itself.
    Legacy,
    /// Ordered with it.
    Blocking,
    /// Not ordered with it.
    NonBlocking,
}

/// A stream.
pub struct Stream {
    /// Its context.
    pub context: Handle,
    /// How it behaves.
    pub kind: StreamKind,
    /// Its priority.
    pub priority: i32,
    /// What was queued last.
    pub tail: Option<OpId>,
    /// The capture it takes part in.
    pub capture: Option<StreamCapture>,
}

impl Driver {
    /// The legacy default stream of a new context.
    pub fn new_legacy_stream(&mut self, context: Handle) -> Handle {
        self.new_stream(context, StreamKind::Legacy, LEAST_PRIORITY)
    }

    fn new_stream(&mut self, context: Handle, kind: StreamKind, priority: i32) -> Handle {
        let handle = self.new_handle(Kind::Stream);
        self.streams.insert(handle, Stream { context, kind, priority, tail: None, capture: None });
        handle
    }

    /// The stream that a handle means to the calling thread.
    pub fn resolve_stream(&mut self, context: Handle, handle: Handle) -> Result<Handle> {
        match handle {
            0 | LEGACY => Ok(self.context(context)?.legacy),
            PER_THREAD => {
                let key = (context, std::thread::current().id());
                if let Some(stream) = self.thread_streams.get(&key) {
                    return Ok(*stream);
                }
                let stream = self.new_stream(context, StreamKind::Blocking, LEAST_PRIORITY);
                self.thread_streams.insert(key, stream);
                Ok(stream)
            }
            _ => {
                let stream = self.stream(handle)?;
                self.check_sound(stream.context)?;
                Ok(handle)
            }
        }
    }

    /// Forgets a stream. Its work stays queued and is done in time.
    fn orphan(&mut self, handle: Handle) {
        let Some(stream) = self.streams.remove(&handle) else { return };
        let Some(context) = self.contexts.get_mut(&stream.context) else { return };
        context.orphans.retain(|op| !self.queue.is_done(*op));
        if stream.kind == StreamKind::Blocking {
            context.orphans.extend(stream.tail);
        }
    }

    /// A stream that exists.
    pub fn stream(&self, handle: Handle) -> Result<&Stream> {
        self.streams.get(&handle).ok_or(Status::INVALID_HANDLE)
    }

    /// A stream that exists, to be changed.
    pub fn stream_mut(&mut self, handle: Handle) -> Result<&mut Stream> {
        self.streams.get_mut(&handle).ok_or(Status::INVALID_HANDLE)
    }

    /// What work added to a stream must follow: the work before it, and across the legacy default stream.
    pub fn order_in(&self, handle: Handle) -> Result<Vec<OpId>> {
        let stream = self.stream(handle)?;
        let mut after: Vec<OpId> = stream.tail.into_iter().collect();
        let crossed = |other: &&Stream| {
            other.context == stream.context
                && matches!(
                    (stream.kind, other.kind),
                    (StreamKind::Legacy, StreamKind::Blocking) | (StreamKind::Blocking, StreamKind::Legacy)
                )
        };
        after.extend(self.streams.values().filter(crossed).filter_map(|other| other.tail));
        if stream.kind == StreamKind::Legacy {
            after.extend_from_slice(&self.context(stream.context)?.orphans);
        }
        Ok(after)
    }

    /// Queues work in a stream that is not being captured.
    pub fn enqueue(&mut self, handle: Handle, also_after: &[OpId], work: Work) -> Result<OpId> {
        let mut after = self.order_in(handle)?;
        after.extend_from_slice(also_after);
        after.sort_unstable();
        after.dedup();
        let context = self.stream(handle)?.context;
        // Only the work right before it counts.
        let before = match &work {
            Work::Kernel(kernel) if kernel.programmatic => self.stream(handle)?.tail,
            _ => None,
        };
        let id = self.queue.push_programmatic(context, handle, &after, before.as_slice(), work);
        self.stream_mut(handle)?.tail = Some(id);
        Ok(id)
    }

    /// Queues work in a stream, or adds it to the graph that the stream is being captured into.
    pub fn submit(&mut self, handle: Handle, work: Work) -> Result<Option<OpId>> {
        if self.stream(handle)?.capture.is_some() {
            self.capture_work(handle, work)?;
            return Ok(None);
        }
        self.refuse_implicit_capture(handle)?;
        self.enqueue(handle, &[], work).map(Some)
    }

    /// Does work in the legacy default stream and waits for it, as the calls without a stream do.
    pub fn submit_and_wait(&mut self, context: Handle, work: Work) -> Result {
        let op = self.submit_legacy(context, work)?;
        self.run_until(context, &[op])
    }

    /// Queues work in the legacy default stream on behalf of a call without a stream.
    pub fn submit_legacy(&mut self, context: Handle, work: Work) -> Result<OpId> {
        let legacy = self.context(context)?.legacy;
        self.refuse_implicit_capture(legacy)?;
        self.refuse_while_capturing()?;
        self.enqueue(legacy, &[], work)
    }
}

fn create(out: Out<Handle>, flags: u32, priority: i32) -> Result {
    out.check()?;
    let kind = match flags {
        0 => StreamKind::Blocking,
        NON_BLOCKING => StreamKind::NonBlocking,
        _ => return Err(Status::INVALID_VALUE),
    };
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    with_context(|driver, context| out.set(driver.new_stream(context, kind, priority)))
}

/// Calls with a stream: its handle as the thread means it.
pub fn with_stream<T>(stream: Handle, body: impl FnOnce(&mut Driver, Handle) -> Result<T>) -> Result<T> {
    with_context(|driver, context| {
        let stream = driver.resolve_stream(context, stream)?;
        body(driver, stream)
    })
}

fn launch_host(stream: Handle, function: Option<HostFunction>, data: *mut std::ffi::c_void) -> Result {
    let function = function.ok_or(Status::INVALID_VALUE)?;
    with_stream(stream, |driver, stream| {
        driver.submit(stream, Work::Host(HostCall { function, data })).map(|_| ())
    })
}

api! {
    fn cuStreamCreate(out: Out<Handle>, flags: u32) {
        create(out, flags, LEAST_PRIORITY)
    }

    fn cuStreamCreateWithPriority(out: Out<Handle>, flags: u32, priority: i32) {
        create(out, flags, priority)
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        with_driver(|driver| {
            let context = driver.stream(stream)?.context;
            driver.check_sound(context)?;
            if driver.context(context)?.legacy == stream {
                return Err(Status::INVALID_HANDLE);
            }
            driver.break_capture_of(stream);
            driver.orphan(stream);
            Ok(())
        })
    }

    fn cuStreamSynchronize(stream: Handle) {
        with_stream(stream, |driver, stream| {
            driver.refuse_captured_stream(stream)?;
            driver.refuse_while_capturing()?;
            driver.refuse_implicit_capture(stream)?;
            let context = driver.stream(stream)?.context;
            let after = driver.order_in(stream)?;
            driver.run_until(context, &after)
        })
    }

    fn cuStreamQuery(stream: Handle) {
        with_stream(stream, |driver, stream| {
            driver.refuse_captured_stream(stream)?;
            driver.refuse_while_capturing()?;
            driver.refuse_implicit_capture(stream)?;
            let context = driver.stream(stream)?.context;
            let after = driver.order_in(stream)?;
            driver.poll(context, &after)
        })
    }

    fn cuStreamGetFlags(stream: Handle, out: Out<u32>) {
        with_stream(stream, |driver, stream| {
            let non_blocking = driver.stream(stream)?.kind == StreamKind::NonBlocking;
            out.set(u32::from(non_blocking) * NON_BLOCKING)
        })
    }

    fn cuStreamGetPriority(stream: Handle, out: Out<i32>) {
        with_stream(stream, |driver, stream| out.set(driver.stream(stream)?.priority))
    }

    fn cuStreamGetCtx(stream: Handle, out: Out<Handle>) {
        with_stream(stream, |driver, stream| out.set(driver.stream(stream)?.context))
    }

    fn cuStreamGetDevice(stream: Handle, out: Out<i32>) {
        with_stream(stream, |driver, _| out.set(driver.own_device()))
    }

    fn cuStreamGetId(stream: Handle, out: Out<u64>) {
        with_stream(stream, |_, stream| out.set(stream))
    }

    fn cuLaunchHostFunc(stream: Handle, function: Option<HostFunction>, data: *mut std::ffi::c_void) {
        launch_host(stream, function, data)
    }

    // Of no driver: what streams do that wait for other devices, whose kernels are not emulated.
    fn dgemu_outside(stream: Handle, poll: Option<PollFunction>, data: *mut std::ffi::c_void) {
        let poll = poll.ok_or(Status::INVALID_VALUE)?;
        with_stream(stream, |driver, stream| {
            if driver.stream(stream)?.capture.is_some() {
                driver.break_capture_of(stream);
                return unsupported("waiting for something outside in a captured stream");
            }
            driver.submit(stream, Work::Outside(Outside { poll, data })).map(|_| ())
        })
    }

    fn cuStreamAttachMemAsync(stream: Handle, address: u64, len: usize, flags: u32) {
        if !matches!(flags, 1 | 2 | 4) {
            return Err(Status::INVALID_VALUE);
        }
        with_stream(stream, |driver, _| driver.check_range(address, len))
    }
}
