//! Loads and stores: addresses, and the spaces that one instruction may reach.

use crate::decode::operands::{WINDOW_MASK, window};
use crate::decode::program::{Access, Address, Extend, NONE, Slot, Space};
use crate::memory::access::Width;
use crate::memory::shared::Order;
use crate::report::FaultKind;
use cuda_emulator_alu::row::{Kind, LANES, Row};

use super::{Exec, Flow, Result, lanes};

/// Addresses of all lanes.
pub(super) type Addresses = [u64; LANES];
/// The most elements of an access (`.v8`).
const MAX_SLOTS: usize = 8;

/// Bits of an address in shared memory that hold the offset; above them is the block's rank plus one, or zero
/// for the own block.
pub const RANK_SHIFT: u32 = 24;

impl Exec<'_> {
    /// Addresses of all lanes, in their space.
    #[inline(always)]
    pub(super) fn addresses(&self, address: &Address) -> Addresses {
        let mut addresses = [0; LANES];
        let row = address.row as usize;
        if address.wide {
            let pair: &[u64; LANES] =
                bytemuck::cast_slice(self.lanes32(row, 2)).try_into().unwrap_or(&[0; LANES]);
            for (to, from) in addresses.iter_mut().zip(pair) {
                *to = from.wrapping_add_signed(address.offset);
            }
        } else {
            for (to, &from) in addresses.iter_mut().zip(&self.warp.rows[row].0) {
                *to = u64::from(from.wrapping_add(address.offset as u32));
            }
        }
        addresses
    }

    /// `count` rows as one slice of 32-bit values.
    #[inline(always)]
    pub(super) fn lanes32(&self, row: usize, count: usize) -> &[u32] {
        self.warp.rows[row..row + count].as_flattened_lanes()
    }

    /// A 64-bit value of a lane.
    #[inline(always)]
    pub(super) fn value64(&self, row: u32, lane: usize) -> u64 {
        let words = self.lanes32(row as usize, 2);
        u64::from(words[2 * lane]) | u64::from(words[2 * lane + 1]) << 32
    }

    /// A 32-bit value of a lane.
    #[inline(always)]
    pub(super) fn value32(&self, row: u32, lane: usize) -> u32 {
        self.warp.rows[row as usize].0[lane]
    }

    /// A register's value of a lane.
    #[inline(always)]
    pub(super) fn value(&self, slot: Slot, lane: usize) -> u128 {
        match slot.kind {
            Kind::B64 => u128::from(self.value64(slot.row, lane)),
            Kind::B128 => {
                let words = self.lanes32(slot.row as usize, 4);
                (0..4).fold(0, |value, i| value | u128::from(words[4 * lane + i]) << (32 * i))
            }
            _ => u128::from(self.value32(slot.row, lane)),
        }
    }

    /// Sets a register's value of a lane.
    #[inline(always)]
    pub(super) fn set(&mut self, slot: Slot, lane: usize, value: u128) {
        if slot.row == NONE {
            return;
        }
        let row = slot.row as usize;
        let words = match slot.kind {
            Kind::B128 => 4,
            Kind::B64 => 2,
            _ => {
                self.warp.rows[row].0[lane] = value as u32;
                return;
            }
        };
        let to = self.warp.rows[row..row + words].as_flattened_lanes_mut();
        for i in 0..words {
            to[words * lane + i] = (value >> (32 * i)) as u32;
        }
    }

    /// The one space that the lanes' addresses are in, their windows removed.
    #[inline(always)]
    pub(super) fn resolve(&self, address: &Address, active: u32) -> Result<(Space, Addresses)> {
        let mut addresses = self.addresses(address);
        if address.space != Space::Generic {
            return Ok((address.space, addresses));
        }
        let first = addresses[active.trailing_zeros() as usize & 31] & WINDOW_MASK;
        if let Some(lane) = lanes(active).find(|&lane| addresses[lane] & WINDOW_MASK != first) {
            let message = "lanes of one generic access reach different spaces";
            return Err(self.lane_fault(FaultKind::Unsupported, message, lane).at(addresses[lane]));
        }
        addresses.iter_mut().for_each(|a| *a &= !WINDOW_MASK);
        let spaces = [Space::Global, Space::Shared, Space::Local, Space::Param];
        match spaces.into_iter().find(|space| window(*space) == first) {
            Some(space) => Ok((space, addresses)),
            None => {
                let lane = active.trailing_zeros() as usize & 31;
                let address = addresses[lane] | first;
                Err(self.lane_fault(FaultKind::OutOfBounds, "an address of no memory", lane).at(address))
            }
        }
    }

    #[inline(always)]
    pub(super) fn load(&mut self, access: &Access, active: u32) -> Result<Flow> {
        let (space, addresses) = self.resolve(&access.address, active)?;
        match space {
            Space::Global | Space::Generic => self.load_global(access, &addresses, active)?,
            Space::Shared => self.load_shared(access, &addresses, active)?,
            Space::Local => self.load_local(access, &addresses, active)?,
            Space::Param => self.load_param(access, &addresses, active)?,
        }
        Ok(self.polled(access.order.strong))
    }

    /// Lets others run when a warp has polled memory often.
    pub(super) fn polled(&mut self, strong: bool) -> Flow {
        if !strong {
            return Flow::Next;
        }
        self.patience -= 1;
        if self.patience == 0 {
            self.patience = super::PATIENCE;
            return Flow::Yield;
        }
        Flow::Next
    }

    #[inline(always)]
    pub(super) fn store(&mut self, access: &Access, active: u32) -> Result<()> {
        let (space, addresses) = self.resolve(&access.address, active)?;
        match space {
            Space::Global | Space::Generic => self.store_global(access, &addresses, active),
            Space::Shared => self.store_shared(access, &addresses, active),
            Space::Local => self.store_local(access, &addresses, active),
            Space::Param => {
                let lane = active.trailing_zeros() as usize;
                Err(self.lane_fault(FaultKind::OutOfBounds, "kernel parameters cannot be written", lane))
            }
        }
    }

    /// Puts a loaded value into its register, extended.
    #[inline(always)]
    pub(super) fn set_loaded(&mut self, access: &Access, n: usize, lane: usize, value: u128) {
        let slot = access.slots[n];
        let value = match (access.extend, access.width) {
            (Extend::Sign, Width::B1) => value as u8 as i8 as i64 as u128,
            (Extend::Sign, Width::B2) => value as u16 as i16 as i64 as u128,
            (Extend::Sign, Width::B4) => value as u32 as i32 as i64 as u128,
            _ => value,
        };
        self.set(slot, lane, value);
    }

    fn load_local(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        for lane in lanes(active) {
            let from = self.local_place(addresses[lane], bytes, lane)?;
            for n in 0..access.slots.len() {
                let width = access.width.bytes();
                let mut value = [0; 16];
                value[..width].copy_from_slice(&self.warp.local[from + n * width..from + (n + 1) * width]);
                self.set_loaded(access, n, lane, u128::from_le_bytes(value));
            }
        }
        self.cluster.counters.local_bytes += u64::from(bytes) * u64::from(active.count_ones());
        Ok(())
    }

    fn store_local(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = access.bytes();
        for lane in lanes(active) {
            let to = self.local_place(addresses[lane], bytes, lane)?;
            for (n, slot) in access.slots.iter().enumerate() {
                let width = access.width.bytes();
                let value = self.value(*slot, lane).to_le_bytes();
                self.warp.local[to + n * width..to + (n + 1) * width].copy_from_slice(&value[..width]);
            }
        }
        self.cluster.counters.local_bytes += u64::from(bytes) * u64::from(active.count_ones());
        Ok(())
    }

    /// Index of a lane's local memory.
    pub(super) fn local_place(&self, at: u64, bytes: u32, lane: usize) -> Result<usize> {
        let size = u64::from(self.grid.program.local);
        let align = u64::from(bytes).next_power_of_two().min(16);
        if at.saturating_add(u64::from(bytes)) > size {
            let message = format!("{bytes} bytes of local memory, which has {size}");
            return Err(self.lane_fault(FaultKind::OutOfBounds, message, lane).at(at));
        }
        if !at.is_multiple_of(align) {
            let message = format!("expected a local address that is a multiple of {align}");
            return Err(self.lane_fault(FaultKind::Misaligned, message, lane).at(at));
        }
        Ok(lane * size as usize + at as usize)
    }

    fn load_param(&mut self, access: &Access, addresses: &Addresses, active: u32) -> Result<()> {
        // Nearly always all lanes ask for the same.
        let (mut known, mut values) = (None, [0; MAX_SLOTS]);
        for lane in lanes(active) {
            if known != Some(addresses[lane]) {
                let bytes = self.param(access, addresses[lane], lane)?;
                for (to, chunk) in values.iter_mut().zip(bytes.chunks_exact(access.width.bytes())) {
                    let mut value = [0; 16];
                    value[..chunk.len()].copy_from_slice(chunk);
                    *to = u128::from_le_bytes(value);
                }
                known = Some(addresses[lane]);
            }
            for (n, &value) in values.iter().enumerate().take(access.slots.len()) {
                self.set_loaded(access, n, lane, value);
            }
        }
        Ok(())
    }

    /// The parameters' bytes that an access is for.
    fn param(&self, access: &Access, address: u64, lane: usize) -> Result<&[u8]> {
        let (at, len) = (address as usize, access.bytes() as usize);
        let Some(bytes) = self.grid.params.get(at..at.saturating_add(len)) else {
            let message = format!("{len} bytes of parameters, which have {}", self.grid.params.len());
            return Err(self.lane_fault(FaultKind::OutOfBounds, message, lane).at(address));
        };
        if !address.is_multiple_of(len as u64) {
            let message = format!("expected a parameter's address that is a multiple of {len}");
            return Err(self.lane_fault(FaultKind::Misaligned, message, lane).at(address));
        }
        Ok(bytes)
    }

    /// Order of an access to shared memory.
    pub(super) fn shared_order(strong: bool) -> Order {
        if strong { Order::Strong } else { Order::Weak }
    }
}

/// Rows as 32-bit values one after another.
pub(super) trait FlattenedLanes {
    /// To read.
    fn as_flattened_lanes(&self) -> &[u32];
    /// To write.
    fn as_flattened_lanes_mut(&mut self) -> &mut [u32];
}

impl FlattenedLanes for [Row] {
    #[inline(always)]
    fn as_flattened_lanes(&self) -> &[u32] {
        // SAFETY: a row is exactly 32 values of 32 bits, without padding (its alignment is its size).
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * LANES) }
    }

    #[inline(always)]
    fn as_flattened_lanes_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * LANES) }
    }
}
