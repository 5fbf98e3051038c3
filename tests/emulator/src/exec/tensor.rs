//! Matrix loads and stores, `mma` and `wgmma`.

use crate::decode::program::{Instruction, MatrixAccess, Mma, NONE, Op, Wgmma};
use crate::memory::access::Width;
use crate::report::{Fault, FaultKind};
use crate::tensor::descriptor::MatrixDescriptor;
use crate::tensor::matrix::{self, MatrixRow};
use crate::tensor::wgmma::{Operands, Source};
use cuda_emulator_alu::row::{LANES, Row};

use crate::schedule::state::Warp;

use super::{Exec, Result};

/// Bytes of a row of a matrix, and of a chunk that `wgmma` reads.
const CHUNK: u32 = 16;
/// Rows of 32 bits that all operands of a `mma` have at most.
pub const FRAGMENT_ROWS: usize = 64;

/// `wgmma`s of a warp under way.
#[derive(Clone, Default)]
pub struct WgmmaState {
    issued: Vec<Issued>,
    committed: u32,
    /// Moves of registers of those, with their lanes: done when the registers are there.
    put_off: Vec<(u32, u32)>,
    /// Rows written by other instructions since the last `wgmma.fence`.
    unfenced: Vec<u32>,
    /// `wgmma`s issued in all, to compare among the four warps.
    pub count: u64,
}

/// A `wgmma` that has not been waited for.
#[derive(Clone)]
struct Issued {
    /// The instruction.
    pc: u32,
    /// Its group, once committed.
    group: Option<u32>,
    scale_d: bool,
    a: Option<MatrixDescriptor>,
    b: MatrixDescriptor,
}

