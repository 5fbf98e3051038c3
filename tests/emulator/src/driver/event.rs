//! Events.

use std::time::Instant;

use super::abi::{Handle, Out};
use super::queue::OpId;
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::stream::with_stream;
use super::work::Work;
use super::{api, unsupported, with_context, with_driver};

/// `CU_EVENT_BLOCKING_SYNC`.
const BLOCKING_SYNC: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;
/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`: a node of its own in the captured graph.
const EXTERNAL: u32 = 1;

/// An event.
pub struct Event {
    /// Its context.
    pub context: Handle,
    /// Whether it takes the time.
    pub timing: bool,
    /// The operation that it was last recorded by.
    pub record: Option<OpId>,
    /// When that was done.
    pub time: Option<Instant>,
    /// The capture that it was last recorded in, and the nodes before it.
    pub captured: Option<(u64, Vec<Handle>)>,
}

impl Driver {
    /// An event that exists.
    pub fn event(&self, handle: Handle) -> Result<&Event> {
        self.events.get(&handle).ok_or(Status::INVALID_HANDLE)
    }

    /// Queues the record of an event after the given operations.
    pub fn record_after(&mut self, event: Handle, op: OpId) {
        if let Some(event) = self.events.get_mut(&event) {
            event.record = Some(op);
            event.time = None;
            event.captured = None;
        }
    }

    fn record(&mut self, event: Handle, stream: Handle, flags: u32) -> Result {
        let context = self.event(event)?.context;
        if context != self.stream(stream)?.context {
            return Err(Status::INVALID_HANDLE);
        }
        if self.stream(stream)?.capture.is_some() {
            return self.capture_record(event, stream, flags == EXTERNAL);
        }
        self.refuse_implicit_capture(stream)?;
        let op = self.enqueue(stream, &[], Work::Record(event))?;
        self.record_after(event, op);
        Ok(())
    }

    fn wait(&mut self, stream: Handle, event: Handle, flags: u32) -> Result {
        let captured = self.event(event)?.captured.is_some();
        if captured || self.stream(stream)?.capture.is_some() {
            return self.capture_wait(stream, event, flags == EXTERNAL);
        }
        self.refuse_implicit_capture(stream)?;
        let record = self.event(event)?.record;
        match record {
            Some(op) => self.enqueue(stream, &[op], Work::Nothing).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Asks whether operations are done, after doing one more; so whoever keeps asking gets there.
    pub fn poll(&mut self, context: Handle, ops: &[OpId]) -> Result {
        if ops.iter().any(|id| !self.queue.is_done(*id)) {
            self.step(context)?;
        }
        self.check_sound(context)?;
        if ops.iter().all(|id| self.queue.is_done(*id)) { Ok(()) } else { Err(Status::NOT_READY) }
    }

    /// The operation that the host waits for or asks about.
    fn awaited(&mut self, handle: Handle) -> Result<(Handle, Option<OpId>)> {
        let event = self.event(handle)?;
        let (context, record) = (event.context, event.record);
        let captured = event.captured.is_some();
        self.check_sound(context)?;
        if captured {
            return Err(Status::CAPTURED_EVENT);
        }
        self.refuse_while_capturing()?;
        Ok((context, record))
    }

    /// When an event was reached.
    fn time_of(&mut self, handle: Handle) -> Result<Instant> {
        let event = self.event(handle)?;
        let (context, timing, record, time) = (event.context, event.timing, event.record, event.time);
        self.check_sound(context)?;
        if event_is_captured(self.event(handle)?) {
            return Err(Status::CAPTURED_EVENT);
        }
        if !timing || record.is_none() {
            return Err(Status::INVALID_HANDLE);
        }
        time.ok_or(Status::NOT_READY)
    }
}

fn event_is_captured(event: &Event) -> bool {
    event.captured.is_some()
}

fn elapsed(out: Out<f32>, start: Handle, end: Handle) -> Result {
    out.check()?;
    with_driver(|driver| {
        let (start, end) = (driver.time_of(start)?, driver.time_of(end)?);
        let seconds = match end.checked_duration_since(start) {
            Some(after) => after.as_secs_f64(),
            None => -start.duration_since(end).as_secs_f64(),
        };
        out.set((seconds * 1e3) as f32)
    })
}

fn check_external(flags: u32) -> Result {
    if flags <= EXTERNAL { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

api! {
    fn cuEventCreate(out: Out<Handle>, flags: u32) {
        out.check()?;
        if flags & !(BLOCKING_SYNC | DISABLE_TIMING | INTERPROCESS) != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if flags & INTERPROCESS != 0 {
            return unsupported("an event between processes");
        }
        with_context(|driver, context| {
            let handle = driver.new_handle(Kind::Event);
            let timing = flags & DISABLE_TIMING == 0;
            driver.events.insert(handle, Event { context, timing, record: None, time: None, captured: None });
            out.set(handle)
        })
    }

    fn cuEventDestroy_v2(event: Handle) {
        with_driver(|driver| {
            let context = driver.event(event)?.context;
            driver.check_sound(context)?;
            driver.events.remove(&event);
            Ok(())
        })
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        with_stream(stream, |driver, stream| driver.record(event, stream, 0))
    }

    fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        check_external(flags)?;
        with_stream(stream, |driver, stream| driver.record(event, stream, flags))
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        check_external(flags)?;
        with_stream(stream, |driver, stream| driver.wait(stream, event, flags))
    }

    fn cuEventSynchronize(event: Handle) {
        with_driver(|driver| {
            let (context, record) = driver.awaited(event)?;
            driver.run_until(context, record.as_slice())
        })
    }

    fn cuEventQuery(event: Handle) {
        with_driver(|driver| {
            let (context, record) = driver.awaited(event)?;
            driver.poll(context, record.as_slice())
        })
    }

    fn cuEventElapsedTime(out: Out<f32>, start: Handle, end: Handle) {
        elapsed(out, start, end)
    }

    fn cuEventElapsedTime_v2(out: Out<f32>, start: Handle, end: Handle) {
        with_driver(|driver| driver.require_version(12080))?;
        elapsed(out, start, end)
    }
}
