//! Barriers, fences, mbarriers.

use crate::counters::Class;
use crate::machine::REGISTER_UNIT;
use crate::ptx::ast::{Instruction, Operand};
use cuda_emulator_alu::row::Kind;

use super::program::{Address, Barrier, BarrierKind, Fence, Mbarrier, MbarrierKind, NONE, Op, Space};
use super::{Decoder, Result};

/// Modifiers of `mbarrier` that only give scope and order, which hold anyway.
const IGNORED: [&str; 14] = [
    "shared",
    "shared::cta",
    "shared::cluster",
    "b64",
    "acquire",
    "release",
    "relaxed",
    "cta",
    "cluster",
    "expect_tx",
    "noComplete",
    "parity",
    "gpu",
    "sys",
];

impl Decoder<'_> {
    pub(super) fn synchronisation(&mut self, i: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).filter(|m| *m != "cta").collect();
        match (i.base.as_str(), &modifiers[..]) {
            ("bar", ["warp", "sync"]) => {
                let members = self.source(self.operand(i, 0)?, Kind::B32)?;
                self.push(i, Class::Sync, Op::BarWarp { members })
            }
            ("barrier", ["cluster", "arrive", rest @ ..]) if rest.iter().all(|m| cluster_modifier(m)) => self
                .push(
                    i,
                    Class::Sync,
                    Op::ClusterArrive { aligned: i.has("aligned"), relaxed: i.has("relaxed") },
                ),
            ("barrier", ["cluster", "wait", rest @ ..]) if rest.iter().all(|m| cluster_modifier(m)) => {
                self.push(i, Class::Sync, Op::ClusterWait { aligned: i.has("aligned") })
            }
            ("bar" | "barrier", ["sync"] | ["sync", "aligned"]) => self.barrier(i, BarrierKind::Sync),
            ("bar" | "barrier", ["arrive"] | ["arrive", "aligned"]) => self.barrier(i, BarrierKind::Arrive),
            ("bar" | "barrier", ["red", "popc", .., "u32"]) => self.barrier(i, BarrierKind::Popc),
            ("bar" | "barrier", ["red", "and", .., "pred"]) => self.barrier(i, BarrierKind::And),
            ("bar" | "barrier", ["red", "or", .., "pred"]) => self.barrier(i, BarrierKind::Or),
            ("fence" | "membar", rest) => self.fence(i, rest),
            ("griddepcontrol", ["wait"]) => self.push(i, Class::Sync, Op::GridWait),
            ("griddepcontrol", ["launch_dependents"]) => self.push(i, Class::Sync, Op::LaunchDependents),
            ("setmaxnreg", ["inc" | "dec", "sync", "aligned", "u32"]) => self.set_registers(i),
            _ => Err("not supported".into()),
        }
    }

    /// The assembler ignores the instruction where it does not know how many registers a kernel starts with.
    fn set_registers(&mut self, i: &Instruction) -> Result<()> {
        let each = match self.operand(i, 0)? {
            Operand::Integer(number) => u32::try_from(*number).unwrap_or(u32::MAX),
            other => return Err(format!("expected a number, found {other:?}")),
        };
        if !(24..=256).contains(&each) || !each.is_multiple_of(REGISTER_UNIT) {
            return Err(format!("expected a multiple of {REGISTER_UNIT} from 24 to 256, found {each}"));
        }
        if self.registers.is_none() {
            return Err("expected a kernel with .maxnreg, or with .maxntid and .minnctapersm".into());
        }
        self.changes_registers = true;
        self.push(i, Class::Sync, Op::SetRegisters { each, more: i.has("inc") })
    }

    fn fence(&mut self, i: &Instruction, modifiers: &[&str]) -> Result<()> {
        let kind = match modifiers {
            ["proxy", "async", "global"] => Fence::Other,
            ["proxy", "async"] | ["proxy", "async", "shared::cta" | "shared::cluster"] => Fence::ProxyAsync,
            [
                "proxy",
                "async::generic",
                "acquire" | "release",
                "sync_restrict::shared::cta" | "sync_restrict::shared::cluster",
                ..,
            ] => Fence::ProxyAsync,
            ["proxy", "tensormap::generic" | "alias", ..] => Fence::Other,
            ["mbarrier_init", ..] => Fence::MbarrierInit,
            ["proxy", ..] => return Err("not supported".into()),
            _ => {
                self.allow(
                    i,
                    &["sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "sys", "gl"],
                )?;
                if i.has("cta") || i.has("cluster") { Fence::Near } else { Fence::Memory }
            }
        };
        self.has_fences |= matches!(kind, Fence::Memory | Fence::Near);
        self.push(i, Class::Sync, Op::Fence(kind))
    }

    fn barrier(&mut self, i: &Instruction, kind: BarrierKind) -> Result<()> {
        let reduces = matches!(kind, BarrierKind::Popc | BarrierKind::And | BarrierKind::Or);
        let mut operands = i.operands.iter();
        let dst = match (reduces, kind) {
            (false, _) => NONE,
            (true, BarrierKind::Popc) => self.destination(operands.next().ok_or("expected d")?, Kind::B32)?,
            (true, _) => self.destination(operands.next().ok_or("expected p")?, Kind::Pred)?,
        };
        let rest: Vec<&Operand> = operands.collect();
        let (numbers, source) =
            if reduces { rest.split_at(rest.len().saturating_sub(1)) } else { (&rest[..], &[][..]) };
        let id = self.source(numbers.first().ok_or("expected a barrier")?, Kind::B32)?;
        let count = match numbers.get(1) {
            Some(count) => self.source(count, Kind::B32)?,
            None => NONE,
        };
        if kind == BarrierKind::Arrive && count == NONE {
            return Err("expected a number of threads".into());
        }
        let src = match source.first() {
            Some(source) => self.source(source, Kind::Pred)?,
            None => NONE,
        };
        let aligned = i.base == "bar" || i.has("aligned");
        self.push(i, Class::Sync, Op::Barrier(Box::new(Barrier { kind, id, count, src, dst, aligned })))
    }

    pub(super) fn mbarrier(&mut self, i: &Instruction) -> Result<()> {
        let action = i.modifiers.first().map_or("", String::as_str);
        if let Some(unknown) = i.modifiers.iter().skip(1).find(|m| !IGNORED.contains(&m.as_str())) {
            return Err(format!("modifier .{unknown} is not supported"));
        }
        let parity = i.has("parity");
        match action {
            "init" => self.mbarrier_at(i, MbarrierKind::Init, 0, Some(1)),
            "inval" => self.mbarrier_at(i, MbarrierKind::Invalidate, 0, None),
            "expect_tx" => self.mbarrier_bytes(i, MbarrierKind::ExpectTx),
            "complete_tx" => self.mbarrier_bytes(i, MbarrierKind::CompleteTx),
            "arrive" => self.mbarrier_arrive(i, MbarrierKind::Arrive),
            "arrive_drop" => self.mbarrier_arrive(i, MbarrierKind::ArriveDrop),
            "pending_count" => self.pending_count(i),
            "test_wait" if parity => self.mbarrier_wait(i, MbarrierKind::TestWaitParity),
            "test_wait" => self.mbarrier_wait(i, MbarrierKind::TestWait),
            "try_wait" if parity => self.mbarrier_wait(i, MbarrierKind::TryWaitParity),
            "try_wait" => self.mbarrier_wait(i, MbarrierKind::TryWait),
            _ => Err("not supported".into()),
        }
    }

    /// The arrivals that were pending when an arrival returned a state.
    fn pending_count(&mut self, i: &Instruction) -> Result<()> {
        let dst = self.destination(self.operand(i, 0)?, Kind::B32)?;
        let count = self.source(self.operand(i, 1)?, Kind::B64)?;
        let address = Address { space: Space::Shared, row: count, wide: true, offset: 0 };
        let kind = MbarrierKind::PendingCount;
        let op = Mbarrier { kind, address, dst, count, bytes: NONE, no_complete: false };
        self.push(i, Class::Sync, Op::Mbarrier(Box::new(op)))
    }

    fn mbarrier_at(
        &mut self,
        i: &Instruction,
        kind: MbarrierKind,
        at: usize,
        count: Option<usize>,
    ) -> Result<()> {
        let address = self.address(self.operand(i, at)?, shared_or_generic(i))?;
        let count = match count {
            Some(n) => self.source(self.operand(i, n)?, Kind::B32)?,
            None => NONE,
        };
        let op = Mbarrier { kind, address, dst: NONE, count, bytes: NONE, no_complete: false };
        self.push(i, Class::Sync, Op::Mbarrier(Box::new(op)))
    }

    fn mbarrier_bytes(&mut self, i: &Instruction, kind: MbarrierKind) -> Result<()> {
        let address = self.address(self.operand(i, 0)?, shared_or_generic(i))?;
        let bytes = self.source(self.operand(i, 1)?, Kind::B32)?;
        let op = Mbarrier { kind, address, dst: NONE, count: NONE, bytes, no_complete: false };
        self.push(i, Class::Sync, Op::Mbarrier(Box::new(op)))
    }

    /// `[state,] [address] [, count or bytes]`
    fn mbarrier_arrive(&mut self, i: &Instruction, kind: MbarrierKind) -> Result<()> {
        let (dst, rest) = match i.operands.first() {
            Some(Operand::Address { .. }) => (NONE, &i.operands[..]),
            Some(Operand::Name(name)) if name == "_" => (NONE, &i.operands[1..]),
            Some(state) => (self.destination(state, Kind::B64)?, &i.operands[1..]),
            None => return Err("expected an address".into()),
        };
        let address = self.address(rest.first().ok_or("expected an address")?, shared_or_generic(i))?;
        let number = match rest.get(1) {
            Some(number) => self.source(number, Kind::B32)?,
            None => NONE,
        };
        let (count, bytes) = if i.has("expect_tx") { (NONE, number) } else { (number, NONE) };
        if i.has("expect_tx") && bytes == NONE {
            return Err("expected a number of bytes".into());
        }
        let no_complete = i.has("noComplete");
        self.push(
            i,
            Class::Sync,
            Op::Mbarrier(Box::new(Mbarrier { kind, address, dst, count, bytes, no_complete })),
        )
    }

    fn mbarrier_wait(&mut self, i: &Instruction, kind: MbarrierKind) -> Result<()> {
        self.expect_operands(i, 3..=4)?; // the fourth is a time
        let dst = self.destination(&i.operands[0], Kind::Pred)?;
        let address = self.address(&i.operands[1], shared_or_generic(i))?;
        let state = if i.has("parity") { Kind::B32 } else { Kind::B64 };
        let count = self.source(&i.operands[2], state)?;
        self.push(
            i,
            Class::Sync,
            Op::Mbarrier(Box::new(Mbarrier { kind, address, dst, count, bytes: NONE, no_complete: false })),
        )
    }
}

fn cluster_modifier(m: &str) -> bool {
    matches!(m, "release" | "acquire" | "relaxed" | "aligned")
}

fn shared_or_generic(i: &Instruction) -> Space {
    match i.modifiers.iter().any(|m| m.starts_with("shared")) {
        true => Space::Shared,
        false => Space::Generic,
    }
}
