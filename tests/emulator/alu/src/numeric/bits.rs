//! Bit manipulation.

/// `shl` of 32 bits; amounts beyond the width shift everything out.
#[inline(always)]
pub fn shl32(a: u32, b: u32) -> u32 {
    if b < 32 { a << b } else { 0 }
}

/// `shl` of 64 bits.
#[inline(always)]
pub fn shl64(a: u64, b: u32) -> u64 {
    if b < 64 { a << b } else { 0 }
}

/// `shr` of 32 unsigned bits.
#[inline(always)]
pub fn shr32(a: u32, b: u32) -> u32 {
    if b < 32 { a >> b } else { 0 }
}

/// `shr` of 64 unsigned bits.
#[inline(always)]
pub fn shr64(a: u64, b: u32) -> u64 {
    if b < 64 { a >> b } else { 0 }
}

/// `shr` of 32 signed bits.
#[inline(always)]
pub fn sar32(a: i32, b: u32) -> i32 {
    a >> b.min(31)
}

/// `shr` of 64 signed bits.
#[inline(always)]
pub fn sar64(a: i64, b: u32) -> i64 {
    a >> b.min(63)
}

/// The amount of a funnel shift or mask: clamped to 32 or modulo 32.
#[inline(always)]
fn amount<const WRAP: bool>(c: u32) -> u32 {
    if WRAP { c & 31 } else { c.min(32) }
}

/// `shf.l`: the upper half of `b:a` shifted left.
#[inline(always)]
pub fn shf_left<const WRAP: bool>(a: u32, b: u32, c: u32) -> u32 {
    let value = u64::from(b) << 32 | u64::from(a);
    ((value << amount::<WRAP>(c)) >> 32) as u32
}

/// `shf.r`: the lower half of `b:a` shifted right.
#[inline(always)]
pub fn shf_right<const WRAP: bool>(a: u32, b: u32, c: u32) -> u32 {
    let value = u64::from(b) << 32 | u64::from(a);
    (value >> amount::<WRAP>(c)) as u32
}

/// `bfind` of an unsigned value: position of the highest set bit, all ones if there is none.
#[inline(always)]
pub fn bfind32(a: u32) -> u32 {
    31u32.wrapping_sub(a.leading_zeros())
}

/// `bfind` of a 64-bit unsigned value.
#[inline(always)]
pub fn bfind64(a: u64) -> u32 {
    63u32.wrapping_sub(a.leading_zeros())
}

/// Complements negative values, so that `bfind` finds the highest bit unlike the sign.
#[inline(always)]
pub fn unlike_sign32(a: i32) -> u32 {
    (a ^ (a >> 31)) as u32
}

/// The same for 64 bits.
#[inline(always)]
pub fn unlike_sign64(a: i64) -> u64 {
    (a ^ (a >> 63)) as u64
}

/// `bfind.shiftamt` from `bfind`: the left shift that brings the bit to the top.
#[inline(always)]
pub fn shift_amount(position: u32, top: u32) -> u32 {
    if position == u32::MAX { u32::MAX } else { top - position }
}

/// `bfe` from a value of `bits` bits: the field of `length` bits at `position`, filled up with the highest
/// bit of the field if `SIGNED`. Fields that reach beyond the value are filled with its sign.
#[inline(always)]
fn extract<const SIGNED: bool>(a: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let last = (position + length - 1).min(bits - 1);
    let negative = SIGNED && a >> last & 1 == 1;
    let fill = if negative { u64::MAX } else { 0 };
    let shifted = if position < bits { shr64(a, position) } else { 0 };
    // Bits of the field that the value has; above them is the fill.
    let present = bits.saturating_sub(position).min(length);
    let mask = if present >= 64 { u64::MAX } else { (1 << present) - 1 };
    shifted & mask | fill & !mask
}

/// `bfe.u32`.
#[inline(always)]
pub fn bfe_u32(a: u32, position: u32, length: u32) -> u32 {
    extract::<false>(a.into(), position, length, 32) as u32
}

/// `bfe.s32`.
#[inline(always)]
pub fn bfe_s32(a: u32, position: u32, length: u32) -> u32 {
    extract::<true>(a.into(), position, length, 32) as u32
}

