//! Tensor cores, asynchronous copies, tensor maps.

use crate::counters::Class;
use crate::ptx::ast::{Instruction, Operand};
use crate::tensor::{matrix, mma, wgmma};
use cuda_emulator_alu::row::Kind;

use super::access::{atomic_op, atomic_type};
use super::program::{
    Address, Bulk, BulkDirection, CpAsync, MatrixAccess, Mma, NONE, Op, Space, TensorMapReplace, Wgmma,
};
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, i: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
        match i.base.as_str() {
            "mma" => self.mma(i, &modifiers),
            "wgmma" => self.wgmma(i, &modifiers),
            "tensormap" => self.tensor_map(i, &modifiers),
            "movmatrix" if matrix::is_movmatrix(&modifiers) => {
                let dst = self.destination(self.operand(i, 0)?, Kind::B32)?;
                let src = self.source(self.operand(i, 1)?, Kind::B32)?;
                self.push(i, Class::Shuffle, Op::MoveMatrix { dst, src })
            }
            _ => self.matrix_access(i, &modifiers),
        }
    }

    fn matrix_access(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        let op = matrix::lookup(modifiers).ok_or("not supported")?;
        let load = i.base == "ldmatrix";
        let (registers, address) = if load { (0, 1) } else { (1, 0) };
        let address = self.address(self.operand(i, address)?, Space::Shared)?;
        let registers = self.operand(i, registers)?;
        let rows = if load { self.written_fragment(registers)? } else { self.fragment(registers)? };
        if rows.len() != op.count {
            return Err(format!("expected {} registers, found {}", op.count, rows.len()));
        }
        let access = Box::new(MatrixAccess { op, address, rows });
        self.push(i, Class::Shared, if load { Op::LoadMatrix(access) } else { Op::StoreMatrix(access) })
    }

    fn mma(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        let op = mma::lookup(modifiers).ok_or("not supported")?;
        self.expect_operands(i, 4..=4)?;
        let mut fragment = |n: usize, bits: u32, rows: usize| {
            let operand = &i.operands[n];
            let found = match (bits, n) {
                (64, _) => self.wide_fragment(operand)?,
                (_, 0) => self.written_fragment(operand)?,
                _ => self.fragment(operand)?,
            };
            match found.len() == rows {
                true => Ok::<_, String>(found),
                false => Err(format!("expected {rows} registers, found {}", found.len())),
            }
        };
        let d = fragment(0, op.accumulator_bits, op.d)?;
        let a = fragment(1, op.operand_bits, op.a)?;
        let b = fragment(2, op.operand_bits, op.b)?;
        let c = fragment(3, op.accumulator_bits, op.c)?;
        self.push(i, Class::Tensor, Op::Mma(Box::new(Mma { op, d, a, b, c })))
    }

    /// Rows of a vector of 64-bit registers: two each.
    fn wide_fragment(&mut self, operand: &Operand) -> Result<Box<[u32]>> {
        let slots = self.slots(operand, Kind::B64)?;
        Ok(slots.iter().flat_map(|slot| [slot.row, slot.row + 1]).collect())
    }

    fn wgmma(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        match modifiers {
            ["fence", "sync", "aligned"] => self.push(i, Class::Sync, Op::WgmmaFence),
            ["commit_group", "sync", "aligned"] => self.push(i, Class::Sync, Op::WgmmaCommit),
            ["wait_group", "sync", "aligned"] => {
                let groups = self.immediate(self.operand(i, 0)?)? as u32;
                self.push(i, Class::Sync, Op::WgmmaWait(groups))
            }
            ["mma_async", ..] => self.wgmma_mma(i, modifiers),
            _ => Err("not supported".into()),
        }
    }

    /// `d, a, b, scale-d [, imm-scale-a, imm-scale-b [, imm-trans-a] [, imm-trans-b]]`
    fn wgmma_mma(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        let op = wgmma::lookup(modifiers).ok_or("not supported")?;
        let in_registers = matches!(self.operand(i, 1)?, Operand::Vector(_));
        let values = i.operands.get(4..).unwrap_or_default();
        let values: Vec<i64> = values.iter().map(|o| self.immediate(o)).collect::<Result<_>>()?;
        let immediates = op.immediates(in_registers, &values)?;
        let d = self.fragment(self.operand(i, 0)?)?;
        if d.len() != op.d {
            return Err(format!("expected {} accumulators, found {}", op.d, d.len()));
        }
        let (a, a_descriptor) = if in_registers {
            (self.fragment(&i.operands[1])?, NONE)
        } else {
            (Box::default(), self.source(&i.operands[1], Kind::B64)?)
        };
        if in_registers && a.len() != wgmma::A_ROWS {
            return Err(format!("expected 4 registers of A, found {}", a.len()));
        }
        let b_descriptor = self.source(self.operand(i, 2)?, Kind::B64)?;
        let scale_d = match self.operand(i, 3)? {
            Operand::Integer(value) => u32::from(*value != 0), // the two constant predicates
            predicate => self.source(predicate, Kind::Pred)?,
        };
        let wgmma = Wgmma { op, immediates, d, a, a_descriptor, b_descriptor, scale_d };
        self.push(i, Class::Tensor, Op::Wgmma(Box::new(wgmma)))
    }

    pub(super) fn immediate(&self, operand: &Operand) -> Result<i64> {
        match operand {
            Operand::Integer(value) => Ok(*value as i64),
            other => Err(format!("expected a number, found {other:?}")),
        }
    }

    fn tensor_map(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        let ["replace", "tile", field, rest @ ..] = modifiers else {
            return match modifiers {
                ["cp_fenceproxy", ..] => self.tensor_map_copy(i),
                _ => Err("not supported".into()),
            };
        };
        if let Some(unknown) =
            rest.iter().find(|m| !["global", "shared::cta", "b1024", "b32", "b64"].contains(m))
        {
            return Err(format!("modifier .{unknown} is not supported"));
        }
        let space = if i.has("global") {
            Space::Global
        } else if i.has("shared::cta") {
            Space::Shared
        } else {
            Space::Generic
        };
        let address = self.address(self.operand(i, 0)?, space)?;
        let ordinal = if i.operands.len() == 3 { self.immediate(&i.operands[1])? as u32 } else { 0 };
        let wide = rest.last() == Some(&"b64");
        let value = i.operands.last().ok_or("expected a value")?;
        let value = self.source(value, if wide { Kind::B64 } else { Kind::B32 })?;
        let replace = TensorMapReplace { address, field: (*field).to_owned(), ordinal, value, wide };
        self.push(i, Class::Integer, Op::TensorMapReplace(Box::new(replace)))
    }

    /// `tensormap.cp_fenceproxy`: copies 128 bytes from shared to global memory.
    fn tensor_map_copy(&mut self, i: &Instruction) -> Result<()> {
        let to = self.address(self.operand(i, 0)?, Space::Global)?;
        let from = self.address(self.operand(i, 1)?, Space::Shared)?;
        if self.immediate(self.operand(i, 2)?)? != 128 {
            return Err("expected 128 bytes".into());
        }
        self.push(i, Class::Global, Op::TensorMapCopy { to, from })
    }

    /// `cp.async`, `cp.async.bulk`, `cp.reduce.async.bulk` and what belongs to them.
    pub(super) fn copy(&mut self, i: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
        match &modifiers[..] {
            ["async", "commit_group"] => self.push(i, Class::Sync, Op::CpCommit),
            ["async", "wait_all"] => self.push(i, Class::Sync, Op::CpWaitAll),
            ["async", "wait_group"] => {
                let groups = self.immediate(self.operand(i, 0)?)? as u32;
                self.push(i, Class::Sync, Op::CpWait(groups))
            }
            ["async", "mbarrier", "arrive", rest @ ..] => {
                let address = self.address(self.operand(i, 0)?, shared_or_generic(rest))?;
                self.push(i, Class::Sync, Op::CpArrive { address, noinc: rest.contains(&"noinc") })
            }
            ["async", "bulk", "commit_group"] => self.push(i, Class::Sync, Op::BulkCommit),
            ["async", "bulk", "wait_group", rest @ ..] => {
                let groups = self.immediate(self.operand(i, 0)?)? as u32;
                self.push(i, Class::Sync, Op::BulkWait { groups, read: rest == ["read"] })
            }
            ["async", "bulk", "prefetch", ..] => self.bulk_prefetch(i),
            ["async", "bulk", ..] => self.bulk(i, false),
            ["reduce", "async", "bulk", ..] => self.bulk(i, true),
            ["async", "ca" | "cg", ..] => self.cp_async(i),
            _ => Err("not supported".into()),
        }
    }

    /// `[dst], [src], size [, source-size or ignore-source] [, cache-policy]`
    fn cp_async(&mut self, i: &Instruction) -> Result<()> {
        let known = [
            "async",
            "ca",
            "cg",
            "shared",
            "shared::cta",
            "global",
            "L2::cache_hint",
            "L2::64B",
            "L2::128B",
            "L2::256B",
        ];
        self.allow(i, &known)?;
        let to = self.address(self.operand(i, 0)?, Space::Shared)?;
        let from = self.address(self.operand(i, 1)?, Space::Global)?;
        let size = self.immediate(self.operand(i, 2)?)? as u32;
        if !(matches!(size, 4 | 8) && i.has("ca") || size == 16) {
            return Err(format!("copies of {size} bytes are not supported"));
        }
        let last = i.operands.len() - usize::from(i.has("L2::cache_hint"));
        let (mut source_size, mut ignore_source) = (NONE, NONE);
        match i.operands.get(3).filter(|_| last > 3) {
            Some(Operand::Name(name)) if self.predicate_register(name).is_ok() => {
                ignore_source = self.predicate_register(name)?;
            }
            Some(size) => source_size = self.source(size, Kind::B32)?,
            None => {}
        }
        let copy = CpAsync { to, from, size, source_size, ignore_source };
        self.push(i, Class::Global, Op::CpAsync(Box::new(copy)))
    }

    fn bulk_prefetch(&mut self, i: &Instruction) -> Result<()> {
        if i.has("tensor") {
            return self.push(i, Class::Integer, Op::Nop);
        }
        let address = self.address(self.operand(i, 0)?, Space::Global)?;
        self.push(i, Class::Global, Op::Prefetch(address))
    }

    fn bulk(&mut self, i: &Instruction, reduce: bool) -> Result<()> {
        let spaces: Vec<&str> = i.modifiers.iter().map(String::as_str).filter(|m| is_space(m)).collect();
        let direction = match (&spaces[..], reduce) {
            (["shared::cluster" | "shared::cta", "global"], false) => BulkDirection::Load,
            (["global", "shared::cta"], false) => BulkDirection::Store,
            (["global", "shared::cta"], true) => BulkDirection::Reduce,
            (["shared::cluster", "shared::cta"], false) => BulkDirection::SharedToCluster,
            _ => return Err("not supported".into()),
        };
        let reduction = self.bulk_modifiers(i, reduce)?;
        let mut operands = i.operands.iter();
        let mut next = |what: &str| operands.next().ok_or_else(|| format!("expected {what}"));
        let (first, second) = (next("a destination")?, next("a source")?);
        let tensor = i.has("tensor");
        let size = if tensor { NONE } else { self.source(next("a size")?, Kind::B32)? };
        let waits = matches!(direction, BulkDirection::Load | BulkDirection::SharedToCluster);
        let mbarrier = if waits { Some(self.address(next("a mbarrier")?, Space::Shared)?) } else { None };
        let multicast =
            if i.has("multicast::cluster") { self.narrow(next("a multicast mask")?)? } else { NONE };
        let (shared, global) = match direction {
            BulkDirection::Load => (first, second),
            BulkDirection::SharedToCluster => (second, first),
            _ => (second, first),
        };
        let far = match direction {
            BulkDirection::SharedToCluster => Space::Shared,
            _ if tensor => Space::Generic,
            _ => Space::Global,
        };
        let coordinates = self.coordinates(if tensor { global } else { shared })?;
        let shared = self.address(shared, Space::Shared)?;
        let global: Address = self.address(global, far)?;
        let bulk =
            Bulk { direction, shared, global, coordinates, tensor, size, mbarrier, multicast, reduction };
        self.push(i, Class::Global, Op::Bulk(Box::new(bulk)))
    }

    /// Operation and type of a reduction.
    fn bulk_modifiers(&self, i: &Instruction, reduce: bool) -> Result<Option<(String, String)>> {
        let known = [
            "async",
            "reduce",
            "bulk",
            "tensor",
            "1d",
            "2d",
            "3d",
            "4d",
            "5d",
            "tile",
            "bulk_group",
            "L2::cache_hint",
            "mbarrier::complete_tx::bytes",
            "multicast::cluster",
            "noftz",
        ];
        let (mut operation, mut ty) = (None, String::new());
        for m in i.modifiers.iter().map(String::as_str) {
            match m {
                m if known.contains(&m) || is_space(m) => {}
                m if reduce && atomic_op(m).is_some() => operation = Some(m.to_owned()),
                m if reduce && atomic_type(m).is_some() => ty = m.to_owned(),
                other => return Err(format!("modifier .{other} is not supported")),
            }
        }
        match (reduce, operation) {
            (false, _) => Ok(None),
            (true, Some(operation)) => Ok(Some((operation, ty))),
            (true, None) => Err("expected a reduction".into()),
        }
    }

    /// A 16-bit or 32-bit source.
    fn narrow(&mut self, operand: &Operand) -> Result<u32> {
        self.source(operand, Kind::B32)
    }

    fn coordinates(&mut self, operand: &Operand) -> Result<Box<[u32]>> {
        match operand {
            Operand::Address { coordinates, .. } => {
                coordinates.iter().map(|c| self.source(c, Kind::B32)).collect()
            }
            other => Err(format!("expected an address, found {other:?}")),
        }
    }
}

fn is_space(modifier: &str) -> bool {
    matches!(modifier, "global" | "shared::cta" | "shared::cluster")
}

fn shared_or_generic(modifiers: &[&str]) -> Space {
    match modifiers.iter().any(|m| m.starts_with("shared")) {
        true => Space::Shared,
        false => Space::Generic,
    }
}
