//! Allocations.

use super::abi::{Handle, In, Location, Out};
use super::ipc::Export;
use super::state::Driver;
use super::status::{Result, Status};
use super::stream::with_stream;
use super::work::Work;
use super::{api, unsupported, with_context};
use crate::memory::zeroed::Zeroed;

/// How memory was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the device; in stream order, if from a pool.
    Device {
        /// The pool.
        pool: Option<Handle>,
    },
    /// Pinned host memory.
    Pinned {
        /// `CU_MEMHOSTALLOC_…`.
        flags: u32,
    },
    /// Memory of host and device.
    Managed,
    /// Host memory that the program allocated and registered.
    Registered,
    /// On a device, by another process.
    Imported {
        /// What it was opened by.
        export: Export,
        /// How many times it is open.
        opens: usize,
    },
}

/// An allocation.
pub struct Allocation {
    /// Bytes.
    pub len: u64,
    /// Its context.
    pub context: Handle,
    /// How it was made.
    pub origin: Origin,
    /// Whether it will be freed in stream order.
    pub dying: bool,
    /// The host's memory that it is in, where the driver has made that.
    pub on_host: Option<Zeroed>,
}

impl Driver {
    /// Allocates on the device; where memory is short, after everything that may yet free some.
    pub fn allocate(&mut self, context: Handle, len: u64, pool: Option<Handle>) -> Result<u64> {
        let address = match self.machine.memory.alloc(len) {
            Ok(address) => address,
            Err(_) => {
                self.run_everything();
                self.check_sound(context)?;
                self.machine.memory.alloc(len).map_err(|_| Status::OUT_OF_MEMORY)?
            }
        };
        self.allocations.insert(
            address,
            Allocation { len, context, origin: Origin::Device { pool }, dying: false, on_host: None },
        );
        if let Some(pool) = pool {
            self.pool(pool)?.grow(len);
        }
        Ok(address)
    }

    /// Frees an allocation now.
    pub fn release(&mut self, address: u64) {
        let Some(allocation) = self.allocations.remove(&address) else { return };
        // The table of the device holds it exactly as long as ours does.
        let _ = self.machine.memory.free(address);
        if let Origin::Device { pool: Some(pool) } = allocation.origin
            && let Ok(pool) = self.pool(pool)
        {
            pool.shrink(allocation.len);
        }
    }

    /// Frees everything a context allocated.
    pub fn free_all(&mut self, context: Handle) {
        let own = self.allocations.iter().filter(|(_, a)| a.context == context);
        let addresses: Vec<u64> = own.map(|(address, _)| *address).collect();
        addresses.into_iter().for_each(|address| self.release(address));
    }

    /// An allocation that starts at `address` and is not being freed.
    pub fn live_allocation(&self, address: u64) -> Result<&Allocation> {
        self.allocations.get(&address).filter(|a| !a.dying).ok_or(Status::INVALID_VALUE)
    }

    /// The allocation that `address` lies in.
    pub fn allocation_around(&self, address: u64) -> Result<(u64, &Allocation)> {
        let (base, allocation) =
            self.allocations.range(..=address).next_back().ok_or(Status::INVALID_VALUE)?;
        if address - base < allocation.len { Ok((*base, allocation)) } else { Err(Status::INVALID_VALUE) }
    }

    fn allocate_in_order(&mut self, stream: Handle, len: usize, pool: Handle) -> Result<u64> {
        if self.stream(stream)?.capture.is_some() {
            self.break_capture_of(stream);
            return unsupported("allocating memory in a captured stream");
        }
        self.pool(pool)?;
        if len == 0 {
            return Ok(0);
        }
        let context = self.stream(stream)?.context;
        self.allocate(context, len as u64, Some(pool))
    }

    fn free_in_order(&mut self, stream: Handle, address: u64) -> Result {
        if self.stream(stream)?.capture.is_some() {
            self.break_capture_of(stream);
            return unsupported("freeing memory in a captured stream");
        }
        if address == 0 {
            return Ok(());
        }
        let allocation = self.allocations.get_mut(&address).ok_or(Status::INVALID_VALUE)?;
        if allocation.dying || !matches!(allocation.origin, Origin::Device { .. }) {
            return Err(Status::INVALID_VALUE);
        }
        allocation.dying = true;
        self.submit(stream, Work::Free(address)).map(|_| ())
    }

    /// Frees memory for a call without a stream, after all work of the context that may use it.
    fn free_now(&mut self, context: Handle, address: u64) -> Result {
        self.refuse_while_capturing()?;
        let allocation = self.live_allocation(address)?;
        if !matches!(allocation.origin, Origin::Device { .. } | Origin::Managed) {
            return Err(Status::INVALID_VALUE);
        }
        let owner = allocation.context;
        self.run_all(owner)?;
        self.check_sound(context)?;
        self.release(address);
        Ok(())
    }
}