/// `bfe.u64`.
#[inline(always)]
pub fn bfe_u64(a: u64, position: u32, length: u32) -> u64 {
    extract::<false>(a, position, length, 64)
}

/// `bfe.s64`.
#[inline(always)]
pub fn bfe_s64(a: u64, position: u32, length: u32) -> u64 {
    extract::<true>(a, position, length, 64)
}

#[inline(always)]
fn field(position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    shl64(ones, position)
}

/// `bfi.b64`: `b` with `length` low bits of `a` inserted at `position`.
#[inline(always)]
pub fn bfi64(a: u64, b: u64, position: u32, length: u32) -> u64 {
    let mask = field(position, length);
    shl64(a, position & 0xff) & mask | b & !mask
}

/// `bfi.b32`.
#[inline(always)]
pub fn bfi32(a: u32, b: u32, position: u32, length: u32) -> u32 {
    bfi64(a.into(), b.into(), position, length) as u32
}

/// `bmsk`: `width` ones from bit `position` up.
#[inline(always)]
pub fn bmsk<const WRAP: bool>(position: u32, width: u32) -> u32 {
    let (position, width) = (amount::<WRAP>(position), amount::<WRAP>(width));
    (((1u64 << width) - 1) << position) as u32
}

/// `szext`: the low `width` bits, extended by their sign if `SIGNED`.
#[inline(always)]
pub fn szext<const SIGNED: bool, const WRAP: bool>(a: u32, width: u32) -> u32 {
    let width = amount::<WRAP>(width);
    let mask = ((1u64 << width) - 1) as u32;
    let negative = SIGNED && width > 0 && a >> (width - 1) & 1 == 1;
    a & mask | if negative { !mask } else { 0 }
}

/// `fns`: position of the `offset`-th set bit of `mask` counted from `base`, upwards or downwards; 0 for the
/// bit `base`.
#[inline(always)]
pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if base > 31 {
        return u32::MAX;
    }
    if offset == 0 {
        return if mask >> base & 1 == 1 { base } else { u32::MAX };
    }
    let step = i64::from(offset.signum());
    let (mut position, mut left) = (i64::from(base), offset.unsigned_abs());
    while (0..32).contains(&position) {
        left -= mask >> position & 1;
        if left == 0 {
            return position as u32;
        }
        position += step;
    }
    u32::MAX
}

/// `lop3`: bit `4a + 2b + c` of the table for every bit position.
#[inline(always)]
pub fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let term = |index: u32, minterm: u32| 0u32.wrapping_sub(table >> index & 1) & minterm;
    (term(0, !a & !b & !c) | term(1, !a & !b & c) | term(2, !a & b & !c) | term(3, !a & b & c))
        | (term(4, a & !b & !c) | term(5, a & !b & c) | term(6, a & b & !c) | term(7, a & b & c))
}

/// Ways in which `prmt` chooses bytes of `b:a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permute {
    /// By four selectors, each with a flag to replicate the sign.
    General,
    /// Four consecutive bytes upwards (`.f4e`).
    Forward,
    /// Four consecutive bytes downwards (`.b4e`).
    Backward,
    /// One byte four times (`.rc8`).
    Byte,
    /// The edges clamped from the left (`.ecl`).
    EdgeLeft,
    /// The edges clamped from the right (`.ecr`).
    EdgeRight,
    /// One half twice (`.rc16`).
    Half,
}

/// `prmt`. The mode is a constant of the call, so that the match folds.
#[inline(always)]
pub fn prmt(mode: Permute, a: u32, b: u32, c: u32) -> u32 {
    let select = c & 3;
    let byte = |i: u32| -> u32 {
        let choice = match mode {
            Permute::General => c >> (4 * i) & 0xf,
            Permute::Forward => select + i,
            Permute::Backward => select.wrapping_sub(i) & 7,
            Permute::Byte => select,
            Permute::EdgeLeft => i.max(select),
            Permute::EdgeRight => i.min(select),
            Permute::Half => (select & 1) * 2 + (i & 1),
        };
        let word = if choice & 4 == 0 { a } else { b };
        let byte = word >> (8 * (choice & 3)) & 0xff;
        let sign = (byte >> 7) * 0xff;
        (if choice & 8 == 0 { byte } else { sign }) << (8 * i)
    };
    byte(0) | byte(1) | byte(2) | byte(3)
}
