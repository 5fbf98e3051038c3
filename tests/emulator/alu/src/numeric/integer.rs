//! Integer arithmetic.

/// An integer type of PTX.
pub trait Integer: Copy + Ord {
    /// Width.
    const BITS: u32;
    /// Smallest value.
    const MIN: Self;
    /// Largest value.
    const MAX: Self;
    /// The value in a type that holds all of them.
    fn wide(self) -> i128;
    /// The low bits of a value.
    fn truncate(value: i128) -> Self;
    /// Wrapping sum.
    fn add(self, other: Self) -> Self;
    /// Wrapping difference.
    fn sub(self, other: Self) -> Self;
    /// Low half of the product.
    fn mul_lo(self, other: Self) -> Self;
    /// High half of the product.
    fn mul_hi(self, other: Self) -> Self;
    /// Quotient, truncated. All bits set for a zero divisor.
    fn div(self, other: Self) -> Self;
    /// Remainder of [`Integer::div`]. The dividend for a zero divisor.
    fn rem(self, other: Self) -> Self;
}

macro_rules! integer {
    ($($t:ty, $wide:ty;)*) => {
        $(impl Integer for $t {
            const BITS: u32 = <$t>::BITS;
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;

            #[inline(always)]
            fn wide(self) -> i128 {
                self as i128
            }

            #[inline(always)]
            fn truncate(value: i128) -> Self {
                value as $t
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn mul_lo(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn mul_hi(self, other: Self) -> Self {
                ((self as $wide * other as $wide) >> <$t>::BITS) as $t
            }

            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }

            #[inline(always)]
            fn rem(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_rem(other) }
            }
        })*
    };
}

integer! {
    u8, u16;
    u16, u32;
    u32, u64;
    u64, u128;
    i8, i16;
    i16, i32;
    i32, i64;
    i64, i128;
}

/// The value clamped to the range of a type.
#[inline(always)]
pub fn clamp<I: Integer>(value: i128) -> I {
    I::truncate(value.clamp(I::MIN.wide(), I::MAX.wide()))
}

/// `sad`: `c` and the distance of `a` and `b`.
#[inline(always)]
pub fn sad<I: Integer>(a: I, b: I, c: I) -> I {
    c.add(if a < b { b.sub(a) } else { a.sub(b) })
}

/// The exact product of the low 24 bits, sign-extended if `SIGNED`.
#[inline(always)]
fn product24<const SIGNED: bool>(a: u32, b: u32) -> i64 {
    let low = |x: u32| if SIGNED { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
    low(a) * low(b)
}

/// `mul24.lo`: bits 0 to 31 of the product of the low 24 bits.
#[inline(always)]
pub fn mul24_lo<const SIGNED: bool>(a: u32, b: u32) -> u32 {
    product24::<SIGNED>(a, b) as u32
}

/// `mul24.hi`: bits 16 to 47 of the product of the low 24 bits.
#[inline(always)]
pub fn mul24_hi<const SIGNED: bool>(a: u32, b: u32) -> u32 {
    (product24::<SIGNED>(a, b) >> 16) as u32
}

/// Sum and carry out.
#[inline(always)]
pub fn add_carry32(a: u32, b: u32, carry: bool) -> (u32, bool) {
    let sum = u64::from(a) + u64::from(b) + u64::from(carry);
    (sum as u32, sum >> 32 != 0)
}

/// Sum and carry out.
#[inline(always)]
pub fn add_carry64(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(carry.into());
    (sum, first | second)
}

/// Difference and borrow out.
#[inline(always)]
pub fn sub_borrow32(a: u32, b: u32, borrow: bool) -> (u32, bool) {
    let difference = i64::from(a) - i64::from(b) - i64::from(borrow);
    (difference as u32, difference < 0)
}

/// Difference and borrow out.
#[inline(always)]
pub fn sub_borrow64(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(borrow.into());
    (difference, first | second)
}

/// One byte of a register, sign-extended if `SIGNED`.
#[inline(always)]
fn byte<const SIGNED: bool>(x: u32, index: u32) -> i32 {
    let byte = (x >> (8 * index)) as u8;
    if SIGNED { i32::from(byte as i8) } else { i32::from(byte) }
}

/// `dp4a`: `c` and the dot product of four bytes.
#[inline(always)]
pub fn dp4a<const A: bool, const B: bool>(a: u32, b: u32, c: u32) -> u32 {
    let dot: i32 = (0..4).map(|i| byte::<A>(a, i) * byte::<B>(b, i)).sum();
    c.wrapping_add(dot as u32)
}

/// `dp2a`: `c` and the dot product of two 16-bit values of `a` with the two low or high bytes of `b`.
#[inline(always)]
pub fn dp2a<const A: bool, const B: bool, const HIGH: bool>(a: u32, b: u32, c: u32) -> u32 {
    let word = |i: u32| {
        let word = (a >> (16 * i)) as u16;
        if A { i32::from(word as i16) } else { i32::from(word) }
    };
    let first = if HIGH { 2 } else { 0 };
    let dot = word(0) * byte::<B>(b, first) + word(1) * byte::<B>(b, first + 1);
    c.wrapping_add(dot as u32)
}

/// A function of two 16-bit values applied to both halves of a register.
#[inline(always)]
pub fn pair(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}
