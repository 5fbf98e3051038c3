//! Contexts.

use std::cell::RefCell;

use super::abi::{Device, Handle, Out};
use super::queue::{Chooser, OpId};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::{api, unsupported, with_context, with_driver};

/// A context.
pub struct Context {
    /// Flags it was made with.
    pub flags: u32,
    /// The error that every call returns since a kernel failed.
    pub fault: Option<Status>,
    /// Its legacy default stream.
    pub legacy: Handle,
    /// What destroyed streams left to do that the legacy default stream waits for.
    pub orphans: Vec<OpId>,
    /// Decides the order of its operations.
    pub chooser: Chooser,
    /// `CUfunc_cache`.
    pub cache_config: u32,
    /// Limits by `CUlimit`.
    pub limits: [usize; LIMITS],
}

/// The primary context of the device.
#[derive(Default)]
pub struct Primary {
    /// Its handle, also while it does not exist.
    pub handle: Handle,
    /// How many times it is retained.
    pub references: usize,
    /// Flags for it.
    pub flags: u32,
}

/// Limits that can be set, from `CU_LIMIT_STACK_SIZE`.
const LIMITS: usize = 7;
/// Stack, printf buffer, heap, depth and number of pending launches, L2 fetch granularity, persisting L2.
const DEFAULT_LIMITS: [usize; LIMITS] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];
/// Scheduling flags that may be combined with others.
const SCHEDULE_MASK: u32 = 7;
/// All flags that are known.
const FLAGS: u32 = SCHEDULE_MASK | 8 | 16 | 32 | 64 | 128;

