//! Operands: every one becomes the index of a row or of a predicate.

use crate::ptx::ast::{Instruction, Operand};
use cuda_emulator_alu::row::{AluArgs, AluFn, Kind, LANES, Row};

use super::program::{Address, NONE, Op, Slot, Space, Special};
use super::scope::{Register, Symbol};
use super::{Decoder, Result, rows_of};
use crate::counters::Class;

/// Generic addresses of a block's shared memory start here.
pub const SHARED_WINDOW: u64 = 0x1000_0000_0000_0000;
/// Generic addresses of local memory start here.
pub const LOCAL_WINDOW: u64 = 0x2000_0000_0000_0000;
/// Generic addresses of kernel parameters start here.
pub const PARAM_WINDOW: u64 = 0x3000_0000_0000_0000;
/// Bits of a generic address that tell its window.
pub const WINDOW_MASK: u64 = 0xF000_0000_0000_0000;

/// The window of a space; global addresses are generic as they are.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Generic | Space::Global => 0,
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
    }
}

impl Decoder<'_> {
    pub(super) fn operand<'o>(&self, i: &'o Instruction, n: usize) -> Result<&'o Operand> {
        i.operands
            .get(n)
            .ok_or_else(|| format!("expected at least {} operands, found {}", n + 1, i.operands.len()))
    }

    pub(super) fn expect_operands(
        &self,
        i: &Instruction,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<()> {
        if range.contains(&i.operands.len()) {
            return Ok(());
        }
        Err(format!("expected {} to {} operands, found {}", range.start(), range.end(), i.operands.len()))
    }

    /// Refuses modifiers that are not in the list.
    pub(super) fn allow(&self, i: &Instruction, known: &[&str]) -> Result<()> {
        match i.modifiers.iter().find(|m| !known.contains(&m.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(format!("modifier .{unknown} is not supported")),
        }
    }

    fn touch(&mut self, row: u32, kind: Kind) {
        if rows_of(kind) > 0 {
            self.touched.push((row, rows_of(kind)));
        }
    }

    fn register(&self, name: &str) -> Result<Register> {
        match self.scopes.find(name) {
            Some(Symbol::Register(register)) => Ok(register),
            Some(_) => Err(format!("expected a register, found the variable {name}")),
            None => Err(format!("{name} is not declared")),
        }
    }

    pub(super) fn predicate_register(&self, name: &str) -> Result<u32> {
        let register = self.register(name)?;
        match register.kind {
            Kind::Pred => Ok(register.index),
            _ => Err(format!("expected a predicate, found {name}")),
        }
    }

    /// The rows of a destination; `_` gets rows that nobody reads.
    pub(super) fn destination(&mut self, operand: &Operand, kind: Kind) -> Result<u32> {
        let Operand::Name(name) = operand else {
            return Err(format!("expected a register to write to, found {operand:?}"));
        };
        if name == "_" {
            return Ok(self.allocate(kind));
        }
        let register = self.register(name)?;
        if register.kind != kind {
            return Err(format!(
                "expected a destination of kind {kind:?}, found {name} of {:?}",
                register.kind
            ));
        }
        self.touch(register.index, kind);
        self.writes(Slot { row: register.index, kind });
        Ok(register.index)
    }

    /// Notes that the current instruction writes a register.
    fn writes(&mut self, slot: Slot) {
        if slot.row != NONE && rows_of(slot.kind) > 0 {
            self.written.push((slot.row, rows_of(slot.kind)));
        }
    }

    /// A register of any kind that is written.
    pub(super) fn written_slot(&mut self, operand: &Operand, constant: Kind) -> Result<Slot> {
        if !matches!(operand, Operand::Name(_)) {
            return Err(format!("expected a register to write to, found {operand:?}"));
        }
        let slot = self.slot(operand, constant)?;
        self.writes(slot);
        Ok(slot)
    }

    /// The slots of a register or vector that is written.
    pub(super) fn written_slots(&mut self, operand: &Operand, constant: Kind) -> Result<Box<[Slot]>> {
        match operand {
            Operand::Vector(items) => items.iter().map(|item| self.written_slot(item, constant)).collect(),
            single => Ok(Box::new([self.written_slot(single, constant)?])),
        }
    }

    /// 32-bit rows of a vector that is written.
    pub(super) fn written_fragment(&mut self, operand: &Operand) -> Result<Box<[u32]>> {
        match operand {
            Operand::Vector(items) => items.iter().map(|item| self.destination(item, Kind::B32)).collect(),
            single => Ok(Box::new([self.destination(single, Kind::B32)?])),
        }
    }

    /// A register of any kind, for loads, stores and moves; `_` is [`NONE`].
    pub(super) fn slot(&mut self, operand: &Operand, constant: Kind) -> Result<Slot> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(Slot { row: NONE, kind: constant }),
            Operand::Name(name) if matches!(self.scopes.find(name), Some(Symbol::Register(_))) => {
                let register = self.register(name)?;
                if register.kind == Kind::Pred {
                    return Err(format!("expected a register with rows, found the predicate {name}"));
                }
                self.touch(register.index, register.kind);
                Ok(Slot { row: register.index, kind: register.kind })
            }
            _ => Ok(Slot { row: self.source(operand, constant)?, kind: constant }),
        }
    }

    /// The slots of a register or vector.
    pub(super) fn slots(&mut self, operand: &Operand, constant: Kind) -> Result<Box<[Slot]>> {
        match operand {
            Operand::Vector(items) => items.iter().map(|item| self.slot(item, constant)).collect(),
            single => Ok(Box::new([self.slot(single, constant)?])),
        }
    }

    /// 32-bit rows of a vector (or single register), for fragments.
    pub(super) fn fragment(&mut self, operand: &Operand) -> Result<Box<[u32]>> {
        match operand {
            Operand::Vector(items) => items.iter().map(|item| self.source(item, Kind::B32)).collect(),
            single => Ok(Box::new([self.source(single, Kind::B32)?])),
        }
    }

    /// The rows, or the predicate, of a source of a kind.
    pub(super) fn source(&mut self, operand: &Operand, kind: Kind) -> Result<u32> {
        match operand {
            Operand::Name(name) => self.named_source(name, 0, kind),
            Operand::Offset(name, offset) => self.named_source(name, *offset, kind),
            Operand::Integer(value) if kind == Kind::Pred => Ok(u32::from(*value != 0)),
            Operand::Integer(value) => Ok(self.constant(*value as u128, kind)),
            Operand::Float(bits) if kind == Kind::B64 => {
                Ok(self.constant(u128::from(f64::from(f32::from_bits(*bits)).to_bits()), kind))
            }
            Operand::Float(bits) => Ok(self.constant(u128::from(*bits), kind)),
            Operand::Double(bits) if kind == Kind::B32 => {
                Ok(self.constant(u128::from((f64::from_bits(*bits) as f32).to_bits()), kind))
            }
            Operand::Double(bits) => Ok(self.constant(u128::from(*bits), kind)),
            Operand::Not(name) if kind == Kind::Pred => self.negated(name),
            other => Err(format!("operand {other:?} is not supported here")),
        }
    }

    fn named_source(&mut self, name: &str, offset: i64, kind: Kind) -> Result<u32> {
        match self.scopes.find(name) {
            Some(Symbol::Register(register)) => {
                if register.kind != kind || offset != 0 {
                    return Err(format!(
                        "expected an operand of kind {kind:?}, found {name} of {:?}",
                        register.kind
                    ));
                }
                self.touch(register.index, kind);
                Ok(register.index)
            }
            Some(Symbol::Variable(_, address)) => {
                Ok(self.constant(u128::from(address.wrapping_add_signed(offset)), kind))
            }
            Some(Symbol::DynamicShared) => {
                // Each use has rows of its own: the start is added to them at the end.
                let row = self.allocate(kind);
                fill(&mut self.template, row, kind, u128::from(offset as u64));
                self.dynamic_shared.push(row);
                if kind == Kind::B64 {
                    // The low half of lane i is element 2 i: undo what the end adds to high halves.
                    return self.dynamic_shared_wide(row, offset);
                }
                Ok(row)
            }
            None => self.special(name, kind),
        }
    }

    /// A 64-bit address of dynamic shared memory: widened from 32 bits, as only those can be fixed up at the
    /// end.
    fn dynamic_shared_wide(&mut self, wide: u32, offset: i64) -> Result<u32> {
        self.dynamic_shared.pop();
        let narrow = self.allocate(Kind::B32);
        fill(&mut self.template, narrow, Kind::B32, u128::from(offset as u64));
        self.dynamic_shared.push(narrow);
        let op = cuda_emulator_alu::lookup("cvt", &["u64", "u32"]).ok_or("no widening conversion")?;
        self.emit_alu(op.run, AluArgs { dst: [wide, 0], src: [narrow, 0, 0, 0] });
        Ok(wide)
    }

    /// Rows of a special register, or of a value known when a warp starts.
    fn special(&mut self, name: &str, kind: Kind) -> Result<u32> {
        if name == "WARP_SZ" {
            return Ok(self.constant(LANES as u128, kind));
        }
        let special = special(name).ok_or_else(|| format!("{name} is not declared"))?;
        let own = if special == Special::GridId { Kind::B64 } else { Kind::B32 };
        if kind != own {
            return Err(format!("{name} has kind {own:?}, expected {kind:?}"));
        }
        if let Some((row, _)) = self.specials.iter().find(|(_, s)| *s == special) {
            return Ok(*row);
        }
        let row = self.allocate(kind);
        self.specials.push((row, special));
        Ok(row)
    }

    /// Rows that hold a value in every lane.
    pub(super) fn constant(&mut self, bits: u128, kind: Kind) -> u32 {
        let bits = match kind {
            Kind::B32 => bits & 0xFFFF_FFFF,
            Kind::B64 => bits & 0xFFFF_FFFF_FFFF_FFFF,
            _ => bits,
        };
        if let Some(row) = self.constants.get(&(kind, bits)) {
            return *row;
        }
        let row = self.allocate(kind);
        fill(&mut self.template, row, kind, bits);
        self.constants.insert((kind, bits), row);
        row
    }

    /// A predicate that holds the opposite of another, computed just before the instruction.
    fn negated(&mut self, name: &str) -> Result<u32> {
        let source = self.predicate_register(name)?;
        let op = cuda_emulator_alu::lookup("not", &["pred"]).ok_or("no not.pred")?;
        let result = self.allocate(Kind::Pred);
        self.emit_alu(op.run, AluArgs { dst: [result, 0], src: [source, 0, 0, 0] });
        Ok(result)
    }

    /// Whether an operand is a 64-bit register.
    pub(super) fn is_wide(&self, operand: &Operand) -> bool {
        let Operand::Name(name) = operand else { return false };
        self.register(name).is_ok_and(|register| register.kind == Kind::B64)
    }

    /// A row with the low halves of a 64-bit register, made just before the instruction.
    pub(super) fn narrowed(&mut self, operand: &Operand) -> Result<u32> {
        let wide = self.source(operand, Kind::B64)?;
        let op = cuda_emulator_alu::lookup("cvt", &["u32", "u64"]).ok_or("no narrowing conversion")?;
        let result = self.allocate(Kind::B32);
        self.emit_alu(op.run, AluArgs { dst: [result, 0], src: [wide, 0, 0, 0] });
        Ok(result)
    }

    /// Adds an unguarded arithmetic instruction that the text does not have.
    fn emit_alu(&mut self, run: AluFn, args: AluArgs) {
        self.instructions.push(super::Instruction {
            guard: NONE,
            guard_xor: 0,
            op: Op::Alu(run, args),
            class: Class::Integer,
            touches_wgmma: false,
            touches_loaded: false,
            is_move: false,
            rows: Box::default(),
            written: Box::default(),
        });
        self.sites.push(self.site);
    }

    /// `[register + offset]` or `[variable + offset]`.
    pub(super) fn address(&mut self, operand: &Operand, space: Space) -> Result<Address> {
        let Operand::Address { base, offset, .. } = operand else {
            return Err(format!("expected an address, found {operand:?}"));
        };
        self.address_of(base, *offset, space)
    }

    fn address_of(&mut self, base: &str, offset: i64, space: Space) -> Result<Address> {
        if base.is_empty() {
            return Ok(Address { space, row: self.constant(0, Kind::B64), wide: true, offset });
        }
        match self.scopes.find(base) {
            Some(Symbol::Register(Register { index, kind: kind @ (Kind::B32 | Kind::B64) })) => {
                self.touch(index, kind);
                // The parameters of a device function are in local memory.
                let is_call = space == Space::Param && !self.inlining.is_empty();
                let space = if is_call { Space::Local } else { space };
                Ok(Address { space, row: index, wide: kind == Kind::B64, offset })
            }
            Some(Symbol::Variable(own, address)) => {
                let space = if space == Space::Generic { own } else { self.refine(space, own)? };
                Ok(Address { space, row: self.constant(u128::from(address), Kind::B64), wide: true, offset })
            }
            Some(Symbol::DynamicShared) => {
                let space =
                    if space == Space::Generic { Space::Shared } else { self.refine(space, Space::Shared)? };
                Ok(Address { space, row: self.named_source(base, 0, Kind::B32)?, wide: false, offset })
            }
            Some(Symbol::Register(_)) => Err(format!("expected an address, found {base}")),
            None => Err(format!("{base} is not declared")),
        }
    }

    /// Parameters of calls live in local memory.
    fn refine(&self, wanted: Space, own: Space) -> Result<Space> {
        match (wanted, own) {
            (Space::Param, Space::Local) => Ok(Space::Local),
            _ if wanted == own => Ok(own),
            _ => Err(format!("expected a variable in {wanted:?} memory, found one in {own:?} memory")),
        }
    }
}

