//! What operations do when their turn comes.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::abi::{Handle, HostFunction, PollFunction};
use super::copy::{Copy, Fill};
use super::queue::{Chooser, OpId};
use super::state::Driver;
use super::status::{Result, Status};
use super::{IN_HOST_FUNCTION, complain, panic_message};
use crate::machine::{Function, Launch};
use crate::memory::footprint::Footprint;
use crate::report::{Fault, FaultKind};
use crate::schedule::beside::{self, Beside};

/// A kernel with its arguments.
#[derive(Clone)]
pub struct Kernel {
    /// The handle it was launched by.
    pub handle: Handle,
    /// The kernel.
    pub function: Arc<Function>,
    /// Geometry and arguments.
    pub launch: Launch,
    /// Whether it need not wait for the end of the kernel before it in its stream.
    pub programmatic: bool,
}

/// A function on the host.
#[derive(Clone, Copy)]
pub struct HostCall {
    /// The function.
    pub function: HostFunction,
    /// Its argument.
    pub data: *mut c_void,
}

// SAFETY: whoever queues a call promises that it may be made on any thread, as the driver API says it will
// be.
unsafe impl Send for HostCall {}

/// Something outside the device that a stream waits for.
#[derive(Clone, Copy)]
pub struct Outside {
    /// Tells whether it is done.
    pub poll: PollFunction,
    /// Its argument.
    pub data: *mut c_void,
}

// SAFETY: as for `HostCall`.
unsafe impl Send for Outside {}

/// Between two looks at what is outside: others may need the processor for it.
const LOOK: Duration = Duration::from_micros(20);

/// What an operation does.
#[derive(Clone)]
pub enum Work {
    /// Nothing but to order others.
    Nothing,
    /// Runs a kernel.
    Kernel(Arc<Kernel>),
    /// Copies memory.
    Copy(Arc<Copy>),
    /// Fills memory.
    Fill(Fill),
    /// Takes the time for an event.
    Record(Handle),
    /// Calls a function.
    Host(HostCall),
    /// Frees memory.
    Free(u64),
    /// Waits for something outside the device.
    Outside(Outside),
}

impl Driver {
    /// Does operations until all of `targets` are done.
    pub fn run_until(&mut self, context: Handle, targets: &[OpId]) -> Result {
        while targets.iter().any(|id| !self.queue.is_done(*id)) {
            self.step(context)?;
        }
        self.check_sound(context)
    }

    /// Does everything that was queued in a context.
    pub fn run_all(&mut self, context: Handle) -> Result {
        while !self.queue.is_idle(context) {
            self.step(context)?;
        }
        self.check_sound(context)
    }

    /// Does everything that was queued anywhere.
    pub fn run_everything(&mut self) {
        let mut chooser = Chooser::new(self.seed);
        while let Some((id, context, work)) = self.queue.pick(None, &mut chooser) {
            self.perform(id, context, work);
        }
    }

    /// Does one operation: of this context if one can be done, else of any other that holds it back.
    pub fn step(&mut self, context: Handle) -> Result {
        let mut chooser = Chooser::new(self.seed);
        if let Some(context) = self.contexts.get_mut(&context) {
            std::mem::swap(&mut chooser, &mut context.chooser);
        }
        let next =
            self.queue.pick(Some(context), &mut chooser).or_else(|| self.queue.pick(None, &mut chooser));
        if let Some(context) = self.contexts.get_mut(&context) {
            context.chooser = chooser;
        }
        let (id, context, work) = next.ok_or(Status::UNKNOWN)?;
        self.perform(id, context, work);
        Ok(())
    }

    /// Does an operation, unless its context has failed, and reports it done; what waits for something
    /// outside stays undone until that is.
    fn perform(&mut self, id: OpId, context: Handle, work: Work) {
        if let Work::Outside(outside) = &work
            && self.check_sound(context).is_ok()
            && !is_done(*outside)
        {
            std::thread::sleep(LOOK);
            return self.queue.put_back(id);
        }
        if self.check_sound(context).is_ok()
            && let Err(fault) = self.execute(id, context, work)
        {
            self.fail(context, &fault);
        }
        self.queue.finish(id);
    }

    fn execute(&mut self, id: OpId, context: Handle, work: Work) -> std::result::Result<(), Box<Fault>> {
        match work {
            Work::Nothing | Work::Outside(_) => Ok(()),
            Work::Kernel(kernel) => self.run_kernel(id, context, &kernel),
            Work::Copy(copy) => copy.run(&self.machine.memory),
            Work::Fill(fill) => fill.run(&self.machine.memory),
            Work::Record(event) => {
                if let Some(event) = self.events.get_mut(&event)
                    && event.record == Some(id)
                {
                    event.time = Some(Instant::now());
                }
                Ok(())
            }
            Work::Host(call) => {
                call_host(call);
                Ok(())
            }
            Work::Free(address) => {
                self.release(address);
                Ok(())
            }
        }
    }