thread_local! {
    static CURRENT: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The thread's current context, existing or not; zero for none.
fn top() -> Handle {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

impl Driver {
    /// The thread's current context, which must exist.
    pub fn current_context(&self) -> Result<Handle> {
        match top() {
            0 => Err(Status::INVALID_CONTEXT),
            context => self.context(context).map(|_| context),
        }
    }

    fn create_context(&mut self, handle: Handle, flags: u32) {
        let legacy = self.new_legacy_stream(handle);
        let context = Context {
            flags,
            fault: None,
            legacy,
            orphans: Vec::new(),
            chooser: Chooser::new(self.seed),
            cache_config: 0,
            limits: DEFAULT_LIMITS,
        };
        self.contexts.insert(handle, context);
    }

    /// Destroys a context and everything in it, after its work was done.
    fn destroy_context(&mut self, handle: Handle) {
        while !self.queue.is_idle(handle) && self.step(handle).is_ok() {}
        self.abandon_captures(handle);
        self.streams.retain(|_, stream| stream.context != handle);
        self.thread_streams.retain(|(context, _), _| *context != handle);
        self.events.retain(|_, event| event.context != handle);
        self.functions.retain(|_, function| function.context != handle);
        self.modules.retain(|_, module| module.context != handle);
        self.free_all(handle);
        self.contexts.remove(&handle);
        CURRENT.with_borrow_mut(|stack| {
            if stack.last() == Some(&handle) {
                stack.pop();
            }
        });
        self.tally.report();
    }
}

fn check_flags(flags: u32) -> Result {
    let schedule = flags & SCHEDULE_MASK;
    let valid = flags & !FLAGS == 0 && (schedule == 0 || schedule.is_power_of_two());
    if valid { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

fn create(out: Out<Handle>, flags: u32, device: Device) -> Result {
    out.check()?;
    check_flags(flags)?;
    with_driver(|driver| {
        driver.take_device(device)?;
        let handle = driver.new_handle(Kind::Context);
        driver.create_context(handle, flags);
        CURRENT.with_borrow_mut(|stack| stack.push(handle));
        out.set(handle)
    })
}

/// The address and the value of a limit.
fn limit_index(limit: u32) -> Result<usize> {
    let index = limit as usize;
    if index < LIMITS { Ok(index) } else { Err(Status::INVALID_VALUE) }
}

fn release_primary(device: Device) -> Result {
    with_driver(|driver| {
        driver.check_device(device)?;
        match driver.primary.references {
            0 => Err(Status::INVALID_CONTEXT),
            1 => {
                driver.primary.references = 0;
                driver.destroy_context(driver.primary.handle);
                Ok(())
            }
            _ => {
                driver.primary.references -= 1;
                Ok(())
            }
        }
    })
}

api! {
    fn cuDevicePrimaryCtxRetain(out: Out<Handle>, device: Device) {
        out.check()?;
        with_driver(|driver| {
            driver.take_device(device)?;
            let handle = driver.primary.handle;
            if driver.primary.references == 0 && !driver.contexts.contains_key(&handle) {
                driver.create_context(handle, driver.primary.flags);
            }
            driver.primary.references += 1;
            out.set(handle)
        })
    }

    fn cuDevicePrimaryCtxRelease(device: Device) {
        release_primary(device)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: Device) {
        release_primary(device)
    }

    fn cuDevicePrimaryCtxReset_v2(device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            let handle = driver.primary.handle;
            if driver.contexts.contains_key(&handle) {
                driver.destroy_context(handle);
            }
            if driver.primary.references > 0 {
                driver.create_context(handle, driver.primary.flags);
            }
            Ok(())
        })
    }

    fn cuDevicePrimaryCtxGetState(device: Device, flags: Out<u32>, active: Out<i32>) {
        with_driver(|driver| {
            driver.check_device(device)?;
            flags.set(driver.primary.flags)?;
            let is_own = driver.own_device() == device;
            active.set(i32::from(is_own && driver.primary.references > 0))
        })
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: Device, flags: u32) {
        check_flags(flags)?;
        with_driver(|driver| {
            driver.check_device(device)?;
            driver.primary.flags = flags;
            Ok(())
        })
    }

    fn cuCtxCreate_v2(out: Out<Handle>, flags: u32, device: Device) {
        create(out, flags, device)
    }

    fn cuCtxCreate_v3(
        out: Out<Handle>, affinity: *mut std::ffi::c_void, count: i32, flags: u32, device: Device,
    ) {
        if !affinity.is_null() || count != 0 {
            return unsupported("a context's execution affinity");
        }
        create(out, flags, device)
    }

    fn cuCtxCreate_v4(out: Out<Handle>, params: *const std::ffi::c_void, flags: u32, device: Device) {
        with_driver(|driver| driver.require_version(12050))?;
        if !params.is_null() {
            return unsupported("CUctxCreateParams");
        }
        create(out, flags, device)
    }

    fn cuCtxDestroy_v2(context: Handle) {
        with_driver(|driver| {
            driver.context(context)?;
            if context == driver.primary.handle {
                return Err(Status::INVALID_CONTEXT);
            }
            driver.destroy_context(context);
            Ok(())
        })
    }

    fn cuCtxGetCurrent(out: Out<Handle>) {
        with_driver(|_| out.set(top()))
    }

    fn cuCtxSetCurrent(context: Handle) {
        with_driver(|driver| {
            if context != 0 {
                driver.context(context)?;
            }
            CURRENT.with_borrow_mut(|stack| {
                stack.pop();
                if context != 0 {
                    stack.push(context);
                }
            });
            Ok(())
        })
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
        with_driver(|driver| {
            driver.context(context)?;
            CURRENT.with_borrow_mut(|stack| stack.push(context));
            Ok(())
        })
    }

    fn cuCtxPopCurrent_v2(out: Out<Handle>) {
        with_driver(|_| {
            let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(Status::INVALID_CONTEXT)?;
            out.set_if_wanted(popped);
            Ok(())
        })
    }

    fn cuCtxGetDevice(out: Out<Device>) {
        with_driver(|driver| driver.current_context().and_then(|_| out.set(driver.own_device())))
    }

    fn cuCtxGetFlags(out: Out<u32>) {
        with_context(|driver, context| out.set(driver.context(context)?.flags))
    }

    fn cuCtxSetFlags(flags: u32) {
        check_flags(flags)?;
        with_context(|driver, context| {
            driver.contexts.get_mut(&context).ok_or(Status::INVALID_CONTEXT)?.flags = flags;
            Ok(())
        })
    }

    fn cuCtxGetId(context: Handle, out: Out<u64>) {
        with_driver(|driver| {
            let context = if context == 0 { driver.current_context()? } else { context };
            driver.context(context)?;
            out.set(context)
        })
    }

    fn cuCtxGetApiVersion(context: Handle, out: Out<u32>) {
        with_driver(|driver| {
            let context = if context == 0 { driver.current_context()? } else { context };
            driver.context(context)?;
            out.set(3020)
        })
    }

    fn cuCtxSynchronize() {
        with_context(|driver, context| {
            driver.refuse_while_capturing()?;
            driver.refuse_captures_of(context)?;
            driver.run_all(context)
        })
    }

    fn cuCtxGetLimit(out: Out<usize>, limit: u32) {
        with_context(|driver, context| out.set(driver.context(context)?.limits[limit_index(limit)?]))
    }

    fn cuCtxSetLimit(limit: u32, value: usize) {
        with_context(|driver, context| {
            let index = limit_index(limit)?;
            driver.contexts.get_mut(&context).ok_or(Status::INVALID_CONTEXT)?.limits[index] = value;
            Ok(())
        })
    }

    fn cuCtxGetCacheConfig(out: Out<u32>) {
        with_context(|driver, context| out.set(driver.context(context)?.cache_config))
    }

    fn cuCtxSetCacheConfig(config: u32) {
        if config > 3 {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, context| {
            driver.contexts.get_mut(&context).ok_or(Status::INVALID_CONTEXT)?.cache_config = config;
            Ok(())
        })
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        with_context(|_, _| {
            least.set_if_wanted(super::stream::LEAST_PRIORITY);
            greatest.set_if_wanted(super::stream::GREATEST_PRIORITY);
            Ok(())
        })
    }
}
