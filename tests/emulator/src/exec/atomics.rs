//! Atomics and reductions.

use half::{bf16, f16};

use std::sync::atomic::Ordering::SeqCst;

use crate::decode::access::atomic_bytes;
use crate::decode::program::{Atomic, AtomicOp, AtomicType, Space};
use crate::memory::access::Width;
use crate::memory::footprint::Usage;
use crate::memory::global::Allocation;
use crate::memory::shared::Order;
use crate::report::FaultKind;

use super::memory::Addresses;
use super::{Exec, Flow, Result, lanes};

impl Exec<'_> {
    pub(super) fn atomic(&mut self, atomic: &Atomic, active: u32) -> Result<Flow> {
        let (space, addresses) = self.resolve(&atomic.address, active)?;
        match space {
            Space::Global => self.atomic_global(atomic, &addresses, active)?,
            Space::Shared => self.atomic_shared(atomic, &addresses, active)?,
            _ => {
                let lane = active.trailing_zeros() as usize;
                return Err(self.lane_fault(FaultKind::Unsupported, "atomics on this space", lane));
            }
        }
        // Whoever compares and swaps or reads back may be polling.
        Ok(self.polled(!atomic.dst.is_empty()))
    }

    fn atomic_global(&mut self, atomic: &Atomic, addresses: &Addresses, active: u32) -> Result<()> {
        let element = atomic_bytes(atomic.ty) as u32;
        let bytes = element * atomic.src.len() as u32;
        self.cluster.counters.global_atomics += u64::from(active.count_ones());
        self.cluster.trace_lanes(addresses, bytes, active, false);
        self.cluster.trace_lanes(addresses, bytes, active, true);
        self.check_beside(addresses, bytes, active, Usage { writes: true, strong: true })?;
        for lane in lanes(active) {
            let address = addresses[lane];
            if !address.is_multiple_of(u64::from(bytes)) {
                let message = format!("expected an address of an atomic that is a multiple of {bytes}");
                return Err(self.lane_fault(FaultKind::Misaligned, message, lane).at(address));
            }
            let found = self.allocation(address, bytes);
            let allocation = found.map_err(|fault| self.blame(fault, lane))?;
            let unread = matches!(atomic.op, AtomicOp::Exch) && atomic.dst.is_empty();
            if !unread && !allocation.is_written(address, u64::from(bytes)) {
                return Err(self.unwritten(address, bytes, lane));
            }
            if let Some(exchange) = self.exchange() {
                self.release_blocks(exchange, atomic.order, address);
            }
            for n in 0..atomic.src.len() {
                let (value, swap) = self.atomic_operands(atomic, n, lane);
                let at = address + n as u64 * u64::from(element);
                let (memory, sampled) = (self.grid.memory, self.grid.sampled);
                let old = update_global(&allocation, memory, at, element, |old| match sampled {
                    true => old,
                    false => apply(atomic.op, atomic.ty, old, value, swap),
                });
                if let Some(slot) = atomic.dst.get(n) {
                    self.set(*slot, lane, old);
                }
            }
            allocation.mark_written(address, u64::from(bytes), true);
            self.keep(allocation);
            if let (Some(exchange), false) = (self.exchange(), atomic.dst.is_empty()) {
                self.acquire_blocks(exchange, atomic.order, address);
            }
        }
        Ok(())
    }

    fn atomic_operands(&self, atomic: &Atomic, n: usize, lane: usize) -> (u128, u128) {
        let swap = if atomic.op == AtomicOp::Cas { self.value(atomic.swap, lane) } else { 0 };
        (self.value(atomic.src[n], lane), swap)
    }

    fn atomic_shared(&mut self, atomic: &Atomic, addresses: &Addresses, active: u32) -> Result<()> {
        let bytes = atomic_bytes(atomic.ty) as u32;
        let width = Width::of(bytes as usize).unwrap_or(Width::B4);
        self.count_shared(addresses, bytes, active);
        for lane in lanes(active) {
            let (block, first) =
                self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            for n in 0..atomic.src.len() {
                let at = first + n as u32 * bytes;
                let (value, swap) = self.atomic_operands(atomic, n, lane);
                let shared = &mut self.cluster.blocks[block].shared;
                let clock = &self.warp.clock;
                let checked = shared
                    .check_place(at, bytes, bytes)
                    .and_then(|()| shared.read(at, bytes, lane, clock, Order::Strong))
                    .and_then(|()| shared.write(at, bytes, lane, clock, Order::Strong, |_| false));
                let old = match checked {
                    Ok(()) => shared.load(at, width),
                    Err(fault) => return Err(self.blame(fault, lane)),
                };
                shared.store(at, width, apply(atomic.op, atomic.ty, old, value, swap));
                self.acquire_location(block, at);
                self.release_location(block, at);
                if let Some(slot) = atomic.dst.get(n) {
                    self.set(*slot, lane, old);
                }
            }
        }
        Ok(())
    }
}

