//! Arithmetic, moves and address conversions.

use crate::counters::Class;
use crate::ptx::ast::{Instruction, Operand};
use crate::ptx::type_bytes;
use cuda_emulator_alu as alu;
use cuda_emulator_alu::row::{AluArgs, Kind};

use super::operands::window;
use super::program::{NONE, Op, Space};
use super::scope::{Register, Symbol};
use super::{Decoder, Result};

/// Begins names of registers that hold a result before it is widened; no PTX name has it.
const WIDENED: &str = "<widened>";

impl Decoder<'_> {
    /// Whatever the table of arithmetic instructions knows.
    pub(super) fn arithmetic(&mut self, i: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
        let op = alu::lookup(&i.base, &modifiers).ok_or("not supported")?;
        let mut args = AluArgs::default();
        let (first, second) = match self.operand(i, 0)? {
            Operand::Pair(first, second) => (&**first, Some(&**second)),
            single => (single, None),
        };
        if i.base == "cvt" && self.is_wide(first) && op.dst[0] == Kind::B32 {
            return self.convert_into_wide(i, first);
        }
        args.dst[0] = self.destination(first, op.dst[0])?;
        let takes_carry = matches!(i.base.as_str(), "addc" | "subc" | "madc");
        let carries = matches!(i.base.as_str(), "add" | "addc" | "sub" | "subc" | "mad" | "madc");
        if op.dst[1] != Kind::None {
            args.dst[1] = match second {
                Some(second) => self.destination(second, op.dst[1])?,
                None if carries => self.carry(),
                None => self.allocate(op.dst[1]),
            };
        } else if second.is_some() {
            return Err("has no second destination".into());
        }
        let sources = op.src.iter().take_while(|kind| **kind != Kind::None).count();
        let written = i.operands.len() - 1;
        for n in 0..sources {
            args.src[n] = if n < written
                && i.base == "cvt"
                && op.src[n] == Kind::B32
                && self.is_wide(&i.operands[n + 1])
            {
                self.narrowed(&i.operands[n + 1])?
            } else if n < written {
                self.source(&i.operands[n + 1], op.src[n])?
            } else if takes_carry && n + 1 == sources {
                self.carry()
            } else {
                return Err(format!("expected {sources} sources, found {written}"));
            };
        }
        if written > sources {
            return Err(format!("expected {sources} sources, found {written}"));
        }
        self.push(i, alu::class(&i.base, &modifiers), Op::Alu(op.run, args))
    }

    /// A conversion may name a register wider than its type: it is converted into a narrow one, then
    /// extended.
    fn convert_into_wide(&mut self, i: &Instruction, wide: &Operand) -> Result<()> {
        let mut operands = i.operands.clone();
        let name = format!("{WIDENED}{}", self.instructions.len());
        let index = self.allocate(Kind::B32);
        self.scopes.declare(&name, Symbol::Register(Register { index, kind: Kind::B32 }));
        let narrow = Operand::Name(name);
        operands[0] = narrow.clone();
        self.arithmetic(&Instruction { operands, ..i.clone() })?;
        // The destination's type is the first that is named.
        let signed = i.modifiers.iter().find(|m| type_bytes(m).is_some()).is_some_and(|m| m.starts_with('s'));
        let types = if signed { ["s64", "s32"] } else { ["u64", "u32"] };
        let modifiers = types.map(str::to_owned).to_vec();
        self.arithmetic(&Instruction { modifiers, operands: vec![wide.clone(), narrow], ..i.clone() })
    }

    /// The condition code of carries: a predicate of its own.
    fn carry(&mut self) -> u32 {
        if self.carry == NONE {
            self.carry = self.allocate(Kind::Pred);
        }
        self.carry
    }

    pub(super) fn mov(&mut self, i: &Instruction) -> Result<()> {
        self.expect_operands(i, 2..=2)?;
        match (&i.operands[0], &i.operands[1]) {
            (Operand::Vector(items), source) => {
                let kind = self.moved_kind(i)?;
                let src = self.slot(source, kind)?;
                let (part, kind) = parts(items.len(), i)?;
                let dst = items.iter().map(|item| self.written_slot(item, kind)).collect::<Result<_>>()?;
                self.push(i, Class::Integer, Op::Unpack { dst, src, part })
            }
            (destination, Operand::Vector(items)) => {
                let kind = self.moved_kind(i)?;
                let dst = self.written_slot(destination, kind)?;
                let (part, kind) = parts(items.len(), i)?;
                let src = items.iter().map(|item| self.slot(item, kind)).collect::<Result<_>>()?;
                self.push(i, Class::Integer, Op::Pack { dst, src, part })
            }
            (destination, Operand::Name(name))
                if name.starts_with("%clock") || name.starts_with("%globaltimer") =>
            {
                let kind = self.moved_kind(i)?;
                let dst = self.written_slot(destination, kind)?;
                self.push(i, Class::Integer, Op::Clock { dst })
            }
            (_, Operand::Name(name)) if name == "%is_explicit_cluster" => {
                let operands = vec![i.operands[0].clone(), Operand::Integer(1)];
                self.arithmetic(&Instruction { operands, ..i.clone() })
            }
            _ => self.arithmetic(i),
        }
    }

    fn moved_kind(&self, i: &Instruction) -> Result<Kind> {
        let [ty] = i.modifiers.as_slice() else { return Err("expected one type".into()) };
        match type_bytes(ty) {
            Some(1..=4) => Ok(Kind::B32),
            Some(8) => Ok(Kind::B64),
            Some(16) => Ok(Kind::B128),
            _ => Err(format!("type .{ty} is not supported")),
        }
    }

    /// `cvta`, `isspacep`, `mapa`, `getctarank`, `createpolicy`.
    pub(super) fn address_operation(&mut self, i: &Instruction) -> Result<()> {
        match i.base.as_str() {
            "cvta" => self.cvta(i),
            "isspacep" => {
                let space = i.modifiers.first().and_then(|m| space_of(m)).ok_or("space is not supported")?;
                // `.shared` alone is that of the own block.
                let own_only = space == Space::Shared && !i.has("shared::cluster");
                let dst = self.destination(self.operand(i, 0)?, Kind::Pred)?;
                let src = self.slot(self.operand(i, 1)?, Kind::B64)?;
                self.push(i, Class::Integer, Op::IsSpace { dst, src, space, own_only })
            }
            "mapa" => {
                self.allow(i, &["shared::cluster", "u32", "u64"])?;
                let kind = if i.has("u64") { Kind::B64 } else { Kind::B32 };
                let dst = self.written_slot(self.operand(i, 0)?, kind)?;
                let src = self.slot(self.operand(i, 1)?, kind)?;
                let rank = self.source(self.operand(i, 2)?, Kind::B32)?;
                self.push(i, Class::Integer, Op::Mapa { dst, src, rank, generic: !i.has("shared::cluster") })
            }
            "getctarank" => {
                self.allow(i, &["shared::cluster", "u32", "u64"])?;
                let dst = self.destination(self.operand(i, 0)?, Kind::B32)?;
                let src = self.slot(self.operand(i, 1)?, if i.has("u64") { Kind::B64 } else { Kind::B32 })?;
                self.push(i, Class::Integer, Op::CtaRank { dst, src })
            }
            // Cache policies are opaque and have no effect.
            _ => {
                let dst = self.written_slot(self.operand(i, 0)?, Kind::B64)?;
                let zero = self.constant(0, Kind::B32);
                let zero = super::program::Slot { row: zero, kind: Kind::B32 };
                self.push(i, Class::Integer, Op::Pack { dst, src: Box::new([zero, zero]), part: 32 })
            }
        }
    }

    fn cvta(&mut self, i: &Instruction) -> Result<()> {
        let to_space = i.has("to");
        let space = i.modifiers.iter().find_map(|m| space_of(m)).ok_or("space is not supported")?;
        let kind = if i.has("u64") { Kind::B64 } else { Kind::B32 };
        let dst = self.written_slot(self.operand(i, 0)?, kind)?;
        let source = self.operand(i, 1)?.clone();
        // The text may name a variable: its address in its space.
        let src = match &source {
            Operand::Name(name) if matches!(self.scopes.find(name), Some(Symbol::Register(_))) => {
                self.slot(&source, kind)?
            }
            _ => super::program::Slot { row: self.source(&source, kind)?, kind },
        };
        if kind == Kind::B32 && window(space) != 0 {
            return Err("32-bit generic addresses are not supported".into());
        }
        self.push(i, Class::Integer, Op::Cvta { dst, src, space, to_generic: !to_space })
    }
}

/// Bits and kind of each of `count` parts of a packed register.
fn parts(count: usize, i: &Instruction) -> Result<(u32, Kind)> {
    let ty = i.modifiers.last().map_or("", String::as_str);
    let bits = type_bytes(ty).map_or(0, |bytes| 8 * bytes as u32);
    match (bits, count) {
        (16, 2) | (32, 2 | 4) | (64, 2 | 4) | (128, 4) => Ok((bits / count as u32, Kind::B32)),
        (128, 2) => Ok((64, Kind::B64)),
        _ => Err(format!("{count} parts of a .{ty} are not supported")),
    }
}

/// The space that a modifier names.
pub(super) fn space_of(modifier: &str) -> Option<Space> {
    Some(match modifier {
        "global" | "const" => Space::Global,
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        _ => return None,
    })
}
