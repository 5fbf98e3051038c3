//! Memory pools. Addresses are never used again, so a pool only keeps accounts.

use std::ffi::c_void;

use super::abi::{Handle, In, Out, PoolProps};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::{api, unsupported, with_driver};

/// Bytes that a pool takes from the device at a time.
const CHUNK: u64 = 32 << 20;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: u32 = 1;

/// `CUmemPool_attribute`.
mod attribute {
    pub const REUSE_EVENT: u32 = 1;
    pub const REUSE_OPPORTUNISTIC: u32 = 2;
    pub const REUSE_INTERNAL: u32 = 3;
    pub const THRESHOLD: u32 = 4;
    pub const RESERVED: u32 = 5;
    pub const RESERVED_HIGH: u32 = 6;
    pub const USED: u32 = 7;
    pub const USED_HIGH: u32 = 8;
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The three reuse policies, as `int`.
    reuse: [i32; 3],
    threshold: u64,
    reserved: u64,
    reserved_high: u64,
    used: u64,
    used_high: u64,
}

impl Pool {
    fn new() -> Self {
        Pool { reuse: [1; 3], threshold: 0, reserved: 0, reserved_high: 0, used: 0, used_high: 0 }
    }

    /// Accounts for an allocation.
    pub fn grow(&mut self, len: u64) {
        self.used += len;
        self.used_high = self.used_high.max(self.used);
        self.reserved = self.reserved.max(self.used.next_multiple_of(CHUNK));
        self.reserved_high = self.reserved_high.max(self.reserved);
    }

    /// Accounts for a free; what exceeds the threshold goes back to the device.
    pub fn shrink(&mut self, len: u64) {
        self.used -= len;
        self.trim(self.threshold);
    }

    fn trim(&mut self, keep: u64) {
        self.reserved =
            self.reserved.min(self.used.max(keep).checked_next_multiple_of(CHUNK).unwrap_or(keep));
    }
}

impl Driver {
    /// A new pool.
    pub fn new_pool(&mut self) -> Handle {
        let handle = self.new_handle(Kind::Pool);
        self.pools.insert(handle, Pool::new());
        handle
    }

    /// A pool that exists.
    pub fn pool(&mut self, handle: Handle) -> Result<&mut Pool> {
        self.pools.get_mut(&handle).ok_or(Status::INVALID_VALUE)
    }
}

api! {
    fn cuMemPoolCreate(out: Out<Handle>, props: In<PoolProps>) {
        out.check()?;
        let props = props.get()?;
        if props.allocation_type != PINNED || props.location.kind != ON_DEVICE || props.location.id != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if props.handle_types != 0 {
            return unsupported("a memory pool shared between processes");
        }
        if props.max_size != 0 {
            return unsupported("a memory pool of limited size");
        }
        with_driver(|driver| out.set(driver.new_pool()))
    }

    fn cuMemPoolDestroy(pool: Handle) {
        with_driver(|driver| {
            driver.pool(pool)?;
            if pool == driver.device_pools[0] {
                return Err(Status::INVALID_VALUE);
            }
            if pool == driver.device_pools[1] {
                driver.device_pools[1] = driver.device_pools[0];
            }
            driver.pools.remove(&pool);
            Ok(())
        })
    }

    fn cuMemPoolTrimTo(pool: Handle, keep: usize) {
        with_driver(|driver| {
            driver.pool(pool)?.trim(keep as u64);
            Ok(())
        })
    }

    fn cuMemPoolGetAttribute(pool: Handle, which: u32, value: *mut c_void) {
        // SAFETY: the caller says that there is room for the type of this attribute.
        let (int, wide) = unsafe { (Out::new(value.cast::<i32>()), Out::new(value.cast::<u64>())) };
        with_driver(|driver| {
            let pool = driver.pool(pool)?;
            match which {
                attribute::REUSE_EVENT | attribute::REUSE_OPPORTUNISTIC | attribute::REUSE_INTERNAL => {
                    int.set(pool.reuse[which as usize - 1])
                }
                attribute::THRESHOLD => wide.set(pool.threshold),
                attribute::RESERVED => wide.set(pool.reserved),
                attribute::RESERVED_HIGH => wide.set(pool.reserved_high),
                attribute::USED => wide.set(pool.used),
                attribute::USED_HIGH => wide.set(pool.used_high),
                _ => Err(Status::INVALID_VALUE),
            }
        })
    }

    fn cuMemPoolSetAttribute(pool: Handle, which: u32, value: *mut c_void) {
        // SAFETY: as for reading.
        let (int, wide) = unsafe { (Out::new(value.cast::<i32>()), Out::new(value.cast::<u64>())) };
        with_driver(|driver| {
            let pool = driver.pool(pool)?;
            match which {
                attribute::REUSE_EVENT | attribute::REUSE_OPPORTUNISTIC | attribute::REUSE_INTERNAL => {
                    pool.reuse[which as usize - 1] = int.get()?;
                }
                attribute::THRESHOLD => pool.threshold = wide.get()?,
                // The high-water marks can only be set back.
                attribute::RESERVED_HIGH if wide.get()? == 0 => pool.reserved_high = pool.reserved,
                attribute::USED_HIGH if wide.get()? == 0 => pool.used_high = pool.used,
                _ => return Err(Status::INVALID_VALUE),
            }
            Ok(())
        })
    }
}
