//! Loads of global memory under way: issued, with registers that no instruction has touched since.

use std::collections::VecDeque;

use crate::decode::program::Instruction;

use super::Exec;

/// Loads of a warp under way.
#[derive(Default)]
pub struct LoadsInFlight {
    /// Places of the instructions and bytes, the oldest first.
    loads: VecDeque<(u32, u64)>,
    bytes: u64,
}

impl Exec<'_> {
    /// Counts a load that the current instruction issues.
    #[inline(always)]
    pub(super) fn issue_load(&mut self, bytes: u64) {
        if self.warp.loads.is_some() {
            self.count_load(bytes);
        }
    }

    #[cold]
    fn count_load(&mut self, bytes: u64) {
        let Some(flying) = &mut self.warp.loads else { return };
        flying.loads.push_back((self.pc, bytes));
        flying.bytes += bytes;
        let counters = &mut self.cluster.counters;
        counters.loads_in_flight = counters.loads_in_flight.max(flying.loads.len() as u64);
        counters.load_bytes_in_flight = counters.load_bytes_in_flight.max(flying.bytes);
    }

    /// Waits for the loads whose registers an instruction touches. Loads come back in order.
    #[cold]
    pub(super) fn await_loads(&mut self, instruction: &Instruction) {
        let Some(flying) = &mut self.warp.loads else { return };
        let program = self.grid.program;
        let touched =
            |&(pc, _): &(u32, u64)| overlap(&program.instructions[pc as usize].written, &instruction.rows);
        let Some(last) = flying.loads.iter().rposition(touched) else { return };
        flying.bytes -= flying.loads.drain(..=last).map(|(_, bytes)| bytes).sum::<u64>();
    }
}

/// Whether two lists of rows, first and number, have one in common.
fn overlap(some: &[(u32, u32)], others: &[(u32, u32)]) -> bool {
    let meet = |&(a, n): &(u32, u32), &(b, m): &(u32, u32)| a < b + m && b < a + n;
    some.iter().any(|rows| others.iter().any(|other| meet(rows, other)))
}