/// Bytes from row to row of a pitched allocation.
fn pitch_of(width: usize) -> Result<usize> {
    width.checked_next_multiple_of(512).ok_or(Status::INVALID_VALUE)
}

/// `CU_POINTER_ATTRIBUTE_…`.
fn pointer_attribute(driver: &Driver, data: *mut std::ffi::c_void, attribute: u32, address: u64) -> Result {
    let (base, allocation) = driver.allocation_around(address)?;
    let pinned = matches!(allocation.origin, Origin::Pinned { .. } | Origin::Registered);
    let device = match allocation.origin {
        Origin::Imported { export, .. } => export.device,
        _ => driver.own_device(),
    };
    // SAFETY: the caller says that there is room for the type of this attribute.
    let (wide, narrow, byte) =
        unsafe { (Out::new(data.cast::<u64>()), Out::new(data.cast::<u32>()), Out::new(data.cast::<u8>())) };
    match attribute {
        1 => wide.set(allocation.context),
        2 => narrow.set(if pinned { 1 } else { 2 }),
        3 => wide.set(address),
        4 if matches!(allocation.origin, Origin::Device { .. } | Origin::Imported { .. }) => {
            Err(Status::INVALID_VALUE)
        }
        4 => wide.set(address),
        7 => wide.set(base),
        8 => byte.set(u8::from(matches!(allocation.origin, Origin::Managed))),
        9 => narrow.set(device as u32),
        11 => wide.set(base),
        12 => wide.set(allocation.len),
        13 => byte.set(1),
        _ => unsupported(&format!("pointer attribute {attribute}")),
    }
}

api! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        with_context(|driver, _| {
            let (free_bytes, all) = driver.machine.memory.info();
            free.set(free_bytes as usize)?;
            total.set(all as usize)
        })
    }

    fn cuMemAlloc_v2(out: Out<u64>, len: usize) {
        out.check()?;
        with_context(|driver, context| {
            if len == 0 {
                return Err(Status::INVALID_VALUE);
            }
            driver.refuse_while_capturing()?;
            out.set(driver.allocate(context, len as u64, None)?)
        })
    }

    fn cuMemAllocPitch_v2(out: Out<u64>, pitch: Out<usize>, width: usize, height: usize, element: u32) {
        out.check()?;
        pitch.check()?;
        with_context(|driver, context| {
            if !matches!(element, 4 | 8 | 16) {
                return Err(Status::INVALID_VALUE);
            }
            let row = pitch_of(width)?;
            let len = row.checked_mul(height).filter(|len| *len > 0).ok_or(Status::INVALID_VALUE)?;
            driver.refuse_while_capturing()?;
            out.set(driver.allocate(context, len as u64, None)?)?;
            pitch.set(row)
        })
    }

    fn cuMemFree_v2(address: u64) {
        with_context(|driver, context| driver.free_now(context, address))
    }

    fn cuMemAllocAsync(out: Out<u64>, len: usize, stream: Handle) {
        out.check()?;
        with_stream(stream, |driver, stream| {
            let pool = driver.device_pools[1];
            out.set(driver.allocate_in_order(stream, len, pool)?)
        })
    }

    fn cuMemAllocFromPoolAsync(out: Out<u64>, len: usize, pool: Handle, stream: Handle) {
        out.check()?;
        with_stream(stream, |driver, stream| out.set(driver.allocate_in_order(stream, len, pool)?))
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        with_stream(stream, |driver, stream| driver.free_in_order(stream, address))
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, len: Out<usize>, address: u64) {
        with_context(|driver, _| {
            let (start, allocation) = driver.allocation_around(address).map_err(|_| Status::NOT_FOUND)?;
            base.set_if_wanted(start);
            len.set_if_wanted(allocation.len as usize);
            Ok(())
        })
    }

    fn cuPointerGetAttribute(data: *mut std::ffi::c_void, attribute: u32, address: u64) {
        with_context(|driver, _| pointer_attribute(driver, data, attribute, address))
    }

    fn cuPointerGetAttributes(
        count: u32, attributes: In<u32>, data: In<*mut std::ffi::c_void>, address: u64,
    ) {
        with_context(|driver, _| {
            for i in 0..count as usize {
                pointer_attribute(driver, data.at(i)?, attributes.at(i)?, address)?;
            }
            Ok(())
        })
    }

    fn cuMemAdvise_v2(address: u64, len: usize, advice: u32, location: Location) {
        let _hint_only = (advice, location.kind, location.id);
        with_context(|driver, _| driver.check_managed(address, len))
    }

    fn cuMemPrefetchAsync_v2(address: u64, len: usize, location: Location, flags: u32, stream: Handle) {
        if flags != 0 || location.kind == 0 {
            return Err(Status::INVALID_VALUE);
        }
        with_stream(stream, |driver, _| driver.check_managed(address, len))
    }
}