/// Updates a value of global memory atomically and returns the old one.
pub(super) fn update_global(
    allocation: &Allocation,
    memory: &crate::memory::global::GlobalMemory,
    at: u64,
    bytes: u32,
    f: impl Fn(u128) -> u128,
) -> u128 {
    match bytes {
        2 => {
            let shift = (at & 2) * 8;
            let word = allocation.word(at);
            let update = |old: u32| {
                let new = f(u128::from(old >> shift & 0xFFFF)) as u32 & 0xFFFF;
                Some(old & !(0xFFFF << shift) | new << shift)
            };
            let old = word.fetch_update(SeqCst, SeqCst, update).unwrap_or(0);
            u128::from(old >> shift & 0xFFFF)
        }
        4 => {
            let old = allocation.word(at).fetch_update(SeqCst, SeqCst, |old| Some(f(u128::from(old)) as u32));
            u128::from(old.unwrap_or(0))
        }
        8 => {
            let old = allocation
                .double_word(at)
                .fetch_update(SeqCst, SeqCst, |old| Some(f(u128::from(old)) as u64));
            u128::from(old.unwrap_or(0))
        }
        _ => {
            let _one_at_a_time =
                memory.wide_atomics.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let old = allocation.load(at, Width::B16);
            allocation.store(at, Width::B16, f(old));
            old
        }
    }
}

/// The new value of a location.
pub(super) fn apply(op: AtomicOp, ty: AtomicType, old: u128, value: u128, swap: u128) -> u128 {
    match op {
        AtomicOp::And => return old & value,
        AtomicOp::Or => return old | value,
        AtomicOp::Xor => return old ^ value,
        AtomicOp::Exch => return value,
        AtomicOp::Cas => {
            let mask = u128::MAX >> (128 - 8 * atomic_bytes(ty));
            return if old & mask == value & mask { swap } else { old };
        }
        _ => {}
    }
    match ty {
        AtomicType::S32 => integer(op, i128::from(old as i32), i128::from(value as i32)) as u32 as u128,
        AtomicType::S64 => integer(op, i128::from(old as i64), i128::from(value as i64)) as u64 as u128,
        AtomicType::U64 | AtomicType::B64 => {
            integer(op, old as u64 as i128, value as u64 as i128) as u64 as u128
        }
        AtomicType::F32 => {
            let result = float(op, f32::from_bits(old as u32), f32::from_bits(value as u32));
            u128::from(if result.is_nan() { 0x7FFF_FFFF } else { result.to_bits() })
        }
        AtomicType::F64 => {
            u128::from(float(op, f64::from_bits(old as u64), f64::from_bits(value as u64)).to_bits())
        }
        AtomicType::F16 => u128::from(half_float(op, old as u16, value as u16)),
        AtomicType::Bf16 => u128::from(brain_float(op, old as u16, value as u16)),
        AtomicType::F16x2 => pair(old, value, |a, b| half_float(op, a, b)),
        AtomicType::Bf16x2 => pair(old, value, |a, b| brain_float(op, a, b)),
        _ => integer(op, old as u32 as i128, value as u32 as i128) as u32 as u128,
    }
}

fn integer(op: AtomicOp, old: i128, value: i128) -> i128 {
    match op {
        AtomicOp::Add => old + value,
        AtomicOp::Min => old.min(value),
        AtomicOp::Max => old.max(value),
        AtomicOp::Inc => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
        _ => old,
    }
}

/// Addition, minimum and maximum of floating-point numbers; a number wins over a NaN.
fn float<T: Copy + PartialOrd + std::ops::Add<Output = T>>(op: AtomicOp, old: T, value: T) -> T {
    let value_wins = match op {
        AtomicOp::Add => return old + value,
        AtomicOp::Min => value < old,
        _ => value > old,
    };
    let old_is_nan = old.partial_cmp(&old).is_none();
    if value_wins || old_is_nan { value } else { old }
}

fn half_float(op: AtomicOp, old: u16, value: u16) -> u16 {
    let result = float(op, f16::from_bits(old), f16::from_bits(value));
    if result.is_nan() { 0x7FFF } else { result.to_bits() }
}

fn brain_float(op: AtomicOp, old: u16, value: u16) -> u16 {
    let result = float(op, bf16::from_bits(old), bf16::from_bits(value));
    if result.is_nan() { 0x7FFF } else { result.to_bits() }
}

fn pair(old: u128, value: u128, f: impl Fn(u16, u16) -> u16) -> u128 {
    let low = f(old as u16, value as u16);
    let high = f((old >> 16) as u16, (value >> 16) as u16);
    u128::from(low) | u128::from(high) << 16
}