impl Exec<'_> {
    #[inline(always)]
    pub(super) fn load_matrix(&mut self, access: &MatrixAccess) -> Result<()> {
        let mut rows = [[0; CHUNK as usize]; LANES];
        let count = access.op.rows();
        let addresses = self.matrix_addresses(access)?;
        for (lane, row) in rows[..count].iter_mut().enumerate() {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            let shared = &mut self.cluster.blocks[block].shared;
            let order = crate::memory::shared::Order::Weak;
            // Spelled out: a closure here would not be compiled into the loop.
            if let Err(fault) = shared.check_place(at, CHUNK, CHUNK) {
                return Err(self.blame(fault, lane));
            }
            if let Err(fault) = shared.read(at, CHUNK, lane, &self.warp.clock, order) {
                return Err(self.blame(fault, lane));
            }
            *row = shared.load(at, Width::B16).to_le_bytes();
        }
        let mut d = [Row::ZERO; 4];
        matrix::load(access.op, &rows[..count], &mut d[..access.op.count]);
        for (&to, from) in access.rows.iter().zip(d) {
            self.warp.rows[to as usize] = from;
        }
        Ok(())
    }

    pub(super) fn store_matrix(&mut self, access: &MatrixAccess) -> Result<()> {
        let mut rows: [MatrixRow; LANES] = [[0; CHUNK as usize]; LANES];
        let count = access.op.rows();
        let mut s = [Row::ZERO; 4];
        for (&from, to) in access.rows.iter().zip(&mut s) {
            *to = self.warp.rows[from as usize];
        }
        matrix::store(access.op, &s[..access.op.count], &mut rows[..count]);
        let addresses = self.matrix_addresses(access)?;
        for (lane, row) in rows[..count].iter().enumerate() {
            let (block, at) = self.shared_place(addresses[lane]).map_err(|fault| self.blame(fault, lane))?;
            let shared = &mut self.cluster.blocks[block].shared;
            let range = at as usize..(at + CHUNK) as usize;
            let order = crate::memory::shared::Order::Weak;
            let same = |shared: &crate::memory::shared::Shared| shared.bytes()[range.clone()] == row[..];
            let written = shared
                .check_place(at, CHUNK, CHUNK)
                .and_then(|()| shared.write(at, CHUNK, lane, &self.warp.clock, order, same));
            if let Err(fault) = written {
                return Err(self.blame(fault, lane));
            }
            self.cluster.blocks[block].shared.bytes_mut()[range].copy_from_slice(row);
        }
        Ok(())
    }

    #[inline(always)]
    fn matrix_addresses(&mut self, access: &MatrixAccess) -> Result<super::memory::Addresses> {
        let (_, addresses) = self.resolve(&access.address, u32::MAX)?;
        let mask = (u64::from(u32::MAX) >> (LANES - access.op.rows())) as u32;
        self.count_shared(&addresses, CHUNK, mask);
        Ok(addresses)
    }

    pub(super) fn move_matrix(&mut self, dst: u32, src: u32) {
        self.warp.rows[dst as usize] = matrix::transpose(&self.warp.rows[src as usize]);
    }

    #[inline(always)]
    pub(super) fn mma(&mut self, mma: &Mma) {
        self.cluster.counters.tensor_flops += mma.op.flops;
        // What a sample computes is not looked at.
        if self.grid.sampled {
            return;
        }
        let Warp { rows, fragments, .. } = &mut *self.warp;
        let operands = mma.a.iter().chain(&mma.b).chain(&mma.c);
        for (to, &row) in fragments.iter_mut().zip(operands) {
            *to = rows[row as usize];
        }
        let (operands, d) = fragments.split_at_mut(mma.op.a + mma.op.b + mma.op.c);
        let (a, rest) = operands.split_at(mma.op.a);
        let (b, c) = rest.split_at(mma.op.b);
        (mma.op.run)(&mut d[..mma.op.d], a, b, c);
        for (&to, from) in mma.d.iter().zip(d) {
            rows[to as usize] = *from;
        }
    }

    pub(super) fn wgmma(&mut self, wgmma: &Wgmma) -> Result<()> {
        // Warps that are no whole warpgroup may do other things, such as feeding the others.
        let in_group = (self.grid.warps() - self.warp.in_block / 4 * 4).min(4);
        if in_group < 4 {
            let message = format!("expected a warpgroup of four warps, found one of {in_group}");
            return Err(Fault::new(FaultKind::NotConverged, message));
        }
        let pc = self.warp.groups[0].pc;
        let unfenced = &self.warp.wgmma.unfenced;
        if let Some(row) = wgmma.d.iter().chain(&wgmma.a).find(|row| unfenced.contains(row)) {
            let message = format!("register row {row} was written after the last wgmma.fence");
            return Err(Fault::new(FaultKind::InFlight, message));
        }
        let a = match wgmma.a_descriptor {
            NONE => None,
            row => Some(self.descriptor(row)?),
        };
        let b = self.descriptor(wgmma.b_descriptor)?;
        let chunks = if self.grid.sampled { Vec::new() } else { self.wgmma_chunks(wgmma, a, b) };
        for at in chunks {
            let shared = &mut self.cluster.blocks[self.warp.block].shared;
            shared.check_place(at, CHUNK, CHUNK)?;
            shared.begin_read(at, CHUNK, 0, &self.warp.clock)?;
        }
        let scale_d = self.warp.predicates[wgmma.scale_d as usize] & self.warp.live != 0;
        self.warp.wgmma.issued.push(Issued { pc, group: None, scale_d, a, b });
        self.warp.wgmma.count += 1;
        self.cluster.counters.tensor_flops += wgmma.op.flops;
        self.cluster.counters.sums_begun += u64::from(!scale_d);
        Ok(())
    }

    /// A matrix descriptor: the same in all lanes.
    fn descriptor(&self, row: u32) -> Result<MatrixDescriptor> {
        let bits = self.value64(row, self.warp.live.trailing_zeros() as usize);
        MatrixDescriptor::decode(bits).map_err(|message| Fault::new(FaultKind::Trap, message))
    }

    /// Offsets of all chunks that this warp reads.
    fn wgmma_chunks(&self, wgmma: &Wgmma, a: Option<MatrixDescriptor>, b: MatrixDescriptor) -> Vec<u32> {
        let warp = (self.warp.in_block % 4) as u32;
        let of_a = a.into_iter().flat_map(|a| wgmma.op.a_chunks(a, wgmma.immediates.a_major, warp));
        of_a.chain(wgmma.op.b_chunks(b, wgmma.immediates.b_major)).collect()
    }

    /// The warps of a group that has exited must have issued the same number of `wgmma`s.
    pub(super) fn check_warpgroup(&self) -> Result<()> {
        let first = self.warp.index - self.warp.in_block % 4;
        let others =
            self.cluster.warps.iter().skip(first).take(4).flatten().filter(|w| w.block == self.warp.block);
        for other in others.filter(|other| other.state == crate::schedule::state::State::Done) {
            let (count, theirs) = (self.warp.wgmma.count, other.wgmma.count);
            if count != theirs {
                let message = format!("{count} wgmmas by this warp, {theirs} by another of the same four");
                return Err(Fault::new(FaultKind::NotConverged, message));
            }
        }
        Ok(())
    }

    pub(super) fn wgmma_fence(&mut self) {
        self.warp.wgmma.unfenced.clear();
    }

    pub(super) fn wgmma_commit(&mut self) {
        let state = &mut self.warp.wgmma;
        let group = state.committed;
        state.issued.iter_mut().filter(|i| i.group.is_none()).for_each(|i| i.group = Some(group));
        state.committed += 1;
    }

    /// Computes what is due, in order: as late as allowed.
    pub(super) fn wgmma_wait(&mut self, groups: u32) -> Result<()> {
        let committed = self.warp.wgmma.committed;
        let due = |i: &Issued| i.group.is_some_and(|group| group.saturating_add(groups) < committed);
        let count = self.warp.wgmma.issued.iter().take_while(|i| due(i)).count();
        let issued: Vec<Issued> = self.warp.wgmma.issued.drain(..count).collect();
        for issued in issued {
            self.complete_wgmma(&issued)?;
        }
        if !self.warp.wgmma.put_off.is_empty() {
            self.do_moves();
        }
        Ok(())
    }

    fn complete_wgmma(&mut self, issued: &Issued) -> Result<()> {
        if self.grid.sampled {
            return Ok(());
        }
        let Op::Wgmma(wgmma) = &self.grid.program.instructions[issued.pc as usize].op else { return Ok(()) };
        let take = |rows: &[u32]| rows.iter().map(|&row| self.warp.rows[row as usize]).collect::<Vec<_>>();
        let (mut d, a) = (take(&wgmma.d), take(&wgmma.a));
        let operands = Operands {
            a: issued.a.map_or(Source::Registers(&a), Source::Shared),
            b: issued.b,
            scale_d: issued.scale_d,
            immediates: wgmma.immediates,
        };
        let warp = (self.warp.in_block % 4) as u32;
        let shared = &self.cluster.blocks[self.warp.block].shared;
        let done = wgmma.op.run(&operands, warp, shared.bytes(), &mut d);
        done.map_err(|outside| {
            let message = "a matrix that reaches outside shared memory";
            Fault::new(FaultKind::OutOfBounds, message).at(u64::from(outside.offset))
        })?;
        for (&to, from) in wgmma.d.iter().zip(d) {
            self.warp.rows[to as usize] = from;
        }
        for at in self.wgmma_chunks(wgmma, issued.a, issued.b) {
            self.cluster.blocks[self.warp.block].shared.end_read(at, CHUNK, &self.warp.clock);
        }
        Ok(())
    }

    /// Registers of a `wgmma` under way may only be touched by another `wgmma`, and copied by moves:
    /// compilers put those before the wait and leave it to the assembler to do them after it. So such a move
    /// is put off, and its destination is under way as well. What other instructions write has to be fenced.
    /// Returns whether the instruction was put off.
    #[cold]
    pub(super) fn must_wait_for_wgmma(
        &mut self,
        instruction: &Instruction,
        pc: u32,
        active: u32,
    ) -> Result<bool> {
        if matches!(instruction.op, Op::Wgmma(_)) {
            return Ok(false);
        }
        let touched: Vec<u32> = rows(&instruction.rows).collect();
        if let Some((row, line)) = self.row_under_way(&touched) {
            let written: Vec<u32> = rows(&instruction.written).collect();
            if instruction.is_move && self.row_under_way(&written).is_none() {
                self.warp.wgmma.put_off.push((pc, active));
                return Ok(true);
            }
            let message = format!(
                "register row {row} belongs to the wgmma of PTX line {line}, which has not been waited for"
            );
            return Err(Fault::new(FaultKind::InFlight, message));
        }
        let unfenced = &mut self.warp.wgmma.unfenced;
        for row in rows(&instruction.written) {
            if !unfenced.contains(&row) {
                unfenced.push(row);
            }
        }
        Ok(false)
    }

    /// The first of some rows that a `wgmma`, or a move of its registers, still has to write or read; with
    /// its line.
    fn row_under_way(&self, touched: &[u32]) -> Option<(u32, u32)> {
        let program = self.grid.program;
        let line = |pc: u32| program.sites[pc as usize].ptx_line;
        for issued in &self.warp.wgmma.issued {
            let Op::Wgmma(wgmma) = &program.instructions[issued.pc as usize].op else { continue };
            if let Some(row) = touched.iter().find(|row| wgmma.d.contains(row) || wgmma.a.contains(row)) {
                return Some((*row, line(issued.pc)));
            }
        }
        for &(pc, _) in &self.warp.wgmma.put_off {
            let written = &program.instructions[pc as usize].written;
            if let Some(row) = rows(written).find(|row| touched.contains(row)) {
                return Some((row, line(pc)));
            }
        }
        None
    }

    /// Does the moves that were put off and whose sources are there now.
    fn do_moves(&mut self) {
        let program = self.grid.program;
        for (pc, active) in std::mem::take(&mut self.warp.wgmma.put_off) {
            let instruction = &program.instructions[pc as usize];
            let touched: Vec<u32> = rows(&instruction.rows).collect();
            if self.row_under_way(&touched).is_some() {
                self.warp.wgmma.put_off.push((pc, active));
                continue;
            }
            match &instruction.op {
                Op::Pack { dst, src, part } => self.pack(*dst, src, *part, active),
                Op::Unpack { dst, src, part } => self.unpack(dst, *src, *part, active),
                Op::Alu(run, args) => self.compute(*run, args, active),
                _ => {}
            }
        }
    }
}

/// The rows in ranges of first and number.
fn rows(ranges: &[(u32, u32)]) -> impl Iterator<Item = u32> {
    ranges.iter().flat_map(|&(first, count)| first..first + count)
}