/// Fills every lane of a register with a value.
fn fill(rows: &mut [Row], first: u32, kind: Kind, bits: u128) {
    let words = rows_of(kind) as usize;
    for i in 0..LANES * words {
        rows[first as usize + i / LANES].0[i % LANES] = (bits >> (32 * (i % words))) as u32;
    }
}

fn special(name: &str) -> Option<Special> {
    let (stem, axis) = match name.rsplit_once('.') {
        Some((stem, "x")) => (stem, 0),
        Some((stem, "y")) => (stem, 1),
        Some((stem, "z")) => (stem, 2),
        _ => (name, 3),
    };
    let vector = match stem {
        "%tid" => Special::Tid(axis),
        "%ntid" => Special::Ntid(axis),
        "%ctaid" => Special::Ctaid(axis),
        "%nctaid" => Special::Nctaid(axis),
        "%clusterid" => Special::ClusterId(axis),
        "%nclusterid" => Special::NclusterId(axis),
        "%cluster_ctaid" => Special::ClusterCtaid(axis),
        "%cluster_nctaid" => Special::ClusterNctaid(axis),
        _ => return scalar_special(name),
    };
    (axis < 3).then_some(vector)
}

fn scalar_special(name: &str) -> Option<Special> {
    Some(match name {
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NwarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NsmId,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        // Where cooperative groups look for the barrier of the grid.
        "%envreg1" => Special::Workspace(true),
        "%envreg2" => Special::Workspace(false),
        _ => return None,
    })
}
