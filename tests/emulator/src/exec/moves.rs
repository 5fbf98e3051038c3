//! Packing, unpacking, address conversions, special values.

use crate::decode::operands::{SHARED_WINDOW, WINDOW_MASK, window};
use crate::decode::program::{NONE, Slot, Space};
use crate::report::FaultKind;

use super::memory::RANK_SHIFT;
use super::{Exec, Result, lanes};

impl Exec<'_> {
    pub(super) fn pack(&mut self, dst: Slot, src: &[Slot], part: u32, active: u32) {
        let mask = u128::MAX >> (128 - part);
        for lane in lanes(active) {
            let parts = src.iter().enumerate();
            let value =
                parts.fold(0, |v, (i, slot)| v | (self.value(*slot, lane) & mask) << (part * i as u32));
            self.set(dst, lane, value);
        }
    }

    pub(super) fn unpack(&mut self, dst: &[Slot], src: Slot, part: u32, active: u32) {
        let mask = u128::MAX >> (128 - part);
        for lane in lanes(active) {
            let value = self.value(src, lane);
            for (i, slot) in dst.iter().enumerate() {
                self.set(*slot, lane, value >> (part * i as u32) & mask);
            }
        }
    }

    pub(super) fn cvta(
        &mut self,
        dst: Slot,
        src: Slot,
        space: Space,
        to_generic: bool,
        active: u32,
    ) -> Result<()> {
        for lane in lanes(active) {
            let value = self.value(src, lane) as u64;
            let result = match to_generic {
                true => value | window(space),
                false if value & WINDOW_MASK == window(space) => value & !WINDOW_MASK,
                false => {
                    let message = format!("a generic address that is not in {space:?} memory");
                    return Err(self.lane_fault(FaultKind::OutOfBounds, message, lane).at(value));
                }
            };
            self.set(dst, lane, u128::from(result));
        }
        Ok(())
    }

    pub(super) fn is_space(&mut self, dst: u32, src: Slot, space: Space, own_only: bool, active: u32) {
        let inside = |lane: &usize| {
            let address = self.value(src, *lane) as u64;
            let rank = (address & !WINDOW_MASK) >> RANK_SHIFT;
            let own = rank == 0 || rank == self.warp.block as u64 + 1;
            address & WINDOW_MASK == window(space) && (own || !own_only)
        };
        let mask = lanes(active).filter(inside).fold(0, |mask, lane| mask | 1 << lane);
        self.set_predicate(dst, mask, active);
    }

    /// The address of the same place in the shared memory of another block.
    pub(super) fn mapa(&mut self, dst: Slot, src: Slot, rank: u32, generic: bool, active: u32) -> Result<()> {
        for lane in lanes(active) {
            let address = self.value(src, lane) as u64;
            let rank = self.value32(rank, lane);
            if rank as usize >= self.cluster.blocks.len() {
                let message = format!("expected a rank below {}, found {rank}", self.cluster.blocks.len());
                return Err(self.lane_fault(FaultKind::OutOfBounds, message, lane).at(address));
            }
            if generic && address & WINDOW_MASK != SHARED_WINDOW {
                let message = "expected a generic address in shared memory";
                return Err(self.lane_fault(FaultKind::OutOfBounds, message, lane).at(address));
            }
            let offset = address & ((1 << RANK_SHIFT) - 1);
            let mapped = offset | u64::from(rank + 1) << RANK_SHIFT | address & WINDOW_MASK;
            self.set(dst, lane, u128::from(mapped));
        }
        Ok(())
    }

    pub(super) fn cta_rank(&mut self, dst: u32, src: Slot, active: u32) {
        for lane in lanes(active) {
            let rank = (self.value(src, lane) as u64 & !WINDOW_MASK) >> RANK_SHIFT;
            let rank = if rank == 0 { self.warp.block as u64 } else { rank - 1 };
            self.warp.rows[dst as usize].0[lane] = rank as u32;
        }
    }

    /// Clocks count instructions.
    pub(super) fn clock(&mut self, dst: Slot, active: u32) {
        let now = u128::from(self.warp.instructions);
        lanes(active).for_each(|lane| self.set(dst, lane, now));
    }

    /// Sets the lanes of a predicate.
    pub(super) fn set_predicate(&mut self, predicate: u32, value: u32, active: u32) {
        if predicate != NONE {
            let p = &mut self.warp.predicates[predicate as usize];
            *p = *p & !active | value & active;
        }
    }

    /// Sets a row to the same value in all active lanes.
    pub(super) fn broadcast(&mut self, row: u32, value: u32, active: u32) {
        if row != NONE {
            lanes(active).for_each(|lane| self.warp.rows[row as usize].0[lane] = value);
        }
    }
}
