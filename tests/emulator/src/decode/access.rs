//! Loads, stores, atomics.

use crate::counters::Class;
use crate::memory::access::Width;
use crate::ptx::ast::Instruction;
use crate::ptx::type_bytes;
use cuda_emulator_alu::row::Kind;

use super::arithmetic::space_of;
use super::program::{
    Access, Atomic, AtomicOp, AtomicType, Extend, NONE, Op, Order, Slot, Space, StoreAsync,
};
use super::{Decoder, Result};

/// Cache and eviction hints: they change time, not results.
const HINTS: [&str; 24] = [
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "nc",
    "unified",
    "weak",
    "noftz",
    "sync",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::cache_hint",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_last",
    "L2::evict_first",
    "L2::evict_normal",
];
const ORDERS: [&str; 9] =
    ["volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys"];

impl Decoder<'_> {
    pub(super) fn memory_access(&mut self, i: &Instruction) -> Result<()> {
        match i.base.as_str() {
            "ld" | "ldu" => self.load(i),
            "st" => self.store(i),
            "atom" | "red" => self.atomic(i),
            _ => self.hint(i),
        }
    }

    /// Prefetches and the like: no effect, but the address must be one.
    fn hint(&mut self, i: &Instruction) -> Result<()> {
        if i.has("tensormap") || i.base != "prefetch" {
            return self.push(i, Class::Integer, Op::Nop);
        }
        let address = self.address(self.operand(i, 0)?, access_space(i))?;
        self.push(i, Class::Global, Op::Prefetch(address))
    }

    fn load(&mut self, i: &Instruction) -> Result<()> {
        let access = self.access(i, 0, 1)?;
        let class = class_of(access.address.space);
        let strong = access.order.across && class == Class::Global;
        self.polls |= strong;
        self.exchanges |= strong;
        self.push(i, class, Op::Load(Box::new(access)))
    }

    fn store(&mut self, i: &Instruction) -> Result<()> {
        if i.has("async") {
            return self.store_async(i);
        }
        let access = self.access(i, 1, 0)?;
        if access.slots.iter().any(|slot| slot.row == NONE) {
            return Err("cannot store _".into());
        }
        let class = class_of(access.address.space);
        self.push(i, class, Op::Store(Box::new(access)))
    }

    /// `st.async` completes on a mbarrier, as a bulk copy does.
    fn store_async(&mut self, i: &Instruction) -> Result<()> {
        let known = ["async", "weak", "shared::cluster", "mbarrier::complete_tx::bytes", "v2", "v4"];
        let (ty, modifiers) = i.modifiers.split_last().ok_or("expected a type")?;
        if let Some(unknown) = modifiers.iter().find(|m| !known.contains(&m.as_str())) {
            return Err(format!("modifier .{unknown} is not supported"));
        }
        if !i.has("mbarrier::complete_tx::bytes") {
            return Err("expected .mbarrier::complete_tx::bytes".into());
        }
        self.expect_operands(i, 3..=3)?;
        let (width, kind) = match type_bytes(ty) {
            Some(4) => (Width::B4, Kind::B32),
            Some(8) => (Width::B8, Kind::B64),
            _ => return Err(format!("type .{ty} is not supported")),
        };
        let count = if i.has("v4") {
            4
        } else if i.has("v2") {
            2
        } else {
            1
        };
        let address = self.address(&i.operands[0], Space::Shared)?;
        let slots = self.slots(&i.operands[1], kind)?;
        if slots.len() != count || slots.iter().any(|slot| slot.row == NONE) {
            return Err(format!("expected {count} registers, found {:?}", i.operands[1]));
        }
        let mbarrier = self.address(&i.operands[2], Space::Shared)?;
        self.note_shared_width(Space::Shared, width.bytes());
        self.push(i, Class::Shared, Op::StoreAsync(Box::new(StoreAsync { address, width, slots, mbarrier })))
    }

    fn access(&mut self, i: &Instruction, register: usize, address: usize) -> Result<Access> {
        let (ty, count) = self.access_type(i)?;
        self.expect_operands(i, 2..=3)?; // the third is a cache policy
        let bytes = type_bytes(ty).ok_or_else(|| format!("type .{ty} is not supported"))?;
        let width = Width::of(bytes).ok_or("width is not supported")?;
        let constant = match bytes {
            16 => Kind::B128,
            8 => Kind::B64,
            _ => Kind::B32,
        };
        let slots = match i.base.as_str() {
            "st" => self.slots(&i.operands[register], constant)?,
            _ => self.written_slots(&i.operands[register], constant)?,
        };
        if slots.len() != count {
            return Err(format!("expected {count} registers, found {}", slots.len()));
        }
        for slot in &slots {
            if slot.row != NONE && super::rows_of(slot.kind) * 4 < bytes as u32 {
                return Err(format!("a register of kind {:?} is too narrow for .{ty}", slot.kind));
            }
        }
        let address = self.address(&i.operands[address], access_space(i))?;
        let extend = if ty.starts_with('s') { Extend::Sign } else { Extend::Zero };
        let order = self.order(i);
        let words = width == Width::B4
            && bytes * count <= 16
            && slots.iter().all(|slot| slot.kind == Kind::B32 && slot.row != NONE);
        let access = Access { address, width, slots, extend, order, words };
        self.note_shared_width(address.space, access.width.bytes());
        Ok(access)
    }

    /// Type and number of elements, after refusing what is unknown.
    fn access_type<'i>(&self, i: &'i Instruction) -> Result<(&'i str, usize)> {
        let mut count = 1;
        for modifier in &i.modifiers[..i.modifiers.len().saturating_sub(1)] {
            match modifier.as_str() {
                "v2" => count = 2,
                "v4" => count = 4,
                "v8" => count = 8,
                m if HINTS.contains(&m) || ORDERS.contains(&m) || space_of(m).is_some() => {}
                other => return Err(format!("modifier .{other} is not supported")),
            }
        }
        Ok((i.modifiers.last().ok_or("expected a type")?, count))
    }

    fn order(&mut self, i: &Instruction) -> Order {
        let strong = ["volatile", "relaxed", "acquire", "release"].iter().any(|m| i.has(m));
        self.has_fences |= strong;
        order_of(i, strong)
    }

    /// Remembers the narrowest access that may be one to shared memory.
    pub(super) fn note_shared_width(&mut self, space: Space, bytes: usize) {
        if matches!(space, Space::Shared | Space::Generic) {
            self.shared_granule = self.shared_granule.min(bytes.trailing_zeros());
        }
    }

    fn atomic(&mut self, i: &Instruction) -> Result<()> {
        let (ty, count, op) = self.atomic_type(i)?;
        let kind = match ty {
            AtomicType::B64 | AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => Kind::B64,
            AtomicType::B128 => Kind::B128,
            _ => Kind::B32,
        };
        let has_result = i.base == "atom";
        let first = usize::from(has_result);
        let dst = if has_result { self.written_slots(self.operand(i, 0)?, kind)? } else { Box::default() };
        let address = self.address(self.operand(i, first)?, access_space(i))?;
        let src = self.slots(self.operand(i, first + 1)?, kind)?;
        let swap = if op == AtomicOp::Cas {
            self.slot(self.operand(i, first + 2)?, kind)?
        } else {
            Slot { row: NONE, kind }
        };
        if src.len() != count || has_result && dst.len() != count {
            return Err(format!("expected {count} registers, found {}", src.len()));
        }
        self.has_fences |= ["acquire", "release", "acq_rel"].iter().any(|m| i.has(m));
        let may_poll = matches!(op, AtomicOp::Cas | AtomicOp::Or | AtomicOp::Exch);
        let asks = has_result && class_of(address.space) == Class::Global;
        self.polls |= asks && may_poll;
        self.exchanges |= asks;
        self.note_shared_width(address.space, atomic_bytes(ty));
        let atomic = Atomic { address, op, ty, dst, src, swap, order: order_of(i, true) };
        self.push(i, Class::Atomic, Op::Atomic(Box::new(atomic)))
    }

    fn atomic_type(&self, i: &Instruction) -> Result<(AtomicType, usize, AtomicOp)> {
        let (mut ty, mut count, mut op) = (None, 1, None);
        for m in &i.modifiers {
            match m.as_str() {
                "v2" => count = 2,
                "v4" => count = 4,
                "v8" => count = 8,
                m if HINTS.contains(&m) || ORDERS.contains(&m) || space_of(m).is_some() => {}
                m if op.is_none() && atomic_op(m).is_some() => op = atomic_op(m),
                m if atomic_type(m).is_some() => ty = atomic_type(m),
                other => return Err(format!("modifier .{other} is not supported")),
            }
        }
        Ok((ty.ok_or("expected a type")?, count, op.ok_or("expected an operation")?))
    }
}

