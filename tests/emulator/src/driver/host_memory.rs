//! Pinned, registered and managed memory: host memory that the device can access at the same address.

use std::ffi::c_void;

use super::abi::{Handle, Out};
use super::memory::{Allocation, Origin};
use super::state::Driver;
use super::status::{Result, Status};
use super::{api, with_context};
use crate::memory::zeroed::Zeroed;

/// Pages.
const PAGE: usize = 4096;
/// `CU_MEMHOSTALLOC_PORTABLE`, `…_DEVICEMAP` and `…_WRITECOMBINED`.
const ALLOC_FLAGS: u32 = 7;
/// `CU_MEMHOSTREGISTER_PORTABLE`, `…_DEVICEMAP` and `…_READ_ONLY`.
const REGISTER_FLAGS: u32 = 1 | 2 | 8;
/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH_FLAGS: [u32; 2] = [1, 2];

impl Driver {
    fn map_new(&mut self, context: Handle, len: usize, origin: Origin) -> Result<u64> {
        self.refuse_while_capturing()?;
        if len == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let memory = Zeroed::new(len, PAGE).ok_or(Status::OUT_OF_MEMORY)?;
        let pointer = memory.as_ptr();
        self.map(context, pointer, len, origin, Some(memory));
        Ok(pointer as u64)
    }

    fn map(
        &mut self,
        context: Handle,
        pointer: *mut u8,
        len: usize,
        origin: Origin,
        on_host: Option<Zeroed>,
    ) {
        let len = len as u64;
        // SAFETY: it stays valid until `release` frees it, or, where the program allocated it, until it
        // unregisters it.
        let address = unsafe { self.machine.memory.map_host(pointer, len) };
        self.allocations.insert(address, Allocation { len, context, origin, dying: false, on_host });
    }

    /// Takes memory that is `wanted` from the device, after all work of its context that may use it.
    pub fn unmap(
        &mut self,
        context: Handle,
        address: u64,
        wanted: fn(&Origin) -> bool,
        other: Status,
    ) -> Result {
        self.refuse_while_capturing()?;
        let allocation = self.allocations.get(&address).ok_or(other)?;
        if !wanted(&allocation.origin) {
            return Err(other);
        }
        let owner = allocation.context;
        self.run_all(owner)?;
        self.check_sound(context)?;
        self.release(address);
        Ok(())
    }

    /// Refuses memory that is not managed.
    pub fn check_managed(&self, address: u64, len: usize) -> Result {
        let (_, allocation) = self.allocation_around(address)?;
        if !matches!(allocation.origin, Origin::Managed) {
            return Err(Status::INVALID_VALUE);
        }
        self.check_range(address, len)
    }

    /// Pinned or registered memory that `address` lies in.
    fn pinned_around(&self, address: u64) -> Result<&Allocation> {
        let (_, allocation) = self.allocation_around(address)?;
        let pinned = matches!(allocation.origin, Origin::Pinned { .. } | Origin::Registered);
        if pinned { Ok(allocation) } else { Err(Status::INVALID_VALUE) }
    }

    /// Whether `address` is in pinned or registered memory.
    pub fn is_pinned(&self, address: u64) -> bool {
        self.pinned_around(address).is_ok()
    }

    fn register(&mut self, context: Handle, pointer: *mut u8, len: usize) -> Result {
        self.refuse_while_capturing()?;
        if pointer.is_null() || len == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let (start, end) = (pointer as u64, pointer as u64 + len as u64);
        let below = self.allocations.range(..end).next_back();
        if below.is_some_and(|(base, allocation)| base + allocation.len > start) {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        self.map(context, pointer, len, Origin::Registered, None);
        Ok(())
    }
}

fn alloc_pinned(out: Out<*mut c_void>, len: usize, flags: u32) -> Result {
    out.check()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(Status::INVALID_VALUE);
    }
    with_context(|driver, context| {
        let address = driver.map_new(context, len, Origin::Pinned { flags })?;
        out.set(address as *mut c_void)
    })
}

api! {
    fn cuMemHostAlloc(out: Out<*mut c_void>, len: usize, flags: u32) {
        alloc_pinned(out, len, flags)
    }

    fn cuMemAllocHost_v2(out: Out<*mut c_void>, len: usize) {
        alloc_pinned(out, len, 0)
    }

    fn cuMemFreeHost(pointer: *mut c_void) {
        let pinned = |origin: &Origin| matches!(origin, Origin::Pinned { .. });
        with_context(|driver, context| {
            driver.unmap(context, pointer as u64, pinned, Status::INVALID_VALUE)
        })
    }

    fn cuMemHostGetDevicePointer_v2(out: Out<u64>, pointer: *mut c_void, flags: u32) {
        out.check()?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, _| {
            driver.pinned_around(pointer as u64)?;
            out.set(pointer as u64)
        })
    }

    fn cuMemHostGetFlags(out: Out<u32>, pointer: *mut c_void) {
        with_context(|driver, _| match driver.pinned_around(pointer as u64)?.origin {
            Origin::Pinned { flags, .. } => out.set(flags),
            _ => Err(Status::INVALID_VALUE),
        })
    }

    fn cuMemHostRegister_v2(pointer: *mut c_void, len: usize, flags: u32) {
        if flags & !REGISTER_FLAGS != 0 {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, context| driver.register(context, pointer.cast(), len))
    }

    fn cuMemHostUnregister(pointer: *mut c_void) {
        let registered = |origin: &Origin| matches!(origin, Origin::Registered);
        with_context(|driver, context| {
            driver.unmap(context, pointer as u64, registered, Status::HOST_MEMORY_NOT_REGISTERED)
        })
    }

    fn cuMemAllocManaged(out: Out<u64>, len: usize, flags: u32) {
        out.check()?;
        if !ATTACH_FLAGS.contains(&flags) {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, context| out.set(driver.map_new(context, len, Origin::Managed)?))
    }
}