    fn run_kernel(
        &mut self,
        id: OpId,
        context: Handle,
        kernel: &Kernel,
    ) -> std::result::Result<(), Box<Fault>> {
        if let Some(context) = self.contexts.get_mut(&context) {
            self.machine.options.seed = context.chooser.seed();
        }
        if !self.executes {
            return Ok(());
        }
        let before = self.queue.footprints(id);
        if before.is_some() || self.queue.is_primary(id) {
            return self.run_programmatic(id, context, kernel, before);
        }
        if let Some(sample) = &mut self.sample {
            if let Some(counters) = sample.known(kernel, &self.machine.memory) {
                sample.note(kernel, &self.machine.memory, counters);
                return Ok(());
            }
            self.machine.options.most_clusters = sample.most_clusters(&kernel.function.name);
        }
        let counters = run(kernel, || self.machine.launch(&kernel.function, &kernel.launch))?;
        if let Some(sample) = &mut self.sample {
            sample.note(kernel, &self.machine.memory, counters);
        }
        self.tally.add(&kernel.function.name, &counters);
        Ok(())
    }

    /// Runs a kernel that may run beside the one before it, or the one after it, and that one too where
    /// chance has it.
    fn run_programmatic(
        &mut self,
        id: OpId,
        context: Handle,
        kernel: &Kernel,
        before: Option<Vec<Arc<Footprint>>>,
    ) -> std::result::Result<(), Box<Fault>> {
        let own = before.map_or_else(Beside::primary, Beside::dependent_on);
        let overlaps = !kernel.launch.cooperative
            && self.contexts.get_mut(&context).is_some_and(|context| context.chooser.overlaps());
        let dependent = if overlaps { self.queue.take_dependent(id) } else { None };
        let Some((next, second)) = dependent else {
            let launch = || self.machine.launch_with(&kernel.function, &kernel.launch, &own);
            let counters = run(kernel, launch)?;
            self.tally.add(&kernel.function.name, &counters);
            self.queue.tell_dependents(id, &own.primaries_of_dependents());
            return Ok(());
        };
        let parts = beside::pair(own);
        let kernels = [kernel, &*second].map(|k| (&*k.function, &k.launch));
        let counters = run(kernel, || self.machine.launch_beside(kernels, parts.each_ref()))?;
        for (kernel, counters) in [kernel, &*second].into_iter().zip(&counters) {
            self.tally.add(&kernel.function.name, counters);
        }
        for (id, part) in [id, next].into_iter().zip(&parts) {
            self.queue.tell_dependents(id, &part.primaries_of_dependents());
        }
        Ok(())
    }

    /// Makes a context fail for good.
    fn fail(&mut self, context: Handle, fault: &Fault) {
        self.last_fault = describe(fault);
        complain(&self.last_fault);
        if let Some(context) = self.contexts.get_mut(&context) {
            context.fault = Some(fault_status(fault));
        }
    }
}

/// Runs a kernel; a panic is a fault, and every fault names a kernel.
fn run<T>(
    kernel: &Kernel,
    launch: impl FnOnce() -> std::result::Result<T, Box<Fault>>,
) -> std::result::Result<T, Box<Fault>> {
    let result = catch_unwind(AssertUnwindSafe(launch)).unwrap_or_else(|panic| {
        let message = format!("the emulator panicked: {}", panic_message(&*panic));
        Err(Fault::new(FaultKind::Unsupported, message))
    });
    result.map_err(|mut fault| {
        if fault.kernel.is_empty() {
            fault.kernel.clone_from(&kernel.function.name);
        }
        fault
    })
}

/// A fault in words; outside kernels there is no place to name but the address.
fn describe(fault: &Fault) -> String {
    if !fault.kernel.is_empty() {
        return fault.to_string();
    }
    let address = fault.address.map_or(String::new(), |address| format!(" at {address:#x}"));
    format!("{:?} in a copy or fill{address}: {}", fault.kind, fault.message)
}

/// Calls a function on the host, which may not call the driver meanwhile.
fn call_host(call: HostCall) {
    IN_HOST_FUNCTION.set(true);
    // SAFETY: whoever queued the call promised that function and argument are still good when its turn comes.
    unsafe { (call.function)(call.data) };
    IN_HOST_FUNCTION.set(false);
}

/// Whether something outside is done; who tells it may not call the driver meanwhile.
fn is_done(outside: Outside) -> bool {
    IN_HOST_FUNCTION.set(true);
    // SAFETY: as in `call_host`; it may be called any number of times.
    let done = unsafe { (outside.poll)(outside.data) };
    IN_HOST_FUNCTION.set(false);
    done != 0
}

/// The error that a device would report for a fault.
fn fault_status(fault: &Fault) -> Status {
    match fault.kind {
        FaultKind::OutOfBounds | FaultKind::UseAfterFree => Status::ILLEGAL_ADDRESS,
        FaultKind::Misaligned => Status::MISALIGNED_ADDRESS,
        FaultKind::NotConverged => Status::ILLEGAL_INSTRUCTION,
        FaultKind::Deadlock | FaultKind::Timeout => Status::LAUNCH_TIMEOUT,
        FaultKind::Trap if fault.message.starts_with("assert") => Status::ASSERT,
        FaultKind::Unsupported => Status::NOT_SUPPORTED,
        FaultKind::Uninitialised
        | FaultKind::Race
        | FaultKind::MissingProxyFence
        | FaultKind::InFlight
        | FaultKind::Barrier
        | FaultKind::Trap => Status::LAUNCH_FAILED,
    }
}