fn order_of(i: &Instruction, strong: bool) -> Order {
    let across = strong && !i.has("cta") && !i.has("cluster");
    let has = |order: &str| across && (i.has(order) || i.has("acq_rel"));
    Order { strong, across, acquire: has("acquire"), release: has("release") }
}

fn access_space(i: &Instruction) -> Space {
    i.modifiers.iter().find_map(|m| space_of(m)).unwrap_or(Space::Generic)
}

fn class_of(space: Space) -> Class {
    match space {
        Space::Generic | Space::Global => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param => Class::Integer,
    }
}

/// The operation of a modifier.
pub(super) fn atomic_op(modifier: &str) -> Option<AtomicOp> {
    Some(match modifier {
        "add" => AtomicOp::Add,
        "min" => AtomicOp::Min,
        "max" => AtomicOp::Max,
        "inc" => AtomicOp::Inc,
        "dec" => AtomicOp::Dec,
        "and" => AtomicOp::And,
        "or" => AtomicOp::Or,
        "xor" => AtomicOp::Xor,
        "exch" => AtomicOp::Exch,
        "cas" => AtomicOp::Cas,
        _ => return None,
    })
}

/// The type of a modifier.
pub(super) fn atomic_type(modifier: &str) -> Option<AtomicType> {
    Some(match modifier {
        "b16" => AtomicType::B16,
        "b32" => AtomicType::B32,
        "b64" => AtomicType::B64,
        "b128" => AtomicType::B128,
        "u32" => AtomicType::U32,
        "s32" => AtomicType::S32,
        "u64" => AtomicType::U64,
        "s64" => AtomicType::S64,
        "f16" => AtomicType::F16,
        "bf16" => AtomicType::Bf16,
        "f16x2" => AtomicType::F16x2,
        "bf16x2" => AtomicType::Bf16x2,
        "f32" => AtomicType::F32,
        "f64" => AtomicType::F64,
        _ => return None,
    })
}

/// Bytes of an element.
pub fn atomic_bytes(ty: AtomicType) -> usize {
    match ty {
        AtomicType::B16 | AtomicType::F16 | AtomicType::Bf16 => 2,
        AtomicType::B64 | AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => 8,
        AtomicType::B128 => 16,
        _ => 4,
    }
}
