//! Global memory.

use std::sync::Arc;

use crate::decode::program::{Access, Address, Space};
use crate::memory::access::Width;
use crate::memory::footprint::Usage;
use crate::memory::global::{Allocation, GlobalMemory};
use crate::report::{Fault, FaultKind};
use crate::schedule::state::Cluster;

use super::counting::sectors;
use super::memory::Addresses;
use super::{Exec, Result, lanes};

impl Exec<'_> {
    /// The allocation of an access. The last one is taken out of its place: counting references is slow when
    /// threads compete. Give it back with [`Exec::keep`].
    #[inline(always)]
    pub(super) fn allocation(&mut self, address: u64, bytes: u32) -> Result<Arc<Allocation>> {
        self.cluster.take_allocation(self.grid.memory, address, u64::from(bytes))
    }

    /// Keeps an allocation for the next access.
    #[inline(always)]
    pub(super) fn keep(&mut self, allocation: Arc<Allocation>) {
        self.cluster.allocation = Some(allocation);
    }

    /// The allocations that lanes access, with the lanes in each: checked for place and alignment.
    #[inline(always)]
    fn each_allocation(
        &mut self,
        addresses: &Addresses,
        bytes: u32,
        active: u32,
        mut access: impl FnMut(&mut Self, &Allocation, u32) -> Result<()>,
    ) -> Result<()> {
        let mut left = active;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let found = self.allocation(addresses[first], bytes);
            let allocation = found.map_err(|fault| self.blame(fault, first))?;
            let mut inside = 0;
            for lane in lanes(left) {
                inside |= u32::from(allocation.contains(addresses[lane], u64::from(bytes))) << lane;
            }
            let mut low = 0;
            for lane in lanes(inside) {
                low |= addresses[lane];
            }
            if low & u64::from(bytes - 1) != 0 {
                return Err(self.misaligned(addresses, bytes, inside));
            }
            access(self, &allocation, inside)?;
            self.keep(allocation);
            left &= !inside;
        }
        Ok(())
    }

    #[cold]
    fn misaligned(&self, addresses: &Addresses, bytes: u32, mask: u32) -> Box<Fault> {
        let lane = lanes(mask).find(|&lane| !addresses[lane].is_multiple_of(u64::from(bytes))).unwrap_or(0);
        let message = format!("expected a global address that is a multiple of {bytes}");
        self.lane_fault(FaultKind::Misaligned, message, lane).at(addresses[lane])
    }

    #[cold]
    pub(super) fn unwritten(&self, address: u64, bytes: u32, lane: usize) -> Box<Fault> {
        self.blame(unwritten(address, u64::from(bytes)), lane)
    }

    #[inline(always)]
    pub(super) fn load_global(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        self.count_global_load(addresses, bytes, active);
        let strong = access.order.strong;
        self.check_beside(addresses, bytes, active, Usage { writes: false, strong })?;
        self.issue_load(u64::from(bytes) * u64::from(active.count_ones()));
        self.each_allocation(addresses, bytes, active, |exec, allocation, inside| {
            for lane in lanes(inside) {
                let address = addresses[lane];
                if !allocation.is_written(address, u64::from(bytes)) {
                    return Err(exec.unwritten(address, bytes, lane));
                }
                for (n, slot) in access.slots.iter().enumerate() {
                    let value = allocation.load(address + (n * access.width.bytes()) as u64, access.width);
                    match access.words {
                        true => exec.warp.rows[slot.row as usize].0[lane] = value as u32,
                        false => exec.set_loaded(access, n, lane, value),
                    }
                }
            }
            Ok(())
        })?;
        match self.exchange() {
            Some(exchange) => self.exchanged_load(exchange, access, addresses, active),
            None => Ok(()),
        }
    }

    #[inline(always)]
    pub(super) fn store_global(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        let counters = &mut self.cluster.counters;
        counters.global_store_requests += 1;
        counters.global_store_sectors += sectors(addresses, bytes, active);
        counters.global_store_bytes += u64::from(bytes) * u64::from(active.count_ones());
        counters.global_narrow_accesses += if bytes < 16 { u64::from(active.count_ones()) } else { 0 };
        self.cluster.trace_lanes(addresses, bytes, active, true);
        let strong = access.order.strong;
        self.check_beside(addresses, bytes, active, Usage { writes: true, strong })?;
        if let Some(exchange) = self.exchange() {
            self.exchanged_store(exchange, access, addresses, active)?;
        }
        self.each_allocation(addresses, bytes, active, |exec, allocation, inside| {
            for lane in lanes(inside) {
                for (n, slot) in access.slots.iter().enumerate() {
                    let address = addresses[lane] + (n * access.width.bytes()) as u64;
                    allocation.store(address, access.width, exec.value(*slot, lane));
                }
            }
            Ok(())
        })
    }

    #[inline(always)]
    pub(super) fn count_global_load(&mut self, addresses: &Addresses, bytes: u32, active: u32) {
        let counters = &mut self.cluster.counters;
        counters.global_load_requests += 1;
        counters.global_load_sectors += sectors(addresses, bytes, active);
        counters.global_load_bytes += u64::from(bytes) * u64::from(active.count_ones());
        counters.global_narrow_accesses += if bytes < 16 { u64::from(active.count_ones()) } else { 0 };
        self.cluster.trace_lanes(addresses, bytes, active, false);
    }

    /// A prefetch must not be wild, but may reach unwritten bytes.
    pub(super) fn prefetch(&mut self, address: &Address, active: u32) -> Result<()> {
        let (space, addresses) = self.resolve(address, active)?;
        if space == Space::Global {
            for lane in lanes(active) {
                let found = self.allocation(addresses[lane], 1);
                let found = found.map_err(|fault| self.blame(fault, lane))?;
                self.keep(found);
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// Records what lanes access, where that is asked for.
    #[inline(always)]
    pub(super) fn trace_lanes(&mut self, addresses: &Addresses, bytes: u32, active: u32, writes: bool) {
        if let Some(trace) = &mut self.trace {
            lanes(active).for_each(|lane| trace.record(addresses[lane], bytes.into(), writes));
        }
    }

    #[inline(always)]
    fn take_allocation(
        &mut self,
        memory: &GlobalMemory,
        address: u64,
        bytes: u64,
    ) -> Result<Arc<Allocation>> {
        match self.allocation.take() {
            Some(last) if last.contains(address, bytes) => Ok(last),
            _ => memory.find(address, bytes),
        }
    }

    /// Reads an aligned value of global memory, all of which must have been written.
    #[inline(always)]
    pub(super) fn load_global(&mut self, memory: &GlobalMemory, address: u64, width: Width) -> Result<u128> {
        let bytes = width.bytes() as u64;
        let allocation = self.take_allocation(memory, address, bytes)?;
        if !allocation.is_written(address, bytes) {
            return Err(unwritten(address, bytes));
        }
        let value = allocation.load(address, width);
        self.allocation = Some(allocation);
        Ok(value)
    }

    /// Reads bytes of global memory, all of which must have been written: for copies and tensor maps.
    pub(super) fn read_global(&mut self, memory: &GlobalMemory, address: u64, to: &mut [u8]) -> Result<()> {
        let allocation = self.take_allocation(memory, address, to.len() as u64)?;
        if !allocation.is_written(address, to.len() as u64) {
            return Err(unwritten(address, to.len() as u64));
        }
        copy_out(&allocation, address, to);
        self.allocation = Some(allocation);
        Ok(())
    }

    /// Writes bytes of global memory.
    pub(super) fn write_global(&mut self, memory: &GlobalMemory, address: u64, from: &[u8]) -> Result<()> {
        let allocation = self.take_allocation(memory, address, from.len() as u64)?;
        let mut at = address;
        let mut rest = from;
        while !rest.is_empty() {
            let width = largest_width(at, rest.len());
            let mut value = [0; 16];
            value[..width.bytes()].copy_from_slice(&rest[..width.bytes()]);
            allocation.store(at, width, u128::from_le_bytes(value));
            at += width.bytes() as u64;
            rest = &rest[width.bytes()..];
        }
        self.allocation = Some(allocation);
        Ok(())
    }
}

#[cold]
fn unwritten(address: u64, bytes: u64) -> Box<Fault> {
    let message = format!("{bytes} bytes of global memory, not all of which were written");
    Fault::new(FaultKind::Uninitialised, message).at(address)
}

fn copy_out(allocation: &Allocation, address: u64, to: &mut [u8]) {
    let mut done = 0;
    while done < to.len() {
        let at = address + done as u64;
        let width = largest_width(at, to.len() - done);
        let value = allocation.load(at, width).to_le_bytes();
        to[done..done + width.bytes()].copy_from_slice(&value[..width.bytes()]);
        done += width.bytes();
    }
}

/// The widest aligned access at an address within some bytes.
fn largest_width(address: u64, bytes: usize) -> Width {
    let widths = [Width::B16, Width::B8, Width::B4, Width::B2];
    let fits = |w: &Width| address.is_multiple_of(w.bytes() as u64) && w.bytes() <= bytes;
    widths.into_iter().find(fits).unwrap_or(Width::B1)
}
