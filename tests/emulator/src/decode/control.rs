//! Branches, exits, warp operations.

use crate::counters::Class;
use crate::ptx::ast::{Instruction, Operand};
use cuda_emulator_alu::row::Kind;

use super::program::{Collective, NONE, Op, Shuffle, ShuffleMode, WarpOp};
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn control(&mut self, i: &Instruction) -> Result<()> {
        match (i.base.as_str(), i.modifiers.first().map(String::as_str)) {
            ("bra", None | Some("uni")) => {
                let label = name(self.operand(i, 0)?)?;
                self.branch(i, vec![label], Op::Branch(NONE))
            }
            ("brx", Some("idx")) => {
                let index = self.source(self.operand(i, 0)?, Kind::B32)?;
                let list = name(self.operand(i, 1)?)?;
                let targets = self.scopes.find_targets(self.scopes.current(), &list);
                let targets = targets.ok_or_else(|| format!("{list} is not declared"))?;
                self.branch(i, targets, Op::BranchIndexed { index, targets: Box::default() })
            }
            ("ret", _) if !self.inlining.is_empty() => {
                self.returns.push(self.instructions.len());
                self.push(i, Class::Control, Op::Branch(NONE))
            }
            ("ret" | "exit", _) => self.push(i, Class::Control, Op::Exit),
            ("trap", _) => self.push(i, Class::Control, Op::Trap("trap")),
            ("brkpt", _) => self.push(i, Class::Control, Op::Trap("breakpoint")),
            ("nanosleep", _) => self.push(i, Class::Control, Op::Yield),
            ("pmevent", _) => self.push(i, Class::Control, Op::Nop),
            _ => Err("not supported".into()),
        }
    }

    fn branch(&mut self, i: &Instruction, labels: Vec<String>, op: Op) -> Result<()> {
        self.branches.push((self.instructions.len(), self.scopes.current(), labels));
        self.push(i, Class::Control, op)
    }

    /// Gives the branches since `first` their targets.
    pub(super) fn resolve_branches(&mut self, first: usize) -> Result<()> {
        for (at, scope, labels) in self.branches.split_off(first) {
            let line = self.sites[at].ptx_line;
            let find = |label: &String| {
                let found = self.scopes.find_label(scope, label);
                found.ok_or_else(|| format!("line {line}: label {label} is not declared"))
            };
            let resolved = labels.iter().map(find).collect::<Result<Vec<u32>>>()?;
            match &mut self.instructions[at].op {
                Op::Branch(target) => *target = resolved[0],
                Op::BranchIndexed { targets, .. } => *targets = resolved.into(),
                _ => return Err(format!("line {line}: not a branch")),
            }
        }
        Ok(())
    }

    pub(super) fn warp_operation(&mut self, i: &Instruction) -> Result<()> {
        match i.base.as_str() {
            "shfl" => self.shuffle(i),
            "activemask" => {
                let dst = self.destination(self.operand(i, 0)?, Kind::B32)?;
                self.push(i, Class::Shuffle, Op::ActiveMask { dst })
            }
            _ => self.collective(i),
        }
    }

    fn shuffle(&mut self, i: &Instruction) -> Result<()> {
        self.expect_operands(i, 5..=5)?;
        let mode = match i.modifiers.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["sync", "up", "b32"] => ShuffleMode::Up,
            ["sync", "down", "b32"] => ShuffleMode::Down,
            ["sync", "bfly", "b32"] => ShuffleMode::Butterfly,
            ["sync", "idx", "b32"] => ShuffleMode::Index,
            _ => return Err("not supported".into()),
        };
        let (dst, in_range) = match &i.operands[0] {
            Operand::Pair(dst, p) => (self.destination(dst, Kind::B32)?, self.destination(p, Kind::Pred)?),
            dst => (self.destination(dst, Kind::B32)?, NONE),
        };
        let shuffle = Shuffle {
            mode,
            dst,
            in_range,
            src: self.source(&i.operands[1], Kind::B32)?,
            lane: self.source(&i.operands[2], Kind::B32)?,
            clamp: self.source(&i.operands[3], Kind::B32)?,
            members: self.source(&i.operands[4], Kind::B32)?,
        };
        self.push(i, Class::Shuffle, Op::Shuffle(Box::new(shuffle)))
    }

    fn collective(&mut self, i: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
        let op = match (i.base.as_str(), &modifiers[..]) {
            ("vote", ["sync", "all", "pred"]) => WarpOp::VoteAll,
            ("vote", ["sync", "any", "pred"]) => WarpOp::VoteAny,
            ("vote", ["sync", "uni", "pred"]) => WarpOp::VoteUni,
            ("vote", ["sync", "ballot", "b32"]) => WarpOp::VoteBallot,
            ("match", ["any", "sync", "b32" | "b64"]) => WarpOp::MatchAny,
            ("match", ["all", "sync", "b32" | "b64"]) => WarpOp::MatchAll,
            ("redux", ["sync", "add", "u32" | "s32"]) => WarpOp::ReduceAdd,
            ("redux", ["sync", "min", "u32"]) => WarpOp::ReduceMinU,
            ("redux", ["sync", "min", "s32"]) => WarpOp::ReduceMinS,
            ("redux", ["sync", "max", "u32"]) => WarpOp::ReduceMaxU,
            ("redux", ["sync", "max", "s32"]) => WarpOp::ReduceMaxS,
            ("redux", ["sync", "and", "b32"]) => WarpOp::ReduceAnd,
            ("redux", ["sync", "or", "b32"]) => WarpOp::ReduceOr,
            ("redux", ["sync", "xor", "b32"]) => WarpOp::ReduceXor,
            ("redux", ["sync", "min", "f32"]) => WarpOp::ReduceMinF,
            ("redux", ["sync", "max", "f32"]) => WarpOp::ReduceMaxF,
            ("elect", ["sync"]) => WarpOp::Elect,
            _ => return Err("not supported".into()),
        };
        let wide = modifiers.last() == Some(&"b64");
        let (dst, dst_pred) = self.collective_destinations(op, self.operand(i, 0)?)?;
        let vote = i.base == "vote";
        let (src, members) = match op {
            WarpOp::Elect => (NONE, self.operand(i, 1)?),
            _ => {
                let kind = if vote {
                    Kind::Pred
                } else if wide {
                    Kind::B64
                } else {
                    Kind::B32
                };
                (self.source(self.operand(i, 1)?, kind)?, self.operand(i, 2)?)
            }
        };
        let members = self.source(members, Kind::B32)?;
        let collective = Collective { op, dst, dst_pred, src, wide, members };
        self.push(i, Class::Shuffle, Op::Collective(Box::new(collective)))
    }

    fn collective_destinations(&mut self, op: WarpOp, operand: &Operand) -> Result<(u32, u32)> {
        match (op, operand) {
            (WarpOp::VoteAll | WarpOp::VoteAny | WarpOp::VoteUni, p) => {
                Ok((NONE, self.destination(p, Kind::Pred)?))
            }
            (WarpOp::Elect | WarpOp::MatchAll, Operand::Pair(dst, p)) => {
                Ok((self.destination(dst, Kind::B32)?, self.destination(p, Kind::Pred)?))
            }
            (WarpOp::Elect, _) => Err("expected d|p".into()),
            (_, dst) => Ok((self.destination(dst, Kind::B32)?, NONE)),
        }
    }
}

pub(super) fn name(operand: &Operand) -> Result<String> {
    match operand {
        Operand::Name(name) => Ok(name.clone()),
        other => Err(format!("expected a name, found {other:?}")),
    }
}
